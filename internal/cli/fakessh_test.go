package cli

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"

	"openshell.dev/openshell/api/gen/openshellv1"
)

// mainProcess is the main process of a fake sandbox; its output is kept and
// given to everybody who attaches.
type mainProcess struct {
	mu     sync.Mutex
	output []byte
	grown  *sync.Cond
	over   bool
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	tty    *os.File
	done   chan struct{}
	code   int
}

func startMain(argv []string, env map[string]string, tty bool) *mainProcess {
	m := &mainProcess{done: make(chan struct{}), cmd: hostCommand(argv, env)}
	m.grown = sync.NewCond(&m.mu)
	var out io.Reader
	var err error
	if tty {
		if m.tty, err = pty.Start(m.cmd); err == nil {
			m.stdin, out = m.tty, m.tty
		}
	} else {
		var r, w *os.File
		if r, w, err = os.Pipe(); err == nil {
			m.cmd.Stdout, m.cmd.Stderr = w, w
			m.stdin, _ = m.cmd.StdinPipe()
			err = m.cmd.Start()
			_ = w.Close()
			out = r
		}
	}
	if err != nil {
		m.code, m.over, m.output = 127, true, []byte(err.Error()+"\n")
		close(m.done)
		return m
	}
	go func() { // ends with the process
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			m.mu.Lock()
			m.output = append(m.output, buf[:n]...)
			m.grown.Broadcast()
			m.mu.Unlock()
			if err != nil {
				break
			}
		}
		m.code = codeOf(m.cmd.Wait())
		m.mu.Lock()
		m.over = true
		m.grown.Broadcast()
		m.mu.Unlock()
		close(m.done)
	}()
	return m
}

func (m *mainProcess) kill() {
	if m != nil && m.cmd.Process != nil {
		_ = m.cmd.Process.Kill()
	}
}

// follow copies the output from its beginning to its end.
func (m *mainProcess) follow(w io.Writer) {
	for at := 0; ; {
		m.mu.Lock()
		for at == len(m.output) && !m.over {
			m.grown.Wait()
		}
		next := m.output[at:]
		over := m.over
		m.mu.Unlock()
		if len(next) == 0 && over {
			return
		}
		if _, err := w.Write(next); err != nil {
			return
		}
		at += len(next)
	}
}

func (f *fake) CreateSshSession(_ context.Context, req *openshellv1.CreateSshSessionRequest) (*openshellv1.CreateSshSessionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.find(req.GetWorkspaceScope(), req.GetSandbox())
	if err != nil {
		return nil, err
	}
	f.logins++
	print := ssh.FingerprintSHA256(f.signer.PublicKey())
	if strings.HasPrefix(req.GetSandbox(), "forged") {
		print = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	}
	return &openshellv1.CreateSshSessionResponse{SandboxId: b.s.Metadata.Id, Token: "token", GatewayHost: "127.0.0.1", GatewayPort: 1, GatewayScheme: "http", HostKeyFingerprint: print}, nil
}

func (f *fake) RevokeSshSession(context.Context, *openshellv1.RevokeSshSessionRequest) (*openshellv1.RevokeSshSessionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked++
	return &openshellv1.RevokeSshSessionResponse{Outcome: openshellv1.DeletionOutcome_DELETION_OUTCOME_COMPLETED}, nil
}

// frames makes a connection of a stream.
type frames struct {
	net.Conn // nil; only what is used is there
	stream   *connect.BidiStream[openshellv1.TcpForwardFrame, openshellv1.TcpForwardFrame]
	rest     []byte

	mu   sync.Mutex
	over bool // the handler has returned
}

func (c *frames) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		m, err := c.stream.Receive()
		if err != nil {
			return 0, io.EOF
		}
		c.rest = m.GetData()
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *frames) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return 0, net.ErrClosed
	}
	return len(p), c.stream.Send(&openshellv1.TcpForwardFrame{Payload: &openshellv1.TcpForwardFrame_Data{Data: append([]byte(nil), p...)}})
}

// end makes sure that nothing is sent any more: the handler returns.
func (c *frames) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

func (c *frames) Close() error                     { return nil }
func (c *frames) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *frames) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *frames) SetDeadline(time.Time) error      { return nil }
func (c *frames) SetReadDeadline(time.Time) error  { return nil }
func (c *frames) SetWriteDeadline(time.Time) error { return nil }

func (f *fake) ForwardTcp(ctx context.Context, stream *connect.BidiStream[openshellv1.TcpForwardFrame, openshellv1.TcpForwardFrame]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	init := first.GetInit()
	f.mu.Lock()
	b := f.boxes[init.GetSandbox()]
	f.mu.Unlock()
	if b == nil {
		return wireError(connect.CodeNotFound, "no such sandbox")
	}
	conn := &frames{stream: stream}
	defer conn.end()
	if init.GetTcp() != nil {
		up, err := net.Dial("tcp", f.echo)
		if err != nil {
			return err
		}
		defer up.Close()
		var in sync.WaitGroup
		in.Go(func() {
			_, _ = io.Copy(up, conn)
			_ = up.(*net.TCPConn).CloseWrite()
		})
		_, _ = io.Copy(conn, up)
		return nil
	}
	if init.GetAuthorizationToken() != "token" {
		return wireError(connect.CodeUnauthenticated, "a token is needed")
	}
	return f.serveSSH(ctx, b, conn)
}

func (f *fake) serveSSH(ctx context.Context, b *box, conn *frames) error {
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(f.signer)
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return nil
	}
	go ssh.DiscardRequests(requests)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case nc, ok := <-channels:
			if !ok {
				return nil
			}
			ch, reqs, err := nc.Accept()
			if err != nil {
				return nil
			}
			go f.serveChannel(b, ch, reqs, cancel)
		}
	}
}

func (f *fake) serveChannel(b *box, ch ssh.Channel, reqs <-chan *ssh.Request, cancel func()) {
	for r := range reqs {
		ok := false
		switch r.Type {
		case "pty-req":
			var m struct {
				Term             string
				Cols, Rows, W, H uint32
				Modes            string
			}
			if ok = ssh.Unmarshal(r.Payload, &m) == nil; ok && b.main.tty != nil {
				_ = pty.Setsize(b.main.tty, &pty.Winsize{Rows: uint16(m.Rows), Cols: uint16(m.Cols)})
			}
		case "window-change":
			var m struct{ Cols, Rows, W, H uint32 }
			if ssh.Unmarshal(r.Payload, &m) == nil && b.main.tty != nil {
				_ = pty.Setsize(b.main.tty, &pty.Winsize{Rows: uint16(m.Rows), Cols: uint16(m.Cols)})
			}
		case "signal":
			b.main.kill()
		case "subsystem":
			ok = strings.HasSuffix(string(r.Payload), "openshell-main")
			f.mu.Lock()
			m, drop := b.main, b.drop > 0
			if drop {
				b.drop--
			}
			f.mu.Unlock()
			if drop {
				time.AfterFunc(2200*time.Millisecond, cancel)
			}
			go func() {
				_, _ = io.Copy(m.stdin, ch)
				if m.tty == nil {
					_ = m.stdin.Close()
				}
			}()
			go func() {
				m.follow(ch)
				<-m.done
				_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(m.code)}))
				_ = ch.Close()
			}()
		}
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
	}
}
