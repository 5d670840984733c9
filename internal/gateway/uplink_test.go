package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/relay"
	"openshell.dev/openshell/internal/session/sessiontest"
	"openshell.dev/openshell/internal/uplink"
)

// boxes are the running boxes of a world by sandbox id.
type boxes struct {
	mu  sync.Mutex
	all map[string]*sessiontest.Box
}

// supervise makes the fake driver's runs real supervisors over boxes without
// walls: the sandbox's command is a process of this host.
func supervise(t *testing.T, w *world) *boxes {
	t.Helper()
	bs := &boxes{all: map[string]*sessiontest.Box{}}
	var runs sync.WaitGroup
	t.Cleanup(func() { w.stop(); runs.Wait() })
	w.fake.OnRun = func(ctx context.Context, d compute.Desired) {
		dir := t.TempDir()
		tokenFile := filepath.Join(dir, "token")
		if err := os.WriteFile(tokenFile, []byte(d.Run.Token.Reveal()), 0o600); err != nil {
			t.Error(err)
			return
		}
		argv := d.Command
		if len(argv) == 0 {
			argv = []string{"sleep", "600"}
		}
		box, err := sessiontest.New(dir, false, argv...)
		if err != nil {
			t.Error(err)
			return
		}
		bs.mu.Lock()
		bs.all[string(d.ID)] = box
		bs.mu.Unlock()
		log := slog.New(slog.DiscardHandler)
		lines := &uplink.Lines{}
		if os.Getenv("GATEWAY_TEST_LOG") != "" {
			log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("side", "supervisor")
		}
		lines.Add(time.Now(), "INFO", "supervisor", "started", nil)
		u, err := uplink.New(uplink.Options{SandboxID: string(d.ID), InstanceID: d.Run.InstanceID, StateDir: dir, Endpoint: d.Run.Endpoint, TokenFile: tokenFile,
			OutageLimit: d.Run.OutageLimit, AwaitAttachment: d.Run.AwaitAttachment, Box: box, SetPolicy: box.SetPolicy, PolicyVersion: d.PolicyVersion, Log: log, Lines: lines})
		if err != nil {
			t.Error(err)
			return
		}
		runs.Go(func() {
			defer box.Close()
			_ = u.Run(ctx)
		})
	}
	t.Cleanup(func() { // ends the runs that are left
		bs.mu.Lock()
		defer bs.mu.Unlock()
		for id := range bs.all {
			w.fake.Kill(modelID(id))
		}
	})
	return bs
}

func ready(w *world, name string, command ...string) *openshellv1.Sandbox {
	w.t.Helper()
	w.create(name, &openshellv1.SandboxSpec{Command: command})
	return w.phase(name, openshellv1.SandboxPhase_SANDBOX_PHASE_READY)
}

// outcome is what a client sees of an exec.
type outcome struct {
	stdout, stderr string
	exit           int32
	exits          int
	err            error
}

func (w *world) exec(req *openshellv1.ExecSandboxRequest) (o outcome) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	req.WorkspaceScope = inDefault()
	if req.Sandbox == "" {
		req.Sandbox = "box"
	}
	s := w.stream(ctx, "ExecSandbox", grpc.StreamDesc{ServerStreams: true})
	if err := s.SendMsg(req); err != nil {
		w.t.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		w.t.Fatal(err)
	}
	o.read(s)
	return o
}

func (o *outcome) read(s grpc.ClientStream) {
	for {
		var e openshellv1.ExecSandboxEvent
		if err := s.RecvMsg(&e); err != nil {
			if !errors.Is(err, io.EOF) {
				o.err = err
			}
			return
		}
		if o.exits > 0 {
			o.err = errors.New("something came after the exit")
		}
		switch p := e.GetPayload().(type) {
		case *openshellv1.ExecSandboxEvent_Stdout:
			o.stdout += string(p.Stdout.GetData())
		case *openshellv1.ExecSandboxEvent_Stderr:
			o.stderr += string(p.Stderr.GetData())
		case *openshellv1.ExecSandboxEvent_Exit:
			o.exit = p.Exit.GetExitCode()
			o.exits++
		}
	}
}

