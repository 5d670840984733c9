package uplink

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/relay"
	"openshell.dev/openshell/internal/session"
)

// timedOutCode is the exit code of a command that its time limit ended.
const timedOutCode = 124

// hangup is how long a command whose client left may take to end.
const hangup = 5 * time.Second

// exec runs one command and delivers all of its output before its exit.
func (u *Uplink) exec(ctx context.Context, c *relay.Conn, s relay.Start) <-chan struct{} {
	if len(s.Argv) == 0 {
		fail(c, fault.New(fault.InvalidArgument, "command is required"))
		return nil
	}
	p, err := u.spawn(ctx, s)
	if err != nil {
		var f *fault.Error
		if !errors.As(err, &f) {
			err = fault.New(fault.FailedPrecondition, "%s", err.Error()).Cause(err)
		}
		fail(c, err)
		return nil
	}
	defer closeAll(p)
	if c.SendJSON(relay.TypeStarted, relay.Started{PID: p.PID(), TTY: s.TTY}) != nil {
		u.hangUp(p)
		return nil
	}
	over := make(chan struct{})
	left := make(chan struct{})
	go func() { // ends with the stream
		defer close(left)
		u.feed(c, p)
		select {
		case <-over:
		default:
			u.hangUp(p)
		}
	}()
	var timedOut <-chan time.Time
	if s.Timeout {
		timer := time.NewTimer(time.Duration(s.Millis) * time.Millisecond)
		defer timer.Stop()
		timedOut = timer.C
	}
	var out sync.WaitGroup
	var broken atomicError
	out.Go(func() { broken.set(pump(c, relay.TypeOutput, p.Stdout())) })
	if e := p.Stderr(); e != nil {
		out.Go(func() { broken.set(pump(c, relay.TypeErrput, e)) })
	}
	drained := make(chan struct{})
	go func() { // ends when the streams are closed
		out.Wait()
		close(drained)
	}()
	ended := make(chan session.Exit, 1)
	go func() { // ends with the process
		e, err := p.Wait(context.WithoutCancel(ctx))
		if err != nil {
			e = session.Exit{Code: 255, Reason: err.Error()}
		}
		ended <- e
	}()
	var exit session.Exit
	x := relay.Exit{}
	select {
	case exit = <-ended:
		x = relay.Exit{Code: exit.Code, Signal: exit.Signal, Reason: exit.Reason}
	case <-timedOut:
		stop(p, ended)
		x = relay.Exit{Code: timedOutCode, TimedOut: true, Reason: "the time limit of the command ended it"}
	}
	close(over)
	timer := time.NewTimer(drainWait)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
		fail(c, fault.New(fault.Unavailable, "a process in the background holds the output of the command open; it was not all delivered").
			Hint("redirect the output of background processes, for example: cmd >log 2>&1 &"))
		return left
	case <-left:
		return left
	}
	if broken.get() == nil {
		_ = c.SendJSON(relay.TypeExit, x)
	}
	return left
}

// spawn starts the command as the contract says.
func (u *Uplink) spawn(ctx context.Context, s relay.Start) (session.Process, error) {
	cmd := session.Command{Argv: s.Argv, Env: session.MergeEnv(u.o.Box.Environ(), s.Env...), Dir: s.Dir, TTY: s.TTY,
		Size: session.Size{Rows: s.Rows, Cols: s.Cols}}
	if cmd.Dir == "" {
		cmd.Dir = u.o.Box.Workdir()
	}
	if s.TTY {
		if cmd.Size.Rows == 0 || cmd.Size.Cols == 0 {
			cmd.Size = session.Size{Rows: 24, Cols: 80}
		}
		cmd.Env = session.WithTerm(cmd.Env, "")
	}
	switch s.Shell {
	case relay.ShellLogin, relay.ShellPlain:
		return u.shells.Words(ctx, cmd, s.Argv, s.Shell == relay.ShellLogin)
	case relay.ShellNone:
		return u.o.Box.Spawn(ctx, cmd)
	}
	return nil, fault.New(fault.InvalidArgument, "unknown shell %q", s.Shell)
}

// feed passes input on until the stream ends.
func (u *Uplink) feed(c *relay.Conn, p session.Process) {
	for {
		f, err := c.Receive()
		if err != nil {
			return
		}
		switch f.Type {
		case relay.TypeInput:
			if _, err := p.Stdin().Write(f.Payload); err != nil {
				continue // it closed its input: the rest goes nowhere, as in a pipe
			}
		case relay.TypeInputEnd:
			_ = p.Stdin().Close()
		case relay.TypeResize:
			rows, cols := f.Size()
			_ = p.Resize(session.Size{Rows: rows, Cols: cols})
		case relay.TypeSignal:
			_ = p.Signal(int(f.Payload[0]))
		default:
			return
		}
	}
}

// hangUp tells a process that nobody listens any more; one that does not end
// by that is killed.
func (u *Uplink) hangUp(p session.Process) {
	_ = p.Stdin().Close()
	_ = p.Signal(int(syscall.SIGHUP))
	time.AfterFunc(hangup, func() { _ = p.Signal(int(syscall.SIGKILL)) })
}

// stop ends a process whose time is over: asked first, then killed.
func stop(p session.Process, ended <-chan session.Exit) {
	_ = p.Signal(int(syscall.SIGTERM))
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-ended:
		return
	case <-timer.C:
	}
	_ = p.Signal(int(syscall.SIGKILL))
	<-ended
}

// pump sends what a process writes. A slow client holds it back.
func pump(c *relay.Conn, t relay.Type, r interface{ Read([]byte) (int, error) }) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := c.SendData(t, buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

func closeAll(p session.Process) {
	_ = p.Stdin().Close()
	_ = p.Stdout().Close()
	if e := p.Stderr(); e != nil {
		_ = e.Close()
	}
}

// atomicError keeps the first error.
type atomicError struct {
	mu  sync.Mutex
	err error
}

func (a *atomicError) set(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
	}
}

func (a *atomicError) get() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}
