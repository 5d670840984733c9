package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
)

// goal judges a state: reached, not yet, or never.
type goal func(*openshellv1.Sandbox) (bool, error)

func phaseIs(s *openshellv1.Sandbox, want ...openshellv1.SandboxPhase) bool {
	for _, p := range want {
		if s.GetStatus().GetPhase() == p {
			return true
		}
	}
	return false
}

// ended reports whether the main process has come to its end.
func ended(s *openshellv1.Sandbox) bool {
	return phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_COMPLETED) ||
		phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR) && s.GetStatus().ExitCode != nil
}

// ready is the goal of create: running, or already at its end.
func ready(s *openshellv1.Sandbox) (bool, error) {
	switch {
	case phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_READY), ended(s):
		return true, nil
	case phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR):
		return false, inError(s, "sandbox entered error phase while provisioning")
	case phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_DELETING):
		return false, fault.New(fault.FailedPrecondition, "sandbox %q is being deleted", s.GetMetadata().GetName())
	}
	return false, nil
}

// started is the goal of start; a command that ends at once was started.
func started(s *openshellv1.Sandbox) (bool, error) {
	if phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR) && !ended(s) {
		return false, inError(s, "sandbox entered error phase while starting")
	}
	return phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_READY) || ended(s), nil
}

func stopped(s *openshellv1.Sandbox) (bool, error) {
	if phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR) && !ended(s) {
		return false, inError(s, "sandbox entered error phase while stopping")
	}
	return phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_STOPPED), nil
}

func inError(s *openshellv1.Sandbox, what string) error {
	name := s.GetMetadata().GetName()
	why := reason(s)
	if why != "" {
		what += ": " + why
	}
	return fault.New(fault.FailedPrecondition, "%s", what).Hint("%s logs %s; %s sandbox delete %s", brand.CLI, name, brand.CLI, name)
}

// reason is what the sandbox says of itself when it is not ready.
func reason(s *openshellv1.Sandbox) string {
	for _, c := range s.GetStatus().GetConditions() {
		if c.GetStatus() != "True" && (c.GetType() == "Ready" || c.GetReason() == "ConfigurationInvalid") {
			return clean(strings.TrimSuffix(c.GetReason()+": "+c.GetMessage(), ": "))
		}
	}
	return ""
}

// reach waits for a goal, up to limit in all.
func (a *app) reach(ctx context.Context, cl *client.Client, s *openshellv1.Sandbox, g goal, limit time.Duration) error {
	_, err := a.follow(ctx, cl, s, g, limit, nil)
	return err
}

// follow watches a sandbox until the goal is reached. limit bounds the time
// without progress if p is given, and all of it otherwise.
func (a *app) follow(ctx context.Context, cl *client.Client, s *openshellv1.Sandbox, g goal, limit time.Duration, p *progress) (*openshellv1.Sandbox, error) {
	if ok, err := g(s); ok || err != nil {
		return s, err
	}
	name, id := s.GetMetadata().GetName(), s.GetMetadata().GetId()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(limit, func() { cancel(errLate) })
	defer late.Stop()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		last, ok, err := a.watch(ctx, cl, name, id, g, func(e *openshellv1.PlatformEvent) {
			if p.event(e) {
				late.Reset(limit)
			}
		})
		if last != nil {
			s = last
		}
		switch {
		case context.Cause(ctx) == errLate:
			return s, tooLate(s, limit)
		case ok || err != nil && !transient(err):
			return s, err
		}
		// The stream ended early: a gateway that restarts. Look, and watch again.
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		if s2, err := cl.Sandbox(ctx, name); err == nil {
			if s = s2; s.GetMetadata().GetId() != id {
				return s, gone(name)
			}
			if ok, err := g(s); ok || err != nil {
				return s, err
			}
		} else if !transient(err) && ctx.Err() == nil {
			return s, err
		}
	}
}

var errLate = errors.New("no progress in time")

// transient reports whether trying again may help.
func transient(err error) bool {
	k := fault.KindOf(err)
	return k == fault.Unavailable || k == fault.DeadlineExceeded || k == fault.OutOfRange || errors.Is(err, io.ErrUnexpectedEOF)
}

