package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/client"
	"openshell.dev/openshell/internal/fault"
)

func (a *app) forwardCommand() *cobra.Command {
	c := noun("forward", "Forward local ports into sandboxes", "fwd")
	c.AddCommand(a.forwardStartCommand(), a.forwardStopCommand(), a.forwardListCommand())
	return c
}

// readyFD is the descriptor on which a background forward says that it
// listens; it is announced by a variable.
const readyFD = 3

var (
	readyVar = brand.Env("FORWARD_READY")
	ownerVar = brand.Env("FORWARD_SANDBOX_ID") // by which a forward is recognised
)

func (a *app) forwardStartCommand() *cobra.Command {
	var background bool
	c := &cobra.Command{Use: "start [BIND:]PORT [NAME]", Short: "Forward a local port to the same port of a sandbox", Args: between(1, 2, "a port"), ValidArgsFunction: a.completeForward}
	c.Flags().BoolVarP(&background, "background", "d", false, "go on in the background")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		bind, port, err := parseForward("forward start", args[0])
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		cl, name, err := a.pick(ctx, first(args[1:]))
		if err != nil {
			return err
		}
		defer cl.Close()
		if err := a.alreadyForwarded(port); err != nil {
			return err
		}
		s, err := cl.Sandbox(ctx, name)
		if err != nil {
			return err
		}
		if !phaseIs(s, openshellv1.SandboxPhase_SANDBOX_PHASE_READY) && !ended(s) {
			return &failed{fault.New(fault.FailedPrecondition, "sandbox '%s' is not ready (phase: %s)", name, phaseWord(s)).Hint("%s sandbox get %s", brand.CLI, name)}
		}
		if background {
			return a.forwardBackground(ctx, cl, s, bind, port)
		}
		return a.forwardForeground(ctx, cl, s, bind, port)
	}
	return c
}

// parseForward reads [BIND:]PORT; without BIND the port is on 127.0.0.1.
func parseForward(what, s string) (bind string, port uint16, err error) {
	bind, p := "127.0.0.1", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		bind, p = strings.Trim(s[:i], "[]"), s[i+1:]
		if bind == "localhost" {
			bind = "127.0.0.1"
		}
		if _, err := netip.ParseAddr(bind); err != nil {
			return "", 0, misuse("%s %q: %q is not an address", what, s, bind).Hint("%s 127.0.0.1:%s", what, p)
		}
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, misuse("%s %q: %q is not a port", what, s, p).Hint("%s 8080", what)
	}
	return bind, uint16(n), nil
}

func portTaken(bind string, port uint16, err error) error {
	f := fault.New(fault.FailedPrecondition, "cannot listen on %s", net.JoinHostPort(bind, strconv.Itoa(int(port)))).Cause(err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fault.New(fault.FailedPrecondition, "port %d is already in use by another process", port).
			Hint("ss -ltnp 'sport = :%d' shows by whom; or choose another port", port)
	case errors.Is(err, syscall.EACCES):
		return f.Hint("ports below 1024 need a privilege: choose a higher one")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return f.Hint("this machine has no address %s", bind)
	}
	return f
}

func (a *app) forwardForeground(ctx context.Context, cl *client.Client, s *openshellv1.Sandbox, bind string, port uint16) error {
	name := s.GetMetadata().GetName()
	l, err := net.Listen("tcp", net.JoinHostPort(bind, strconv.Itoa(int(port))))
	if err != nil {
		return portTaken(bind, port, err)
	}
	defer l.Close()
	if os.Getenv(readyVar) != "" {
		ready := os.NewFile(readyFD, "ready")
		_, _ = io.WriteString(ready, "listening\n")
		_ = ready.Close()
	} else {
		a.done(a.stderr, "Forwarding port %d to sandbox %s", port, name)
		fmt.Fprintf(a.stderr, "  Access at: http://%s/\n  Press Ctrl+C to stop\n", net.JoinHostPort(reachable(bind), strconv.Itoa(int(port))))
	}
	f := &forwarder{client: cl, sandbox: name, id: s.GetMetadata().GetId(), port: port, note: a.note}
	return f.serve(ctx, l)
}

// reachable is an address under which a listener on bind can be reached.
func reachable(bind string) string {
	if ip := net.ParseIP(bind); ip != nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return bind
}

// forwarder carries connections of one port.
type forwarder struct {
	client  *client.Client
	sandbox string
	id      string
	port    uint16
	note    func(string, ...any)

	mu    sync.Mutex
	token bool // the gateway wants a session for each connection
	said  string
}

const (
	forwardMost  = 512 // connections at once
	forwardCheck = 5 * time.Second
)

// serve accepts until ctx ends or the sandbox is gone, and waits for the
// connections it carries.
func (f *forwarder) serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { f.guard(ctx, cancel) })
	slots := make(chan struct{}, forwardMost)
	for {
		c, err := l.Accept()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				if errors.Is(cause, context.Canceled) {
					return nil // stopped by its person
				}
				return cause
			}
			return fault.New(fault.Internal, "accept connections").Cause(err)
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			f.carry(ctx, c)
		})
	}
}

