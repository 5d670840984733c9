package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/egress"
	"openshell.dev/openshell/internal/event"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/identity"
	"openshell.dev/openshell/internal/launch/wire"
	"openshell.dev/openshell/internal/netns"
	"openshell.dev/openshell/internal/session"
	"openshell.dev/openshell/internal/view"
)

// ErrGone is the answer of a sandbox that has ended.
var ErrGone = errors.New("the sandbox has ended")

// Sandbox is a running sandbox. It implements session.Box.
type Sandbox struct {
	spec     Spec
	opts     Options
	log      *slog.Logger
	proc     *process
	timedOut atomic.Bool
	events   event.Sink

	rules   *rules
	view    *view.View
	limits  *limits
	launch  *launcher
	proxy   *egress.Proxy
	pins    *identity.Pins
	env     []string
	main    *session.Main
	record  *Record
	clock   *stopwatch
	ready   chan struct{} // closed when the launcher said Ready
	sockets chan wire.Frame
	done    chan struct{} // closed when everything has ended
	finish  sync.WaitGroup
	closers []func() // undone in reverse

	mu      sync.Mutex
	next    uint32                     // last frame id used
	asked   map[uint32]chan wire.Frame // questions without an answer yet
	running map[uint32]*process        // processes whose end has not been told
	dead    error                      // why the launcher is gone; nil while it lives
	failed  *wire.Failed               // the step that failed, if one did
}

// send writes a frame that has no answer.
func (s *Sandbox) send(id uint32, m wire.Message, fds ...int) error {
	if err := s.gone(); err != nil {
		return err
	}
	return s.launch.conn.Send(id, m, fds...)
}

func (s *Sandbox) gone() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// ask sends a question and waits for the frame with the same id. p, if not
// nil, is entered under that id before anything can be said about it.
func (s *Sandbox) ask(ctx context.Context, p *process, m wire.Message, fds ...int) (wire.Frame, error) {
	ch := make(chan wire.Frame, 1)
	s.mu.Lock()
	if s.dead != nil {
		err := s.dead
		s.mu.Unlock()
		return wire.Frame{}, err
	}
	s.next++
	id := s.next
	s.asked[id] = ch
	if p != nil {
		p.id = id
		s.running[id] = p
	}
	s.mu.Unlock()
	drop := func() {
		s.mu.Lock()
		delete(s.asked, id)
		delete(s.running, id)
		s.mu.Unlock()
	}
	if err := s.launch.conn.Send(id, m, fds...); err != nil {
		drop()
		return wire.Frame{}, err
	}
	select {
	case f, ok := <-ch:
		if !ok {
			return wire.Frame{}, s.gone()
		}
		return f, nil
	case <-ctx.Done():
		drop()
		return wire.Frame{}, ctx.Err()
	}
}

// receive hands out what the launcher says until it is gone.
func (s *Sandbox) receive() {
	var err error
	for {
		var f wire.Frame
		if f, err = s.launch.conn.Receive(); err != nil {
			break
		}
		if err = s.dispatch(f); err != nil {
			break
		}
	}
	s.launch.kill()
	s.over(err)
}

func (s *Sandbox) dispatch(f wire.Frame) error {
	switch f.Type {
	case wire.TypeSockets:
		s.sockets <- f
	case wire.TypeReady:
		var m wire.Ready
		if err := f.Unmarshal(&m); err != nil {
			return err
		}
		s.record.fill(&m)
		close(s.ready)
	case wire.TypeFailed:
		var m wire.Failed
		if err := f.Unmarshal(&m); err != nil {
			return err
		}
		s.mu.Lock()
		s.failed = &m
		s.mu.Unlock()
	case wire.TypeExited:
		var m wire.Exited
		if err := f.Unmarshal(&m); err != nil {
			return err
		}
		s.mu.Lock()
		p := s.running[f.ID]
		delete(s.running, f.ID)
		s.mu.Unlock()
		if p != nil {
			p.ended(session.Exit{Code: m.Code, Signal: m.Signal, Reason: s.limits.reason(m.Code)})
		}
	default:
		s.mu.Lock()
		ch := s.asked[f.ID]
		delete(s.asked, f.ID)
		s.mu.Unlock()
		if ch == nil {
			closeFDs(f.FDs) // asked by somebody who no longer waits
			return nil
		}
		ch <- f
	}
	return nil
}

// over settles everything that still waits for the launcher.
func (s *Sandbox) over(cause error) {
	reason := s.endReason(cause)
	s.mu.Lock()
	s.dead = ErrGone
	if s.failed != nil {
		s.dead = startFailure(s.failed)
	}
	asked, running := s.asked, s.running
	s.asked, s.running = nil, nil
	s.mu.Unlock()
	for _, ch := range asked {
		close(ch)
	}
	for _, p := range running {
		p.ended(session.Exit{Code: 128 + int(syscall.SIGKILL), Signal: int(syscall.SIGKILL), Reason: reason})
	}
	close(s.sockets)
	close(s.done)
}