func gone(name string) error {
	return fault.New(fault.NotFound, "sandbox %q was deleted meanwhile", name)
}

func tooLate(s *openshellv1.Sandbox, limit time.Duration) error {
	name := s.GetMetadata().GetName()
	text := fmt.Sprintf("sandbox %q is still %s after %s", name, strings.ToLower(phaseWord(s)), limit)
	if phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_PROVISIONING) {
		text = fmt.Sprintf("sandbox provisioning timed out after %ds", int(limit.Seconds()))
	}
	if why := reason(s); why != "" {
		text += ". Last reported status: " + why
	}
	return fault.New(fault.DeadlineExceeded, "%s", text).Hint("%s sandbox get %s", brand.CLI, name)
}

func (a *app) watch(ctx context.Context, cl *client.Client, name, id string, g goal, event func(*openshellv1.PlatformEvent)) (last *openshellv1.Sandbox, ok bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := cl.WatchSandbox(ctx, &openshellv1.WatchSandboxRequest{WorkspaceScope: cl.Scope(), Sandbox: name, FollowStatus: true, FollowEvents: true, EventTail: 50})
	if err != nil {
		return nil, false, err
	}
	defer stream.Close()
	for stream.Receive() {
		m := stream.Msg()
		if e := m.GetEvent(); e != nil {
			event(e)
		}
		s := m.GetSandbox()
		if s == nil {
			continue
		}
		if id != "" && s.GetMetadata().GetId() != id {
			return last, false, gone(name)
		}
		last = s
		if ok, err := g(s); ok || err != nil {
			return last, ok, err
		}
	}
	return last, false, stream.Err()
}

// errno takes the system's word out of an error that repeats the path.
func errno(err error) error {
	var path *fs.PathError
	var no syscall.Errno
	if errors.As(err, &path) && errors.As(path.Err, &no) {
		return no
	}
	return err
}

// progress shows what happens before a sandbox is ready: one changing line on
// a terminal, a line a step elsewhere. The nil progress shows nothing.
type progress struct {
	out   *os.File
	live  bool
	begin time.Time
	label string
	drawn bool
}

func (a *app) progress(show bool) *progress {
	return &progress{out: a.stderr, live: show && isTerminal(a.stderr), begin: time.Now()}
}

// progressReasons are the events that count as progress beside those that say so.
var progressReasons = map[string]bool{"PullingLayer": true, "ResolvingImage": true, "AuthenticatingRegistry": true, "FetchingManifest": true, "CacheHit": true,
	"CacheMiss": true, "WaitingForImageCacheLock": true, "ExportingRootfs": true, "PreparingRootfs": true, "CreatingRootDisk": true, "PreparingOverlay": true,
	"UnpackingImage": true, "Started": true}

// event takes note of an event and reports whether it is progress.
func (p *progress) event(e *openshellv1.PlatformEvent) bool {
	meta := e.GetMetadata()
	prefix := brand.Name + ".progress."
	counts := progressReasons[e.GetReason()]
	label := ""
	if meta[prefix+"complete_step"] != "" {
		counts, label = true, meta[prefix+"complete_label"]
	}
	if step := meta[prefix+"active_step"]; step != "" {
		counts = true
		label = stepWords[step]
		if d := meta[prefix+"active_detail"]; d != "" {
			label += " " + d
		}
	}
	if label == "" && counts {
		label = e.GetMessage()
	}
	if p != nil && label != "" {
		p.show(clean(label))
	}
	return counts
}

var stepWords = map[string]string{"requesting_sandbox": "Requesting sandbox...", "pulling_image": "Pulling image...", "starting_sandbox": "Starting sandbox..."}

func (p *progress) show(label string) {
	if label == p.label {
		return
	}
	p.label = label
	since := time.Since(p.begin).Seconds()
	if !p.live {
		fmt.Fprintf(p.out, "[%.1fs] %s\n", since, label)
		return
	}
	p.drawn = true
	fmt.Fprintf(p.out, "\r\x1b[K[%.1fs] %s", since, label)
}

// end removes the changing line.
func (p *progress) end() {
	if p != nil && p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
	}
}
