// Package sessiontest is a box without walls for tests.
//
// It owns a session.Box that runs ordinary processes of the host, so that
// those who talk to a sandbox can be tested without one. Nothing of the
// product links it.
package sessiontest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/creack/pty"

	"openshell.dev/openshell/internal/session"
)

// Box runs processes of the host. Use New.
type Box struct {
	Env []string
	Dir string
	// Policies are the documents that were set.
	Policies  chan string
	PolicyErr error

	main *session.Main
	mu   sync.Mutex
	live map[*process]struct{}
	done chan struct{}
	once sync.Once
}

// New makes a box and starts its main process; no argv means none yet.
func New(dir string, tty bool, argv ...string) (*Box, error) {
	b := &Box{Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + dir, "TERM=dumb", "BOX=yes"}, Dir: dir,
		Policies: make(chan string, 16), main: session.NewMain(), live: map[*process]struct{}{}, done: make(chan struct{})}
	if len(argv) == 0 {
		return b, nil
	}
	p, err := b.Spawn(context.Background(), session.Command{Argv: argv, Env: b.Env, Dir: dir, TTY: tty})
	if err != nil {
		return nil, err
	}
	b.main.Bind(p)
	go func() {
		e, _ := p.Wait(context.Background())
		b.main.Ended(e)
	}()
	return b, nil
}

// Environ implements session.Box.
func (b *Box) Environ() []string { return append([]string(nil), b.Env...) }

// Workdir implements session.Box.
func (b *Box) Workdir() string { return b.Dir }

// Main implements session.Box.
func (b *Box) Main() *session.Main { return b.main }

// Done is closed by Close.
func (b *Box) Done() <-chan struct{} { return b.done }

// Dial implements session.Box.
func (b *Box) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

// SetPolicy remembers the document.
func (b *Box) SetPolicy(_ context.Context, doc []byte, _ uint32) error {
	if b.PolicyErr != nil {
		return b.PolicyErr
	}
	b.Policies <- string(doc)
	return nil
}

// Close kills what still runs.
func (b *Box) Close() {
	b.once.Do(func() { close(b.done) })
	b.mu.Lock()
	defer b.mu.Unlock()
	for p := range b.live {
		_ = p.Signal(int(syscall.SIGKILL))
	}
}

// notFound is the error of a program that is not there.
type notFound struct{ name string }

func (e notFound) Error() string {
	return fmt.Sprintf("command %q was not found in the sandbox", e.name)
}
func (notFound) ExitCode() int { return 127 }

// Spawn implements session.Box.
func (b *Box) Spawn(_ context.Context, c session.Command) (session.Process, error) {
	path, err := exec.LookPath(c.Argv[0])
	if err != nil {
		return nil, notFound{c.Argv[0]}
	}
	cmd := exec.Command(path, c.Argv[1:]...)
	cmd.Env, cmd.Dir = c.Env, c.Dir
	if cmd.Dir == "" {
		cmd.Dir = b.Dir
	}
	p := &process{cmd: cmd}
	if c.TTY {
		size := &pty.Winsize{Rows: c.Size.Rows, Cols: c.Size.Cols}
		if size.Rows == 0 {
			size = &pty.Winsize{Rows: 24, Cols: 80}
		}
		f, err := pty.StartWithSize(cmd, size)
		if err != nil {
			return nil, err
		}
		p.tty, p.in, p.out = f, noClose{f}, master{f}
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := p.pipes(); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	b.live[p] = struct{}{}
	b.mu.Unlock()
	p.end = func() {
		b.mu.Lock()
		delete(b.live, p)
		b.mu.Unlock()
	}
	return p, nil
}

type process struct {
	cmd *exec.Cmd
	tty *os.File
	in  io.WriteCloser
	out io.ReadCloser
	err io.ReadCloser
	end func()
}

func (p *process) pipes() error {
	var theirs [3]*os.File
	var ours [3]*os.File
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		if i == 0 {
			theirs[i], ours[i] = r, w
		} else {
			theirs[i], ours[i] = w, r
		}
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs[0], theirs[1], theirs[2]
	err := p.cmd.Start()
	for _, f := range theirs {
		f.Close()
	}
	p.in, p.out, p.err = ours[0], ours[1], ours[2]
	return err
}

func (p *process) PID() int              { return p.cmd.Process.Pid }
func (p *process) Stdin() io.WriteCloser { return p.in }
func (p *process) Stdout() io.ReadCloser { return p.out }
func (p *process) Stderr() io.ReadCloser {
	if p.err == nil {
		return nil
	}
	return p.err
}

func (p *process) Resize(s session.Size) error {
	if p.tty == nil {
		return nil
	}
	return pty.Setsize(p.tty, &pty.Winsize{Rows: s.Rows, Cols: s.Cols})
}

func (p *process) Signal(sig int) error {
	return syscall.Kill(-p.cmd.Process.Pid, syscall.Signal(sig))
}

func (p *process) Wait(context.Context) (session.Exit, error) {
	err := p.cmd.Wait()
	p.end()
	var x *exec.ExitError
	if err != nil && !errors.As(err, &x) {
		return session.Exit{}, err
	}
	ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return session.Exit{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}, nil
	}
	return session.Exit{Code: ws.ExitStatus()}, nil
}

type noClose struct{ io.Writer }

func (noClose) Close() error { return nil }

type master struct{ f *os.File }

func (m master) Read(b []byte) (int, error) {
	n, err := m.f.Read(b)
	if errors.Is(err, syscall.EIO) {
		err = io.EOF
	}
	return n, err
}

func (m master) Close() error { return m.f.Close() }
