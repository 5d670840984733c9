package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"openshell.dev/openshell/internal/event"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/identity"
	"openshell.dev/openshell/internal/launch/wire"
	"openshell.dev/openshell/internal/session"
	"openshell.dev/openshell/internal/trim"
)

// Options are what a caller adds to a Spec. The zero value is usable.
type Options struct {
	Log *slog.Logger
	// Events also takes every security event, besides the file of the Spec.
	Events event.Sink
	// Stdio are the main process's 0, 1 and 2. Without them, and without a
	// terminal, it gets pipes that Main multiplexes.
	Stdio []*os.File
	// Size is the first size of the main process's terminal.
	Size session.Size
	// Direct leaves the main process's streams to the caller, who reads them
	// from Process; otherwise Main does.
	Direct bool
	// Path replaces the built-in search path.
	Path string
}

// startLimit bounds every wait for the launcher during a start.
const startLimit = 30 * time.Second

// Start makes the sandbox and its main process. When it returns an error
// nothing of it is left; a *StartError says that only the command was at
// fault.
func Start(ctx context.Context, spec Spec, opts Options) (*Sandbox, error) {
	s, err := Prepare(ctx, spec, opts)
	if err != nil {
		return nil, err
	}
	if err := s.RunMain(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Prepare makes the sandbox without starting anything in it.
func Prepare(ctx context.Context, spec Spec, opts Options) (s *Sandbox, err error) {
	s = &Sandbox{
		spec: spec, opts: opts, log: opts.Log, events: event.Discard, record: &Record{}, clock: newStopwatch(),
		ready: make(chan struct{}), sockets: make(chan wire.Frame, 1), done: make(chan struct{}),
		asked: map[uint32]chan wire.Frame{}, running: map[uint32]*process{},
		main: session.NewMain(), pins: identity.NewPins(),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			s.Close()
			s = nil
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	// Errors in the caller's words come before anything is started.
	if err = s.readRules(); err != nil {
		return s, err
	}
	if err = s.openEvents(); err != nil {
		return s, err
	}
	if s.limits, err = newLimits(spec); err != nil {
		return s, err
	}
	s.onClose(s.limits.remove)
	s.clock.lap("policy")
	// The view is computed while the kernel makes the namespaces and the
	// launcher its network, which needs no plan.
	var plan *wire.Plan
	planned := make(chan error, 1)
	go func() {
		var err error
		plan, err = s.plan()
		planned <- err
	}()
	s.launch, err = startLauncher(s.limits.cgroupFD(), s.limits.place())
	s.clock.lap("fork")
	if err == nil {
		go s.receive()
		err = s.openNetwork(ctx)
	}
	if planErr := <-planned; planErr != nil { // the caller's own words come first
		err = planErr
	}
	s.clock.lap("view")
	if err != nil {
		return s, err
	}
	return s, s.sendPlan(plan)
}

// awaitReady waits until the launcher has furnished and measured the inside.
func (s *Sandbox) awaitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		s.clock.lap("inside")
		return nil
	case <-s.done:
		return s.gone()
	case <-ctx.Done():
		return fault.New(fault.DeadlineExceeded, "the sandbox was not ready after %s", startLimit).Cause(ctx.Err())
	}
}

// confirm completes the record and refuses a sandbox whose walls were not
// measured to stand.
func (s *Sandbox) confirm() error {
	r := s.record
	for _, ns := range Namespaces {
		r.Namespaces = append(r.Namespaces, ns.Name)
	}
	for _, c := range s.view.Carved {
		r.Protected = append(r.Protected, c.Path)
	}
	r.Notes = append(r.Notes, s.view.Notes...)
	var pairs []event.Pair
	failed := ""
	for _, c := range r.Checks {
		pairs = append(pairs, event.Pair{Key: c.Name, Value: c.Got})
		if !c.OK && failed == "" {
			failed = c.Name
		}
	}
	s.events.Emit(event.Confirmed(pairs, failed))
	for _, p := range r.Skipped {
		s.events.Emit(event.SkippedPath(p, "", "best effort"))
	}
	if failed != "" {
		return fault.New(fault.FailedPrecondition, "the sandbox's walls do not stand: %s", failed).Hint("openshell doctor")
	}
	return nil
}

// RunMain starts the main process. The request is sent at once; the launcher
// answers it only after it has measured the walls and reported them.
func (s *Sandbox) RunMain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	argv := s.spec.Main.Argv
	if len(argv) == 0 {
		argv = []string{s.shell(), "-l"}
	}
	cmd := session.Command{Argv: argv, Env: s.env, Dir: s.spec.Main.Dir, TTY: s.spec.Main.TTY, Size: s.opts.Size}
	if cmd.Dir == "" {
		cmd.Dir = s.view.Dir
	}
	files := s.opts.Stdio
	if cmd.TTY {
		files = nil
	}
	p, err := s.spawn(ctx, cmd, files)
	if ready := s.awaitReady(ctx); ready != nil {
		return ready
	}
	if err := s.confirm(); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	s.clock.lap("spawn")
	s.record.Phases = append(s.clock.out, s.record.Phases...)
	s.events.Emit(event.Launched(filepath.Base(argv[0]), p.pid, argv[0]))
	s.proc = p
	s.keepProtections()
	if p.stdout != nil && !s.opts.Direct {
		s.main.Bind(p)
	}
	s.finish.Go(func() {
		<-p.done
		s.events.Emit(event.Exited(filepath.Base(argv[0]), p.pid, p.exit.Code))
		s.main.Ended(p.exit)
	})
	idle := time.AfterFunc(trimAfter, s.trim)
	s.onClose(func() { idle.Stop() })
	if d := s.spec.Timeout; d > 0 {
		timer := time.AfterFunc(d, func() { s.timeOut(p, d) })
		s.onClose(func() { timer.Stop() })
	}
	return nil
}