// endReason says what took the launcher away.
func (s *Sandbox) endReason(cause error) string {
	if why := s.limits.reason(int(s.launch.ws.Signal())); why != "" {
		return why
	}
	if cause != nil && !errors.Is(cause, io.EOF) {
		return "the launcher broke its protocol: " + cause.Error()
	}
	if s.launch.ws.Signaled() {
		return fmt.Sprintf("the launcher was ended by signal %d", s.launch.ws.Signal())
	}
	return "the sandbox was ended"
}

// startFailure is the public form of a failed step.
func startFailure(m *wire.Failed) error {
	f := fault.New(fault.FailedPrecondition, "the sandbox could not be made: step %q: %s", m.Step, m.Text)
	switch {
	case syscall.Errno(m.Errno) == syscall.ENOSPC:
		return f.Hint("free some space, or raise the limit of namespaces: sudo sysctl user.max_user_namespaces=15000")
	case syscall.Errno(m.Errno) == syscall.EPERM:
		return f.Hint("openshell doctor")
	}
	return f
}

// Spawn implements session.Box.
func (s *Sandbox) Spawn(ctx context.Context, cmd session.Command) (session.Process, error) {
	p, err := s.spawn(ctx, cmd, nil)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Dial implements session.Box.
func (s *Sandbox) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	fd, err := s.opened(ctx, &wire.Dial{Port: port})
	if err != nil {
		return nil, fmt.Errorf("connect to port %d in the sandbox: %w", port, err)
	}
	f := os.NewFile(uintptr(fd), "sandbox")
	defer f.Close()
	return net.FileConn(f)
}

// opened asks for a descriptor.
func (s *Sandbox) opened(ctx context.Context, m wire.Message) (int, error) {
	f, err := s.ask(ctx, nil, m)
	if err != nil {
		return -1, err
	}
	var a wire.Opened
	if err := f.Unmarshal(&a); err != nil {
		closeFDs(f.FDs)
		return -1, err
	}
	if a.Errno != 0 {
		return -1, syscall.Errno(a.Errno)
	}
	if len(f.FDs) != 1 {
		closeFDs(f.FDs)
		return -1, wire.ErrMalformed
	}
	return f.FDs[0], nil
}

// Main implements session.Box.
func (s *Sandbox) Main() *session.Main { return s.main }

// Environ implements session.Box.
func (s *Sandbox) Environ() []string { return append([]string(nil), s.env...) }

// Workdir implements session.Box.
func (s *Sandbox) Workdir() string {
	if d := s.spec.Main.Dir; d != "" {
		return d
	}
	return s.view.Dir
}

// Done is closed when the sandbox and all that belongs to it has ended.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// Freeze stops every process inside, or lets them go on.
func (s *Sandbox) Freeze(ctx context.Context, thaw bool) error {
	f, err := s.ask(ctx, nil, &wire.Freeze{Thaw: thaw})
	if err != nil {
		return err
	}
	var m wire.Done
	if err := f.Unmarshal(&m); err != nil {
		return err
	}
	if !m.OK {
		return fault.New(fault.Internal, "not every process inside could be stopped: %s", m.Detail)
	}
	return nil
}

// Stop asks the main process to end, gives it grace, and ends everything.
// It returns when nothing of the sandbox is left.
func (s *Sandbox) Stop(ctx context.Context, grace time.Duration) {
	if p := s.mainProcess(); p != nil && grace > 0 && s.gone() == nil {
		_ = p.Signal(int(unix.SIGTERM))
		select {
		case <-p.done:
		case <-s.done:
		case <-ctx.Done():
		case <-time.After(grace):
		}
	}
	s.Close()
}

// Close ends the sandbox at once and removes what belongs to it.
func (s *Sandbox) Close() {
	if s.launch != nil {
		s.launch.kill()
		<-s.done
		s.launch.conn.Release()
	}
	s.mu.Lock()
	closers := s.closers
	s.closers = nil
	s.mu.Unlock()
	for i := len(closers) - 1; i >= 0; i-- {
		closers[i]()
	}
	s.finish.Wait()
}

func (s *Sandbox) onClose(f func()) {
	s.mu.Lock()
	s.closers = append(s.closers, f)
	s.mu.Unlock()
}

func (s *Sandbox) mainProcess() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.running {
		if p.id == mainID {
			return p
		}
	}
	return nil
}

// mainID is the frame id of the main process: the first question ever asked.
const mainID = 1

// listeners are the sandbox's sockets as the launcher handed them over; -1
// where the machine has none.
func unpackSockets(f wire.Frame) (netns.Sockets, *wire.Sockets, error) {
	var m wire.Sockets
	var out netns.Sockets
	for i := range out {
		out[i] = -1
	}
	if err := f.Unmarshal(&m); err != nil {
		closeFDs(f.FDs)
		return out, nil, err
	}
	fds := f.FDs
	for i := range out {
		if m.Present&(1<<i) == 0 {
			continue
		}
		if len(fds) == 0 {
			break
		}
		out[i], fds = fds[0], fds[1:]
	}
	if len(fds) != 0 || m.Present>>netns.Count != 0 {
		out.Close()
		closeFDs(fds)
		return out, nil, wire.ErrMalformed
	}
	return out, &m, nil
}