func TestExec(t *testing.T) {
	w := newWorld(t, nil)
	supervise(t, w)
	ready(w, "box")
	dir := t.TempDir()
	shell, err := exec.LookPath("bash") // names itself as it was called
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		req  *openshellv1.ExecSandboxRequest
		want outcome
	}{
		{"words", &openshellv1.ExecSandboxRequest{Command: []string{"printf", "%s|", "a b", "it's", "$X", ""}}, outcome{stdout: "a b|it's|$X||", exits: 1}},
		{"streams and code", &openshellv1.ExecSandboxRequest{Command: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}}, outcome{stdout: "out\n", stderr: "err\n", exit: 7, exits: 1}},
		{"input is whole, then ends", &openshellv1.ExecSandboxRequest{Command: []string{"cat"}, Stdin: []byte("typed\nlines")}, outcome{stdout: "typed\nlines", exits: 1}},
		{"no input ends at once", &openshellv1.ExecSandboxRequest{Command: []string{"cat"}}, outcome{exits: 1}},
		{"the sandbox's environment", &openshellv1.ExecSandboxRequest{Command: []string{"sh", "-c", "echo $BOX $MORE"}, Environment: map[string]string{"MORE": "m"}}, outcome{stdout: "yes m\n", exits: 1}},
		{"pyfunc passes", &openshellv1.ExecSandboxRequest{Command: []string{"printenv", "OPENSHELL_PYFUNC_B64"}, Environment: map[string]string{"OPENSHELL_PYFUNC_B64": strings.Repeat("x", 100<<10)}}, outcome{stdout: strings.Repeat("x", 100<<10) + "\n", exits: 1}},
		{"working directory", &openshellv1.ExecSandboxRequest{Command: []string{"pwd"}, Workdir: dir}, outcome{stdout: dir + "\n", exits: 1}},
		{"not found", &openshellv1.ExecSandboxRequest{Command: []string{"no-such-program"}, NoLoginShell: true}, outcome{stderr: shell + ": line 1: no-such-program: command not found\n", exit: 127, exits: 1}},
		{"signal", &openshellv1.ExecSandboxRequest{Command: []string{"sh", "-c", "kill -9 $$"}, NoLoginShell: true}, outcome{exit: 137, exits: 1}},
		{"timeout", &openshellv1.ExecSandboxRequest{Command: []string{"sleep", "600"}, ExecutionTimeout: durationpb.New(50 * time.Millisecond)}, outcome{exit: 124, exits: 1}},
		{"zero timeout", &openshellv1.ExecSandboxRequest{Command: []string{"sleep", "600"}, ExecutionTimeout: durationpb.New(0)}, outcome{exit: 124, exits: 1}},
		{"terminal", &openshellv1.ExecSandboxRequest{Command: []string{"sh", "-c", "stty size; test -t 0 && test -t 1 && test -t 2 && echo tty >&2"}, Tty: true, Rows: 33, Cols: 99}, outcome{stdout: "33 99\r\ntty\r\n", exits: 1}},
		{"terminal without a size", &openshellv1.ExecSandboxRequest{Command: []string{"sh", "-c", "stty size; echo $TERM"}, Tty: true}, outcome{stdout: "24 80\r\nxterm-256color\r\n", exits: 1}},
	} {
		if got := w.exec(tt.req); got != tt.want {
			t.Errorf("%s:\n%+v\nwant\n%+v", tt.name, clipOutcome(got), clipOutcome(tt.want))
		}
	}
	for name, tt := range map[string]struct {
		req  *openshellv1.ExecSandboxRequest
		code codes.Code
	}{
		"no command":        {&openshellv1.ExecSandboxRequest{}, codes.InvalidArgument},
		"no such sandbox":   {&openshellv1.ExecSandboxRequest{Sandbox: "none", Command: []string{"x"}}, codes.NotFound},
		"reserved variable": {&openshellv1.ExecSandboxRequest{Command: []string{"x"}, Environment: map[string]string{"OPENSHELL_Y": ""}}, codes.InvalidArgument},
		"bad timeout":       {&openshellv1.ExecSandboxRequest{Command: []string{"x"}, ExecutionTimeout: durationpb.New(-1)}, codes.InvalidArgument},
	} {
		if got := w.exec(tt.req); status.Code(got.err) != tt.code || got.exits != 0 {
			t.Errorf("%s: %+v, want %v", name, got, tt.code)
		}
	}
	must[openshellv1.SandboxResponse](w, "StopSandbox", &openshellv1.StopSandboxRequest{WorkspaceScope: inDefault(), Name: "box"})
	if got := w.exec(&openshellv1.ExecSandboxRequest{Command: []string{"true"}}); status.Code(got.err) != codes.FailedPrecondition {
		t.Errorf("in a stopped sandbox: %+v", got)
	}
}

