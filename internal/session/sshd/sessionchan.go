package sshd

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/session"
)

const (
	maxVars   = 128
	maxVar    = 32 << 10
	drainWait = 30 * time.Second // for output after the end
	hangup    = 5 * time.Second  // from SIGHUP to SIGKILL when the client left
)

// sess is one session channel: requests shape it, one of them starts it.
type sess struct {
	s  *Server
	ch ssh.Channel

	mu      sync.Mutex
	env     []string     // guarded by mu
	tty     bool         // guarded by mu
	term    string       // guarded by mu
	size    session.Size // guarded by mu
	started bool         // guarded by mu
	resize  func(session.Size) error
	signal  func(int) error
}

func newSession(s *Server, ch ssh.Channel) *sess { return &sess{s: s, ch: ch} }

func (x *sess) run(ctx context.Context, reqs <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	for r := range reqs {
		start, ok := x.request(r)
		if start != nil {
			x.mu.Lock()
			ok = !x.started
			x.started = true
			x.mu.Unlock()
			if ok {
				work.Go(func() {
					start(ctx)
					x.ch.Close()
				})
			}
		}
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
	}
}

// request takes in one request. A starting one returns what to run.
func (x *sess) request(r *ssh.Request) (func(context.Context), bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch r.Type {
	case "env":
		var m struct{ Name, Value string }
		if ssh.Unmarshal(r.Payload, &m) != nil || x.started || len(x.env) >= maxVars || len(m.Name)+len(m.Value) > maxVar ||
			m.Name == "" || strings.ContainsAny(m.Name, "=\x00") || strings.ContainsRune(m.Value, 0) || strings.HasPrefix(m.Name, brand.EnvPrefix) {
			return nil, false
		}
		x.env = append(x.env, m.Name+"="+m.Value)
		return nil, true
	case "pty-req":
		var m struct {
			Term                      string
			Cols, Rows, Width, Height uint32
			Modes                     string
		}
		if ssh.Unmarshal(r.Payload, &m) != nil || x.started || len(m.Term) > 64 {
			return nil, false
		}
		x.tty, x.term, x.size = true, m.Term, size(m.Rows, m.Cols)
		return nil, true
	case "window-change":
		var m struct{ Cols, Rows, Width, Height uint32 }
		if ssh.Unmarshal(r.Payload, &m) != nil {
			return nil, false
		}
		x.size = size(m.Rows, m.Cols)
		if x.resize != nil {
			_ = x.resize(x.size)
		}
		return nil, true
	case "signal":
		var m struct{ Name string }
		sig, ok := syscall.Signal(0), false
		if ssh.Unmarshal(r.Payload, &m) == nil {
			sig, ok = signals[m.Name]
		}
		if !ok || x.signal == nil {
			return nil, false
		}
		return nil, x.signal(int(sig)) == nil
	case "shell":
		return func(ctx context.Context) { x.process(ctx, "", true) }, true
	case "exec":
		var m struct{ Command string }
		if ssh.Unmarshal(r.Payload, &m) != nil || len(m.Command) > 1<<20 || strings.ContainsRune(m.Command, 0) {
			return nil, false
		}
		return func(ctx context.Context) { x.process(ctx, m.Command, false) }, true
	case "subsystem":
		var m struct{ Name string }
		if ssh.Unmarshal(r.Payload, &m) != nil || m.Name != brand.SSHMain {
			return nil, false
		}
		return x.attach, true
	}
	return nil, false
}

func size(rows, cols uint32) session.Size {
	return session.Size{Rows: uint16(min(rows, 65535)), Cols: uint16(min(cols, 65535))}
}

var signals = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "FPE": syscall.SIGFPE, "HUP": syscall.SIGHUP, "ILL": syscall.SIGILL,
	"INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE, "QUIT": syscall.SIGQUIT, "SEGV": syscall.SIGSEGV,
	"TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
}