// trimAfter is how long after the start memory is given back, and again
// whenever the sandbox carried no traffic for as long.
const trimAfter = 2 * time.Second

// trim gives memory back while the sandbox is idle.
func (s *Sandbox) trim() {
	for before := ^uint64(0); ; {
		t := s.Traffic()
		if now := t.Sent + t.Received + t.Allowed + t.Denied; now != before {
			before = now
			trim.Once()
		}
		select {
		case <-s.done:
			return
		case <-time.After(30 * time.Second):
		}
	}
}

// timeOut ends a main process that ran too long: asked first, then killed.
func (s *Sandbox) timeOut(p *process, after time.Duration) {
	_ = p.Signal(15)
	select {
	case <-p.done:
	case <-time.After(2 * time.Second):
		_ = p.Signal(9)
	}
	s.timedOut.Store(true)
	s.log.Info("main process ended by its time limit", "limit", after)
}

// TimedOut reports whether the time limit ended the main process.
func (s *Sandbox) TimedOut() bool { return s.timedOut.Load() }

// Process returns the main process.
func (s *Sandbox) Process() session.Process { return s.proc }

// Record returns the confirmation record.
func (s *Sandbox) Record() *Record { return s.record }

// Protected says in one line which protections of the workspace are active.
func (s *Sandbox) Protected() string { return s.view.Summary() }

// openEvents opens the event log.
func (s *Sandbox) openEvents() error {
	path := s.spec.Events
	if path == "" {
		if s.spec.Gateway == nil {
			if s.opts.Events != nil {
				s.events = s.opts.Events
			}
			return nil
		}
		path = filepath.Join(s.spec.StateDir, "events.jsonl")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|0x80000, 0o600)
	if err != nil {
		return fault.New(fault.InvalidArgument, "open the event file %q", path).Cause(err).
			Hint("name a file in a directory you may write")
	}
	log := event.NewLog(f, event.LogOptions{Origin: event.Origin{SandboxID: s.spec.ID, SandboxName: s.spec.Name}})
	s.onClose(func() {
		_ = log.Close()
		_ = f.Close()
	})
	s.events = log
	if s.opts.Events != nil {
		s.events = event.Tee(log, s.opts.Events)
	}
	return nil
}

func (s *Sandbox) shell() string {
	for _, p := range []string{"/bin/bash", "/usr/bin/bash"} {
		if s.exists(p) {
			return p
		}
	}
	return "/bin/sh"
}

// exists reports whether a program of the base is there, from outside.
func (s *Sandbox) exists(path string) bool {
	root := s.spec.Files.Root
	if root == "" || root == HostRoot {
		root = "/"
	}
	st, err := os.Stat(filepath.Join(root, path))
	return err == nil && !st.IsDir()
}

// String names the sandbox for messages.
func (s *Sandbox) String() string { return fmt.Sprintf("sandbox %q", s.spec.Name) }