func clipOutcome(o outcome) outcome {
	if len(o.stdout) > 200 {
		o.stdout = o.stdout[:200]
	}
	return o
}

// TestAllOutputIsDeliveredToASlowReader: the command is held back, nothing is
// lost, and the exit comes last.
func TestAllOutputIsDeliveredToASlowReader(t *testing.T) {
	w := newWorld(t, nil)
	supervise(t, w)
	ready(w, "box")
	const size = 24 << 20 // more than all buffers on the way
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	s := w.stream(ctx, "ExecSandbox", grpc.StreamDesc{ServerStreams: true})
	if err := s.SendMsg(&openshellv1.ExecSandboxRequest{WorkspaceScope: inDefault(), Sandbox: "box", NoLoginShell: true,
		Command: []string{"sh", "-c", fmt.Sprintf("head -c %d /dev/zero; echo end >&2", size)}}); err != nil {
		t.Fatal(err)
	}
	_ = s.CloseSend()
	time.Sleep(300 * time.Millisecond) // the reader is slow: that is the point
	got, exits := 0, 0
	for {
		var e openshellv1.ExecSandboxEvent
		if err := s.RecvMsg(&e); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break
		}
		got += len(e.GetStdout().GetData())
		if e.GetExit() != nil {
			exits++
		}
	}
	if got != size || exits != 1 {
		t.Errorf("%d bytes, %d exits; want %d, 1", got, exits, size)
	}
}

func interactive(w *world, ctx context.Context, req *openshellv1.ExecSandboxRequest) grpc.ClientStream {
	w.t.Helper()
	req.WorkspaceScope, req.Sandbox = inDefault(), "box"
	s := w.stream(ctx, "ExecSandboxInteractive", grpc.StreamDesc{ServerStreams: true, ClientStreams: true})
	if err := s.SendMsg(&openshellv1.ExecSandboxInput{Payload: &openshellv1.ExecSandboxInput_Start{Start: req}}); err != nil {
		w.t.Fatal(err)
	}
	return s
}

func stdin(s string) *openshellv1.ExecSandboxInput {
	return &openshellv1.ExecSandboxInput{Payload: &openshellv1.ExecSandboxInput_Stdin{Stdin: []byte(s)}}
}