// process runs a shell or a command line on the channel.
func (x *sess) process(ctx context.Context, line string, shell bool) {
	x.mu.Lock()
	cmd := session.Command{Env: session.MergeEnv(x.s.box.Environ(), x.env...), Dir: x.s.box.Workdir(), TTY: x.tty, Size: x.size}
	if x.tty {
		cmd.Env = session.WithTerm(cmd.Env, x.term)
	}
	x.mu.Unlock()
	var p session.Process
	var err error
	if shell {
		p, err = x.s.shells.Interactive(ctx, cmd)
	} else {
		p, err = x.s.shells.Run(ctx, cmd, line, true)
	}
	if err != nil {
		_, _ = io.WriteString(x.ch.Stderr(), brand.Name+": "+err.Error()+"\r\n")
		x.exit(session.Exit{Code: 125})
		return
	}
	x.mu.Lock()
	x.resize, x.signal = p.Resize, p.Signal
	x.mu.Unlock()
	_ = p.Resize(cmd.Size)
	var work sync.WaitGroup
	work.Go(func() {
		_, err := io.Copy(p.Stdin(), x.ch)
		_ = p.Stdin().Close()
		if err != nil {
			_ = p.Signal(int(syscall.SIGHUP))
		}
	})
	drained := make(chan struct{})
	go func() { // ends when the streams are closed below
		defer close(drained)
		var out sync.WaitGroup
		out.Go(func() { _, _ = io.Copy(x.ch, p.Stdout()) })
		if e := p.Stderr(); e != nil {
			out.Go(func() { _, _ = io.Copy(x.ch.Stderr(), e) })
		}
		out.Wait()
	}()
	gone := context.AfterFunc(ctx, func() { // the client left: a hang-up, as on a terminal
		_ = p.Signal(int(syscall.SIGHUP))
		time.AfterFunc(hangup, func() { _ = p.Signal(int(syscall.SIGKILL)) })
	})
	exit, err := p.Wait(context.WithoutCancel(ctx))
	gone()
	timer := time.NewTimer(drainWait)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C: // a child in the background holds the streams
	case <-ctx.Done():
	}
	if err == nil {
		_ = x.ch.CloseWrite()
		x.exit(exit)
	}
	x.ch.Close()
	closeAll(p)
	<-drained
	work.Wait()
}

func closeAll(p session.Process) {
	_ = p.Stdin().Close()
	_ = p.Stdout().Close()
	if e := p.Stderr(); e != nil {
		_ = e.Close()
	}
}

// attach joins the main process.
// halfClose is how long ended input may yet turn out to be a closed channel.
const halfClose = 100 * time.Millisecond

func (x *sess) attach(ctx context.Context) {
	a := x.s.box.Main().Attach(true)
	defer func() {
		a.Close()
		if x.s.Attached != nil {
			x.s.Attached()
		}
	}()
	if !a.Writer() {
		_, _ = io.WriteString(x.ch.Stderr(), "read-only: another attachment owns the input\r\n")
	}
	x.mu.Lock()
	x.resize, x.signal = a.Resize, a.Signal
	_ = a.Resize(x.size)
	x.mu.Unlock()
	leave := make(chan struct{})
	go func() { // ends when the channel is closed, which our caller does
		defer close(leave)
		buf := make([]byte, 16<<10)
		for {
			n, err := x.ch.Read(buf)
			if n > 0 && !x.input(a, buf[:n]) {
				return
			}
			if errors.Is(err, io.EOF) {
				select { // a closed channel reads as ended input, too, a moment before it is known
				case <-ctx.Done():
					return
				case <-time.After(halfClose):
				}
				_ = a.CloseInput()
				<-ctx.Done()
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		select {
		case c, ok := <-a.Output():
			if !ok {
				exit, err := a.Wait(ctx)
				if err == nil {
					if x.s.Ended != nil {
						x.s.Ended()
					}
					x.exit(exit)
				}
				return
			}
			w := io.Writer(x.ch)
			if c.Stderr {
				w = x.ch.Stderr()
			}
			if _, err := w.Write(c.Data); err != nil {
				return
			}
		case <-leave:
			return
		case <-ctx.Done():
			return
		}
	}
}

// input passes typed bytes on. The bytes typed before the input was ours are
// lost, as everywhere in this line.
func (x *sess) input(a *session.Attachment, p []byte) bool {
	if a.Writer() {
		_, err := a.Write(p)
		return err == nil
	}
	if a.Claim() {
		_, _ = io.WriteString(x.ch.Stderr(), "input enabled\r\n")
	}
	return true
}

func (x *sess) exit(e session.Exit) {
	if e.Signal != 0 {
		for name, sig := range signals {
			if int(sig) == e.Signal {
				_, _ = x.ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
					Name       string
					Core       bool
					Text, Lang string
				}{Name: name, Text: e.Reason}))
				return
			}
		}
	}
	_, _ = x.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(e.Code)}))
}