// guard ends the forward when its sandbox is gone or another one. A gateway
// that is away for a while is no reason.
func (f *forwarder) guard(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(forwardCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s, err := f.client.Sandbox(ctx, f.sandbox)
		if err != nil && fault.KindOf(err) == fault.NotFound || err == nil && s.GetMetadata().GetId() != f.id {
			cancel(fault.New(fault.NotFound, "sandbox %q is gone", f.sandbox))
			return
		}
	}
}

func (f *forwarder) carry(ctx context.Context, c net.Conn) {
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := f.dial(ctx)
	if err != nil {
		f.refuse(c, err)
		return
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	var out sync.WaitGroup
	out.Go(func() {
		_, _ = io.Copy(r, c)
		_ = r.CloseWrite()
	})
	_, err = io.Copy(c, r)
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		_ = tcp.CloseWrite()
	}
	if err != nil {
		f.refuse(c, err)
		_ = r.Close()
	}
	out.Wait()
}

// refuse ends a connection as a port where nobody listens would.
func (f *forwarder) refuse(c net.Conn, err error) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	if text := err.Error(); text != f.said && fault.KindOf(err) != fault.Cancelled {
		f.said = text // once for each kind of trouble
		f.note("connection to port %d of sandbox %s: %s", f.port, f.sandbox, text)
	}
}

// dial opens a connection, with a session of its own where the gateway asks
// for one.
func (f *forwarder) dial(ctx context.Context) (*client.Relay, error) {
	f.mu.Lock()
	with := f.token
	f.mu.Unlock()
	token := ""
	if with {
		s, err := f.client.CreateSshSession(ctx, &openshellv1.CreateSshSessionRequest{WorkspaceScope: f.client.Scope(), Sandbox: f.sandbox})
		if err != nil {
			return nil, err
		}
		token = s.GetToken()
	}
	r, err := f.client.DialPort(ctx, f.sandbox, f.port, token)
	if err != nil && fault.KindOf(err) == fault.Unavailable && f.client.Wake(ctx) == nil {
		r, err = f.client.DialPort(ctx, f.sandbox, f.port, token)
	}
	if err != nil && !with && fault.KindOf(err) == fault.Unauthenticated {
		f.mu.Lock()
		f.token = true
		f.mu.Unlock()
		return f.dial(ctx)
	}
	return r, err
}

// forwardBackground starts this program again as the forward and waits until
// it listens.
func (a *app) forwardBackground(ctx context.Context, cl *client.Client, s *openshellv1.Sandbox, bind string, port uint16) error {
	name, id := s.GetMetadata().GetName(), s.GetMetadata().GetId()
	if err := portFree(bind, port); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fault.New(fault.Internal, "find this program").Cause(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fault.New(fault.Exhausted, "start the forward").Cause(err)
	}
	defer r.Close()
	complaints, err := os.CreateTemp("", brand.Name+"-forward-")
	if err != nil {
		_ = w.Close()
		return fault.New(fault.Exhausted, "start the forward").Cause(err)
	}
	_ = os.Remove(complaints.Name())
	defer complaints.Close()
	cmd := exec.Command(self, "forward", "start", net.JoinHostPort(bind, strconv.Itoa(int(port))), name, "--workspace", cl.Workspace, "--color", "never")
	cmd.Args[0] = brand.CLI
	if a.insecure {
		cmd.Args = append(cmd.Args, "--gateway-insecure")
	}
	if a.endpoint != "" {
		cmd.Args = append(cmd.Args, "--gateway-endpoint", a.endpoint)
	}
	if cl.Target.Registered {
		cmd.Args = append(cmd.Args, "--gateway", cl.Target.Name)
	}
	cmd.Env = append(os.Environ(), readyVar+"=1", ownerVar+"="+id)
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = complaints
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return fault.New(fault.Internal, "start the forward").Cause(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = r.Close() })
	defer stop()
	_ = r.SetReadDeadline(time.Now().Add(10 * time.Second))
	word := make([]byte, 16)
	if n, _ := io.ReadAtLeast(r, word, 1); n == 0 {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		text := make([]byte, 4096)
		m, _ := complaints.ReadAt(text, 0)
		return fault.New(fault.Unavailable, "port %d could not be forwarded to sandbox %s", port, name).
			Cause(errors.New(firstComplaint(string(text[:m])))).Hint("%s forward start %d %s", brand.CLI, port, name)
	}
	reg, err := a.registry()
	if err == nil {
		err = writeForward(reg.Root, forwardRecord{Workspace: cl.Workspace, Sandbox: name, ID: id, Bind: bind, Port: port, PID: cmd.Process.Pid})
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	}
	pid := cmd.Process.Pid
	_ = cmd.Process.Release() // it outlives us
	a.done(a.stderr, "Forwarding port %d to sandbox %s in the background (pid %d)", port, name, pid)
	fmt.Fprintf(a.stderr, "  Access at: http://%s/\n  Stop with: %s forward stop %d %s\n", net.JoinHostPort(reachable(bind), strconv.Itoa(int(port))), brand.CLI, port, name)
	return nil
}

func firstComplaint(text string) string {
	for line := range strings.Lines(text) {
		if _, after, ok := strings.Cut(line, "error: "); ok {
			return clean(strings.TrimSpace(after))
		}
	}
	return "it did not start to listen in time"
}
