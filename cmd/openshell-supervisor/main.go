// Command openshell-supervisor is the outside half of one sandbox, executed
// by the native driver of a gateway: it reads a description, starts the
// sandbox, and connects it to the gateway until it is asked to end.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/event"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/supervisor"
	"openshell.dev/openshell/internal/trim"
	"openshell.dev/openshell/internal/uplink"
)

// grace is what the main process gets on SIGTERM.
const grace = 10 * time.Second

// idleGC is how much the heap of a running supervisor may grow before it is
// collected: many of them wait beside each other. While it starts it is not
// collected at all.
const idleGC = 25

// idleAfter is when memory that the start needed is given back.
const idleAfter = 2 * time.Second

func main() {
	if len(os.Args) == 2 && (os.Args[1] == "--version" || os.Args[1] == "-V") {
		fmt.Println(brand.Supervisor, brand.Version)
		return
	}
	if len(os.Args) != 3 || os.Args[1] != "--spec" {
		fmt.Fprintf(os.Stderr, "usage: %s --spec FILE\n", brand.Supervisor)
		os.Exit(2)
	}
	os.Exit(run(os.Args[2]))
}

func run(file string) int {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20) // but for a start that went wrong
	spec, err := readSpec(file)
	if err != nil {
		return complain("", err)
	}
	asked := make(chan os.Signal, 4)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT)
	// Caught, not ignored: an ignored signal would stay ignored in the agent.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGPIPE)
	lines := &uplink.Lines{}
	log := slog.New(slog.NewMultiHandler(slog.NewTextHandler(os.Stderr, nil), lines.Handler()))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	box, err := supervisor.Start(ctx, spec, supervisor.Options{Log: log, Events: event.Func(func(e event.Event) {
		lines.Add(e.Time, "OCSF", "ocsf", event.Line(e), nil)
	})})
	if err != nil {
		return complain(spec.StateDir, err)
	}
	g := spec.Gateway
	again := time.AfterFunc(time.Hour, trim.Files) // after each sign of life
	defer again.Stop()
	up, err := uplink.New(uplink.Options{SandboxID: spec.ID, InstanceID: g.InstanceID, StateDir: spec.StateDir, Endpoint: g.Endpoint, CAFile: g.CAFile,
		TokenFile: g.TokenFile, OutageLimit: g.OutageLimit, AwaitAttachment: g.AwaitAttachment, Box: box, PolicyVersion: spec.PolicyVersion, Log: log, Lines: lines,
		Woken: func() { again.Reset(time.Second) },
		SetPolicy: func(ctx context.Context, doc []byte, version uint32) error {
			_, err := box.SetPolicy(ctx, doc, version) // the proxy says what it cut
			return err
		}})
	if err != nil {
		box.Close()
		return complain(spec.StateDir, err)
	}
	confirm(spec.StateDir, box, log)
	var work sync.WaitGroup
	linked := make(chan error, 1)
	work.Go(func() { linked <- up.Run(ctx) })
	idle := time.AfterFunc(idleAfter, func() {
		debug.SetMemoryLimit(math.MaxInt64)
		debug.SetGCPercent(idleGC)
		trim.Once()
	})
	defer idle.Stop()
	code := 0
	select {
	case sig := <-asked:
		if sig == syscall.SIGTERM { // a second signal ends the waiting
			patience, hurry := context.WithCancel(ctx)
			go func() {
				<-asked
				hurry()
			}()
			box.Stop(patience, grace)
			hurry()
		}
		box.Close()
		settle(up, box, 500*time.Millisecond)
	case <-box.Done():
		// The launcher is gone and with it everything inside. What ended the
		// main process is worth telling before we go.
		box.Close()
		settle(up, box, 10*time.Second)
		code = complain(spec.StateDir, reasoned(model.ReasonProcessExited, "the sandbox ended: "+box.Main().Exit().Reason))
	case err := <-linked:
		box.Stop(ctx, grace)
		box.Close()
		if errors.Is(err, uplink.ErrOutage) {
			code = complain(spec.StateDir, reasoned(model.ReasonGatewayUnreachable, err.Error()))
		}
	}
	cancel()
	work.Wait()
	return code
}

// settle gives the end of the main process a moment to reach the gateway.
func settle(up *uplink.Uplink, box *supervisor.Sandbox, limit time.Duration) {
	select {
	case <-box.Main().Done():
	default:
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-up.Reported():
	case <-timer.C:
	}
}

// confirm keeps the confirmation record beside the sandbox; the event that
// every follower of the log gets says the same in one line.
func confirm(stateDir string, box *supervisor.Sandbox, log *slog.Logger) {
	body, err := json.Marshal(box.Record())
	if err == nil {
		err = os.WriteFile(filepath.Join(stateDir, "record.json"), body, 0o600)
	}
	if err != nil {
		log.Warn("confirmation record not kept", "err", err)
	}
}

func readSpec(file string) (supervisor.Spec, error) {
	var spec supervisor.Spec
	f, err := os.Open(file)
	if err != nil {
		return spec, fault.New(fault.InvalidArgument, "cannot read the sandbox's description").Cause(err)
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, 32<<20))
	if err != nil {
		return spec, fault.New(fault.InvalidArgument, "cannot read the sandbox's description").Cause(err)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&spec); err != nil {
		return spec, fault.New(fault.InvalidArgument, "the sandbox's description is not valid").Cause(err)
	}
	if spec.Gateway == nil || spec.StateDir == "" || spec.ID == "" {
		return spec, fault.New(fault.InvalidArgument, "the sandbox's description names no gateway, directory or id")
	}
	return spec, nil
}

func reasoned(reason, text string) error {
	return fault.New(fault.Internal, "%s", text).Because(reason)
}

// complain says why the sandbox is not there: on stderr for its log, and in a
// file for the driver.
func complain(stateDir string, err error) int {
	fmt.Fprintf(os.Stderr, "%s: error: %s\n", brand.Supervisor, fault.Detail(err))
	reason, message := model.ReasonStartFailed, err.Error()
	var f *fault.Error
	if errors.As(err, &f) && f.Reason != "" {
		reason = f.Reason
	}
	if h := fault.HintOf(err); h != "" {
		message += " (" + h + ")"
		fmt.Fprintf(os.Stderr, "%s: hint: %s\n", brand.Supervisor, h)
	}
	if stateDir != "" {
		body, merr := json.Marshal(map[string]string{"reason": reason, "message": message})
		if merr == nil {
			merr = os.WriteFile(filepath.Join(stateDir, "outcome.json"), body, 0o600)
		}
		if merr != nil {
			fmt.Fprintf(os.Stderr, "%s: error: %v\n", brand.Supervisor, merr)
		}
	}
	return 1
}