func TestInteractiveExec(t *testing.T) {
	w := newWorld(t, nil)
	supervise(t, w)
	ready(w, "box")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	t.Run("a half-close ends the input and nothing else", func(t *testing.T) {
		s := interactive(w, ctx, &openshellv1.ExecSandboxRequest{Command: []string{"sh", "-c", "cat; echo after; exit 5"}})
		for _, m := range []string{"one ", "two\n"} {
			if err := s.SendMsg(stdin(m)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		var o outcome
		if o.read(s); (o != outcome{stdout: "one two\nafter\n", exit: 5, exits: 1}) {
			t.Errorf("%+v", o)
		}
	})
	t.Run("the end does not wait for the client's half-close", func(t *testing.T) {
		s := interactive(w, ctx, &openshellv1.ExecSandboxRequest{Command: []string{"true"}})
		var o outcome
		if o.read(s); (o != outcome{exits: 1}) {
			t.Errorf("%+v", o)
		}
	})
	t.Run("a terminal is resized", func(t *testing.T) {
		s := interactive(w, ctx, &openshellv1.ExecSandboxRequest{Command: []string{"sh", "-c", "read x; stty size"}, Tty: true, NoLoginShell: true})
		if err := s.SendMsg(&openshellv1.ExecSandboxInput{Payload: &openshellv1.ExecSandboxInput_Resize{Resize: &openshellv1.ExecSandboxWindowResize{Rows: 44, Cols: 55}}}); err != nil {
			t.Fatal(err)
		}
		if err := s.SendMsg(stdin("x\n")); err != nil {
			t.Fatal(err)
		}
		var o outcome
		if o.read(s); o.err != nil || !strings.Contains(o.stdout, "44 55") {
			t.Errorf("%+v", o)
		}
	})
	t.Run("a second start is refused", func(t *testing.T) {
		s := interactive(w, ctx, &openshellv1.ExecSandboxRequest{Command: []string{"sleep", "600"}})
		if err := s.SendMsg(&openshellv1.ExecSandboxInput{Payload: &openshellv1.ExecSandboxInput_Start{Start: &openshellv1.ExecSandboxRequest{}}}); err != nil {
			t.Fatal(err)
		}
		var o outcome
		if o.read(s); status.Code(o.err) != codes.InvalidArgument {
			t.Errorf("%+v", o)
		}
	})
	t.Run("a cancelled call hangs up on the command", func(t *testing.T) {
		mark := filepath.Join(t.TempDir(), "hup")
		ctx, cancel := context.WithCancel(ctx)
		s := interactive(w, ctx, &openshellv1.ExecSandboxRequest{NoLoginShell: true,
			Command: []string{"sh", "-c", "trap 'echo x > " + mark + "; exit' HUP; echo up; while :; do sleep 0.05; done"}})
		if err := s.RecvMsg(&openshellv1.ExecSandboxEvent{}); err != nil {
			t.Fatal(err)
		}
		cancel()
		for range 400 {
			if _, err := os.Stat(mark); err == nil {
				return
			}
			time.Sleep(25 * time.Millisecond)
		}
		t.Error("the command never got a SIGHUP")
	})
}

func TestForwardTCP(t *testing.T) {
	w := newWorld(t, nil)
	supervise(t, w)
	ready(w, "box")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			body, _ := io.ReadAll(c) // until the half-close
			_, _ = c.Write(append([]byte("answer to "), body...))
			c.Close()
		}
	}()
	port := uint32(l.Addr().(*net.TCPAddr).Port)
	open := func(init *openshellv1.TcpForwardInit) grpc.ClientStream {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		t.Cleanup(cancel)
		s := w.stream(ctx, "ForwardTcp", grpc.StreamDesc{ServerStreams: true, ClientStreams: true})
		if err := s.SendMsg(&openshellv1.TcpForwardFrame{Payload: &openshellv1.TcpForwardFrame_Init{Init: init}}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	tcp := func(host string, port uint32) *openshellv1.TcpForwardInit {
		return &openshellv1.TcpForwardInit{Sandbox: "box", Workspace: "default", Target: &openshellv1.TcpForwardInit_Tcp{Tcp: &openshellv1.TcpRelayTarget{Host: host, Port: port}}}
	}
	s := open(tcp("localhost", port))
	for _, p := range []string{"a", "", "b"} { // an empty frame is valid
		if err := s.SendMsg(&openshellv1.TcpForwardFrame{Payload: &openshellv1.TcpForwardFrame_Data{Data: []byte(p)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for {
		var m openshellv1.TcpForwardFrame
		if err := s.RecvMsg(&m); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
		got.Write(m.GetData())
	}
	if got.String() != "answer to ab" {
		t.Errorf("got %q", got.String())
	}
	for name, tt := range map[string]struct {
		init *openshellv1.TcpForwardInit
		code codes.Code
	}{
		"another host": {tcp("192.0.2.1", 80), codes.InvalidArgument},
		"port 0":       {tcp("127.0.0.1", 0), codes.InvalidArgument},
		"no target":    {&openshellv1.TcpForwardInit{Sandbox: "box", Workspace: "default"}, codes.InvalidArgument},
		"no workspace": {&openshellv1.TcpForwardInit{Sandbox: "box"}, codes.InvalidArgument},
		"ssh without a token": {&openshellv1.TcpForwardInit{Sandbox: "box", Workspace: "default", Target: &openshellv1.TcpForwardInit_Ssh{Ssh: &openshellv1.SshRelayTarget{}}},
			codes.Unauthenticated},
	} {
		if err := open(tt.init).RecvMsg(&openshellv1.TcpForwardFrame{}); status.Code(err) != tt.code {
			t.Errorf("%s: %v, want %v", name, err, tt.code)
		}
	}
}

// wireConn is a connection over a ForwardTcp stream.
type wireConn struct {
	net.Conn // never used: only its methods are
	s        grpc.ClientStream
	rest     []byte
}

func (c *wireConn) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		var m openshellv1.TcpForwardFrame
		if err := c.s.RecvMsg(&m); err != nil {
			return 0, err
		}
		c.rest = m.GetData()
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *wireConn) Write(p []byte) (int, error) {
	return len(p), c.s.SendMsg(&openshellv1.TcpForwardFrame{Payload: &openshellv1.TcpForwardFrame_Data{Data: p}})
}

func (c *wireConn) Close() error         { return c.s.CloseSend() }
func (c *wireConn) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (c *wireConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }

func TestSSH(t *testing.T) {
	w := newWorld(t, nil)
	supervise(t, w)
	b := ready(w, "box", "sh", "-c", "echo main; exec sleep 600")
	res := must[openshellv1.CreateSshSessionResponse](w, "CreateSshSession", &openshellv1.CreateSshSessionRequest{WorkspaceScope: inDefault(), Sandbox: "box"})
	if res.GetSandboxId() != b.GetMetadata().GetId() || res.GetGatewayHost() != "127.0.0.1" || res.GetGatewayScheme() != "http" || res.GetGatewayPort() == 0 ||
		res.GetExpirationTime() != nil || !strings.HasPrefix(res.GetHostKeyFingerprint(), "SHA256:") {
		t.Errorf("session = %v", res)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	open := func() (*ssh.Client, error) {
		s := w.stream(ctx, "ForwardTcp", grpc.StreamDesc{ServerStreams: true, ClientStreams: true})
		if err := s.SendMsg(&openshellv1.TcpForwardFrame{Payload: &openshellv1.TcpForwardFrame_Init{Init: &openshellv1.TcpForwardInit{Sandbox: "box", Workspace: "default",
			AuthorizationToken: res.GetToken(), Target: &openshellv1.TcpForwardInit_Ssh{Ssh: &openshellv1.SshRelayTarget{}}}}}); err != nil {
			return nil, err
		}
		conn, chans, reqs, err := ssh.NewClientConn(&wireConn{s: s}, "box", &ssh.ClientConfig{User: "sandbox", HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			if got := ssh.FingerprintSHA256(k); got != res.GetHostKeyFingerprint() {
				return fmt.Errorf("host key %s, announced %s", got, res.GetHostKeyFingerprint())
			}
			return nil
		}})
		if err != nil {
			return nil, err
		}
		return ssh.NewClient(conn, chans, reqs), nil
	}
	c, err := open()
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("echo over ssh"); string(out) != "over ssh\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	c.Close()
	for range 2 { // also when it is revoked already
		rev := must[openshellv1.RevokeSshSessionResponse](w, "RevokeSshSession", &openshellv1.RevokeSshSessionRequest{Token: res.GetToken()})
		if rev.GetOutcome() != openshellv1.DeletionOutcome_DELETION_OUTCOME_COMPLETED {
			t.Errorf("revoke = %v", rev)
		}
	}
	if c, err := open(); err == nil {
		c.Close()
		t.Error("a revoked session was used")
	}
}

func TestTheMainProcessThroughOurService(t *testing.T) {
	w := newWorld(t, nil)
	supervise(t, w)
	created := must[openshellv1.SandboxResponse](w, "CreateSandbox", &openshellv1.CreateSandboxRequest{WorkspaceScope: inDefault(), Name: "box", AwaitMainProcessAttachment: true,
		Annotations: map[string]string{"openshell.ai/retention": "ephemeral"}, Spec: &openshellv1.SandboxSpec{Command: []string{"sh", "-c", "echo quick; exit 3"}}})
	w.phase("box", openshellv1.SandboxPhase_SANDBOX_PHASE_READY) // its end waits for us
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s := w.stream(ctx, "ForwardTcp", grpc.StreamDesc{ServerStreams: true, ClientStreams: true})
	if err := s.SendMsg(&openshellv1.TcpForwardFrame{Payload: &openshellv1.TcpForwardFrame_Init{Init: &openshellv1.TcpForwardInit{Sandbox: "box", Workspace: "default",
		ServiceId: relay.ServiceID, Target: &openshellv1.TcpForwardInit_Ssh{Ssh: &openshellv1.SshRelayTarget{}}}}}); err != nil {
		t.Fatal(err)
	}
	conn := relay.New(&wireConn{s: s})
	if err := conn.SendJSON(relay.TypeStart, relay.Start{Kind: relay.KindMain, Write: true}); err != nil {
		t.Fatal(err)
	}
	var out string
	for {
		f, err := conn.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == relay.TypeOutput {
			out += string(f.Payload)
		}
		if f.Type == relay.TypeExit {
			var x relay.Exit
			if err := f.Decode(&x); err != nil || x.Code != 3 {
				t.Errorf("exit = %+v, %v", x, err)
			}
			break
		}
	}
	if out != "quick\n" {
		t.Errorf("output %q", out)
	}
	// Who has seen the exit sees the phase, and the ephemeral sandbox goes
	// when the attachment is closed.
	if b := w.get("box"); b.GetStatus().GetPhase() != openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR || b.GetStatus().GetExitCode() != 3 {
		t.Errorf("after the exit: %v", b.GetStatus())
	}
	conn.Close()
	cancel()
	limit := time.Now().Add(20 * time.Second)
	for {
		_, err := call[openshellv1.SandboxResponse](w, "GetSandbox", &openshellv1.GetSandboxRequest{WorkspaceScope: inDefault(), Name: "box"})
		if status.Code(err) == codes.NotFound {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("the ephemeral sandbox %s is still there: %v", created.GetSandbox().GetMetadata().GetId(), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestAFinishedCommandIsCompleted(t *testing.T) {
	w := newWorld(t, nil)
	supervise(t, w)
	w.create("box", &openshellv1.SandboxSpec{Command: []string{"true"}})
	b := w.phase("box", openshellv1.SandboxPhase_SANDBOX_PHASE_COMPLETED)
	if b.GetStatus().ExitCode == nil || b.GetStatus().GetConditions()[0].GetReason() != "MainProcessCompleted" {
		t.Errorf("status = %v", b.GetStatus())
	}
	// Commands still work until the sandbox is stopped.
	if got := w.exec(&openshellv1.ExecSandboxRequest{Command: []string{"echo", "still"}}); got.stdout != "still\n" || got.err != nil {
		t.Errorf("exec after the end: %+v (%v)", got, got.err)
	}
}

func policyFor(host string) *sandboxv1.SandboxPolicy {
	return &sandboxv1.SandboxPolicy{Version: 1, NetworkPolicies: map[string]*sandboxv1.NetworkPolicyRule{"a": {
		Endpoints: []*sandboxv1.NetworkEndpoint{{Host: host, Port: 443}}, Binaries: []*sandboxv1.NetworkBinary{{Path: "/usr/bin/curl"}}}}}
}

func TestAPolicyIsPushedAndReported(t *testing.T) {
	w := newWorld(t, nil)
	bs := supervise(t, w)
	b := w.create("box", &openshellv1.SandboxSpec{Policy: policyFor("one.example.com")})
	w.phase("box", openshellv1.SandboxPhase_SANDBOX_PHASE_READY)
	first := must[openshellv1.GetSandboxPolicyStatusResponse](w, "GetSandboxPolicyStatus", &openshellv1.GetSandboxPolicyStatusRequest{WorkspaceScope: inDefault(), Sandbox: "box"})
	if first.GetActiveVersion() != 1 || first.GetRevision().GetStatus() != openshellv1.PolicyStatus_POLICY_STATUS_LOADED || first.GetRevision().GetPolicy() == nil {
		t.Errorf("first = %v", first)
	}
	update := &openshellv1.UpdateConfigRequest{WorkspaceScope: inDefault(), Sandbox: "box", Policy: policyFor("two.example.com"), ExpectedResourceVersion: b.GetMetadata().GetResourceVersion() + 1000}
	if _, err := call[openshellv1.UpdateConfigResponse](w, "UpdateConfig", update); status.Code(err) != codes.Aborted {
		t.Errorf("a stale version: %v", err)
	} else if reason, _ := details(t, err); reason != "RESOURCE_VERSION_CONFLICT" {
		t.Errorf("reason %q", reason)
	}
	update.ExpectedResourceVersion = 0
	res := must[openshellv1.UpdateConfigResponse](w, "UpdateConfig", update)
	if res.GetVersion() != 2 || res.GetPolicyHash() == first.GetRevision().GetPolicyHash() {
		t.Errorf("update = %v", res)
	}
	bs.mu.Lock()
	box := bs.all[b.GetMetadata().GetId()]
	bs.mu.Unlock()
	if doc := <-box.Policies; !strings.Contains(doc, "two.example.com") {
		t.Errorf("the supervisor got %s", doc)
	}
	w.until("box", "the report", func(b *openshellv1.Sandbox) bool { return b.GetStatus().GetCurrentPolicyVersion() == 2 })
	if again := must[openshellv1.UpdateConfigResponse](w, "UpdateConfig", update); again.GetVersion() != 2 {
		t.Errorf("an unchanged policy made version %d", again.GetVersion())
	}
	box.PolicyErr = errors.New("rule a: refused by the enforcer")
	must[openshellv1.UpdateConfigResponse](w, "UpdateConfig", &openshellv1.UpdateConfigRequest{WorkspaceScope: inDefault(), Sandbox: "box", Policy: policyFor("three.example.com")})
	var last *openshellv1.GetSandboxPolicyStatusResponse
	for last = first; last.GetRevision().GetStatus() != openshellv1.PolicyStatus_POLICY_STATUS_FAILED; {
		last = must[openshellv1.GetSandboxPolicyStatusResponse](w, "GetSandboxPolicyStatus", &openshellv1.GetSandboxPolicyStatusRequest{WorkspaceScope: inDefault(), Sandbox: "box"})
		time.Sleep(5 * time.Millisecond)
	}
	if last.GetActiveVersion() != 2 || !strings.Contains(last.GetRevision().GetLoadError(), "refused by the enforcer") {
		t.Errorf("failed = %v", last)
	}
	list := must[openshellv1.ListSandboxPoliciesResponse](w, "ListSandboxPolicies", &openshellv1.ListSandboxPoliciesRequest{WorkspaceScope: inDefault(), Sandbox: "box"})
	var words []string
	for _, r := range list.GetRevisions() {
		words = append(words, fmt.Sprint(r.GetVersion(), " ", r.GetStatus()))
	}
	if got := strings.Join(words, " "); got != "3 POLICY_STATUS_FAILED 2 POLICY_STATUS_LOADED 1 POLICY_STATUS_SUPERSEDED" {
		t.Errorf("revisions = %s", got)
	}
	static := policyFor("x.example.com")
	static.Landlock = &sandboxv1.LandlockPolicy{Compatibility: "hard_requirement"}
	if _, err := call[openshellv1.UpdateConfigResponse](w, "UpdateConfig", &openshellv1.UpdateConfigRequest{WorkspaceScope: inDefault(), Sandbox: "box", Policy: static}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a static part was changed: %v", err)
	}
}

func TestLogsAndEvents(t *testing.T) {
	w := newWorld(t, nil)
	supervise(t, w)
	ready(w, "box")
	var logs *openshellv1.GetSandboxLogsResponse
	for range 1000 {
		logs = must[openshellv1.GetSandboxLogsResponse](w, "GetSandboxLogs", &openshellv1.GetSandboxLogsRequest{WorkspaceScope: inDefault(), Sandbox: "box", Sources: []string{"sandbox"}})
		if len(logs.GetLogs()) > 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if len(logs.GetLogs()) == 0 || logs.GetLogs()[0].GetMessage() != "started" || logs.GetLogs()[0].GetSource() != "sandbox" {
		t.Fatalf("logs = %v", logs)
	}
	watch := func(req *openshellv1.WatchSandboxRequest) (func() (*openshellv1.SandboxStreamEvent, error), func()) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		req.WorkspaceScope, req.Sandbox = inDefault(), "box"
		s := w.stream(ctx, "WatchSandbox", grpc.StreamDesc{ServerStreams: true})
		if err := s.SendMsg(req); err != nil {
			t.Fatal(err)
		}
		_ = s.CloseSend()
		return func() (*openshellv1.SandboxStreamEvent, error) {
			e := &openshellv1.SandboxStreamEvent{}
			return e, s.RecvMsg(e)
		}, cancel
	}
	// Everything so far, with cursors that rise byte by byte.
	next, cancel := watch(&openshellv1.WatchSandboxRequest{FollowLogs: true, FollowEvents: true, EventTail: 100})
	e, err := next()
	if err != nil || e.GetSandbox() == nil || e.GetCursor() != "" {
		t.Fatalf("first = %v, %v; want a snapshot without a cursor", e, err)
	}
	var cursors []string
	for len(cursors) < 3 {
		if e, err = next(); err != nil {
			t.Fatal(err)
		}
		if len(cursors) > 0 && e.GetCursor() <= cursors[len(cursors)-1] {
			t.Errorf("cursor %q after %q", e.GetCursor(), cursors[len(cursors)-1])
		}
		cursors = append(cursors, e.GetCursor())
	}
	cancel()
	// Resuming replays exactly what came after.
	next, cancel = watch(&openshellv1.WatchSandboxRequest{FollowLogs: true, FollowEvents: true, ResumeAfterCursor: cursors[0]})
	if _, err := next(); err != nil {
		t.Fatal(err)
	}
	if e, err = next(); err != nil || e.GetCursor() != cursors[1] {
		t.Errorf("resumed at %q (%v), want %q", e.GetCursor(), err, cursors[1])
	}
	cancel()
	for cursor, code := range map[string]codes.Code{"nonsense": codes.InvalidArgument, "00000000" + cursors[0][8:]: codes.OutOfRange} {
		next, cancel := watch(&openshellv1.WatchSandboxRequest{FollowLogs: true, ResumeAfterCursor: cursor})
		if _, err := next(); status.Code(err) != code {
			t.Errorf("cursor %q: %v, want %v", cursor, err, code)
		}
		cancel()
	}
	// stop_on_terminal ends after a settled phase.
	next, cancel = watch(&openshellv1.WatchSandboxRequest{FollowStatus: true, StopOnTerminal: true})
	defer cancel()
	if _, err := next(); err != nil {
		t.Fatal(err)
	}
	if _, err := next(); !errors.Is(err, io.EOF) {
		t.Errorf("after READY: %v, want the end", err)
	}
}

func TestASupervisorComesBackAfterARestartOfTheGateway(t *testing.T) {
	w := newWorld(t, nil)
	supervise(t, w)
	before := ready(w, "box")
	w.stop()
	w.start()
	after := w.phase("box", openshellv1.SandboxPhase_SANDBOX_PHASE_READY)
	if after.GetStatus().GetMainProcessInstanceId() != before.GetStatus().GetMainProcessInstanceId() {
		t.Error("the run was replaced")
	}
	if got := w.exec(&openshellv1.ExecSandboxRequest{Command: []string{"echo", "here"}}); got.stdout != "here\n" {
		t.Errorf("exec after the restart: %+v (%v)", got, got.err)
	}
}
