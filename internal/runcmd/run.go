// Package runcmd is `openshell run`: one command in one sandbox, with the
// calling process as the outside half.
//
// It owns the flags, the caller's terminal and the summary; what a sandbox is
// and how it is made belongs to the supervisor. It links nothing of the
// control plane, because every millisecond of its start is seen by a person.
package runcmd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/session"
	"openshell.dev/openshell/internal/supervisor"
)

// Exit codes beside the command's own.
const (
	exitMisuse  = 2
	exitTimeout = 124
	exitNotMade = 125
)

// Main runs the command with the words after "run" and returns the exit code.
func Main(ctx context.Context, args []string, fetch Source) int {
	f, err := parse(args)
	f.fetch = fetch
	if err != nil {
		complain(err)
		return exitMisuse
	}
	if f.help {
		f.usage(os.Stdout)
		return 0
	}
	code, err := f.run(ctx)
	if err != nil {
		complain(err)
		return codeOf(err)
	}
	return code
}

func codeOf(err error) int {
	var start *supervisor.StartError
	if errors.As(err, &start) {
		return start.ExitCode()
	}
	var misused *misuseError
	if errors.As(err, &misused) {
		return exitMisuse
	}
	return exitNotMade
}

// misuseError marks an error as the caller's words being wrong.
type misuseError struct{ error }

func (e *misuseError) Unwrap() error { return e.error }

// complain prints an error the way every command does.
func complain(err error) { Complain(os.Stderr, err) }

// Complain prints an error and its hint for a person. The private causes are
// shown too: the process belongs to the person.
func Complain(w io.Writer, err error) {
	fmt.Fprintf(w, "%s: error: %s\n", brand.CLI, fault.Detail(err))
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(w, "%s: hint: %s\n", brand.CLI, hint)
	}
}

func (f *flags) run(ctx context.Context) (int, error) {
	begin := time.Now()
	spec, opts, err := f.spec(ctx)
	if err != nil {
		return 0, err
	}
	if spec.Files.Upper != "" {
		defer holdScratch(spec.StateDir, spec.ID)()
	}
	listeners, err := f.listen()
	if err != nil {
		return 0, err
	}
	defer listeners.close()
	if len(f.command) == 0 {
		return 0, f.explainOnly(spec)
	}
	seen := &sightings{quiet: f.quiet || spec.Main.TTY}
	opts.Events, opts.Direct = seen, true
	var std *stdio
	if spec.Main.TTY {
		opts.Size = terminalSize()
	} else {
		if std, err = openStdio(); err != nil {
			return 0, fault.New(fault.Exhausted, "prepare the command's input and output").Cause(err)
		}
		opts.Stdio = std.files[:]
	}
	caught := catchSignals()
	sb, err := supervisor.Prepare(ctx, spec, opts)
	if err != nil {
		return 0, err
	}
	defer sb.Close()
	err = sb.RunMain(ctx)
	if std != nil {
		std.started()
	}
	if err != nil {
		return 0, f.explainStart(err, sb)
	}
	if f.explain {
		explain(os.Stderr, spec, sb)
	}
	listeners.serve(ctx, sb)
	exit, err := f.supervise(ctx, sb, caught)
	if err != nil {
		return 0, err
	}
	sb.Close()
	if std != nil {
		std.drain()
	}
	f.finish(os.Stderr, sb, seen, exit)
	code := exit.Code
	if sb.TimedOut() {
		code = exitTimeout
	}
	if f.output == "json" {
		return code, summarise(os.Stdout, spec, sb, seen, exit, code, time.Since(begin))
	}
	return code, nil
}

// supervise stays with the command until it has ended.
func (f *flags) supervise(ctx context.Context, sb *supervisor.Sandbox, caught chan os.Signal) (session.Exit, error) {
	p := sb.Process()
	stop := forwardSignals(caught, p)
	defer stop()
	if p.Stdout() != nil {
		if err := attach(p); err != nil {
			return session.Exit{}, fault.New(fault.Internal, "prepare the terminal").Cause(err)
		}
	}
	return p.Wait(ctx)
}

// finish says what the exit code alone does not.
func (f *flags) finish(w io.Writer, sb *supervisor.Sandbox, seen *sightings, exit session.Exit) {
	if sb.TimedOut() {
		fmt.Fprintf(w, "%s: ended by its time limit of %s; raise it with --timeout\n", brand.CLI, f.timeout)
	}
	if exit.Reason != "" {
		fmt.Fprintf(w, "%s: %s\n", brand.CLI, exit.Reason)
	}
	if !f.quiet {
		seen.flush(w)
	}
	if exit.Code != 0 {
		if line := sb.Protected(); line != "" {
			fmt.Fprintf(w, "%s: note: %s\n", brand.CLI, line)
		}
	}
}

// explainStart adds to a command that was not found where it is outside.
func (f *flags) explainStart(err error, sb *supervisor.Sandbox) error {
	var start *supervisor.StartError
	if !errors.As(err, &start) || start.Step != "command" {
		return err
	}
	out := &hinted{StartError: start}
	if path, err := exec.LookPath(start.Command); err == nil {
		if path, err = filepath.Abs(path); err == nil {
			out.hint = fault.HintOf(sb.ExplainMissing(path))
		}
	}
	return out
}

// hinted is a start error with a hint of its own.
type hinted struct {
	*supervisor.StartError
	hint string
}

func (h *hinted) Unwrap() error {
	return fault.New(fault.NotFound, "%s", h.StartError.Error()).Hint("%s", h.hint).Cause(h.StartError)
}

const idBytes = 8

func newID() string {
	var b [idBytes]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b[:])
}
