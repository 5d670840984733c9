package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/launch/wire"
	"openshell.dev/openshell/internal/session"
)

// process is a process inside, seen from outside. Its bytes travel over
// descriptors of its own and never through the launcher.
type process struct {
	sb     *Sandbox
	id     uint32
	pid    int
	stdin  io.WriteCloser
	stdout io.ReadCloser
	stderr io.ReadCloser
	tty    *os.File
	done   chan struct{}
	once   sync.Once
	exit   session.Exit // valid after done
}

func (p *process) PID() int              { return p.pid }
func (p *process) Stdin() io.WriteCloser { return p.stdin }
func (p *process) Stdout() io.ReadCloser { return p.stdout }
func (p *process) Stderr() io.ReadCloser { return p.stderr }
func (p *process) Signal(sig int) error {
	return p.sb.send(p.id, &wire.Signal{Number: sig, Group: true})
}
func (p *process) ended(e session.Exit)  { p.once.Do(func() { p.exit = e; close(p.done) }) }
func (p *process) Done() <-chan struct{} { return p.done }

// Resize implements session.Process; without a terminal it does nothing.
func (p *process) Resize(s session.Size) error {
	if p.tty == nil || s.Rows == 0 || s.Cols == 0 {
		return nil
	}
	raw, err := p.tty.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	}); err != nil {
		return err
	}
	return failed
}

// Wait implements session.Process.
func (p *process) Wait(ctx context.Context) (session.Exit, error) {
	select {
	case <-p.done:
		return p.exit, nil
	case <-ctx.Done():
		return session.Exit{}, ctx.Err()
	}
}

// StartError says why a command was not started: its exit code is that of a
// shell, 127 for not found and 126 for not executable.
type StartError struct {
	Command string
	Step    string
	Errno   syscall.Errno
}

func (e *StartError) Error() string {
	switch {
	case e.Step == "command" && e.Errno == syscall.ENOENT:
		return fmt.Sprintf("command %q was not found in the sandbox", e.Command)
	case e.Step == "command":
		return fmt.Sprintf("command %q cannot be executed in the sandbox: %v", e.Command, e.Errno)
	case e.Step == "working directory":
		return fmt.Sprintf("the working directory cannot be entered in the sandbox: %v", e.Errno)
	}
	return fmt.Sprintf("start %q: %s: %v", e.Command, e.Step, e.Errno)
}

// ExitCode returns what a shell would.
func (e *StartError) ExitCode() int {
	switch {
	case e.Step != "command":
		return 125
	case e.Errno == syscall.ENOENT:
		return 127
	}
	return 126
}

func (e *StartError) Unwrap() error {
	kind := fault.FailedPrecondition
	if e.Errno == syscall.ENOENT {
		kind = fault.NotFound
	}
	return fault.New(kind, "%s", e.Error())
}

// spawn starts cmd. With files the process gets exactly those as 0, 1 and 2
// and the streams of the result are nil; else pipes or a terminal are made.
func (s *Sandbox) spawn(ctx context.Context, cmd session.Command, files []*os.File) (*process, error) {
	if len(cmd.Argv) == 0 {
		return nil, fault.New(fault.InvalidArgument, "a command is needed")
	}
	m := &wire.Spawn{Argv: cmd.Argv, Env: cmd.Env, Dir: cmd.Dir, TTY: cmd.TTY, Rows: cmd.Size.Rows, Cols: cmd.Size.Cols}
	p := &process{sb: s, done: make(chan struct{})}
	var fds []int
	switch {
	case cmd.TTY:
	case files != nil:
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
	default:
		theirs, err := p.pipes()
		if err != nil {
			return nil, err
		}
		defer closeFDs(theirs)
		fds = theirs
	}
	answer, err := s.ask(ctx, p, m, fds...)
	if err != nil {
		p.closeStreams()
		return nil, err
	}
	var r wire.Spawned
	if err := answer.Unmarshal(&r); err != nil {
		closeFDs(answer.FDs)
		p.closeStreams()
		return nil, err
	}
	if r.Errno != 0 {
		p.closeStreams()
		return nil, &StartError{Command: cmd.Argv[0], Step: r.Step, Errno: syscall.Errno(r.Errno)}
	}
	p.pid = r.PID
	if cmd.TTY {
		if len(answer.FDs) != 1 {
			closeFDs(answer.FDs)
			return nil, errors.New("the launcher sent no terminal")
		}
		if err := p.terminal(answer.FDs[0]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// pipes makes the three streams and returns the process's ends.
func (p *process) pipes() (theirs []int, err error) {
	var ours [3]*os.File
	for i := range 3 {
		var fd [2]int
		if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
			closeFDs(theirs)
			return nil, fault.New(fault.Exhausted, "make a pipe for the process").Cause(err)
		}
		mine, other := fd[0], fd[1]
		if i == 0 {
			mine, other = fd[1], fd[0]
		}
		_ = unix.SetNonblock(mine, true)
		ours[i] = os.NewFile(uintptr(mine), "pipe")
		theirs = append(theirs, other)
	}
	p.stdin, p.stdout, p.stderr = ours[0], ours[1], ours[2]
	return theirs, nil
}

func (p *process) terminal(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("prepare the terminal: %w", err)
	}
	p.tty = os.NewFile(uintptr(fd), "terminal")
	p.stdin, p.stdout = keepOpen{p.tty}, master{p.tty}
	return nil
}

func (p *process) closeStreams() {
	for _, c := range []io.Closer{p.stdin, p.stdout, p.stderr} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// keepOpen is the input of a terminal: closing it is not an end of file.
type keepOpen struct{ f *os.File }

func (k keepOpen) Write(b []byte) (int, error) { return k.f.Write(b) }
func (keepOpen) Close() error                  { return nil }

// master reads a terminal: when the last process has closed the other end the
// kernel says EIO, which is the end of the output.
type master struct{ f *os.File }

func (m master) Read(b []byte) (int, error) {
	n, err := m.f.Read(b)
	if errors.Is(err, syscall.EIO) {
		err = io.EOF
	}
	return n, err
}

func (m master) Close() error { return m.f.Close() }

func closeFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
