package client

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

const (
	sshUser      = "sandbox" // the word of the contract; nobody's account
	sshHandshake = 20 * time.Second
	sshAlive     = 15 * time.Second // as often as stock clients ask
	maxToken     = 4096
)

// Attachment is one view of the main process of a sandbox.
type Attachment struct {
	client  *Client
	token   string
	conn    *ssh.Client
	channel ssh.Channel
	done    chan struct{} // closed after the last request of the channel
	code    int           // valid after done
	exited  bool          // the process ended; otherwise the channel did
}

// AttachOptions say how to attach.
type AttachOptions struct {
	TTY        bool
	Term       string
	Rows, Cols uint32
}

// Attach joins the main process of a sandbox through its SSH server.
func (c *Client) Attach(ctx context.Context, sandbox string, o AttachOptions) (*Attachment, error) {
	session, err := c.CreateSshSession(ctx, &openshellv1.CreateSshSessionRequest{WorkspaceScope: c.Scope(), Sandbox: sandbox})
	if err != nil {
		return nil, err
	}
	if t := session.GetToken(); t == "" || len(t) > maxToken {
		return nil, fault.New(fault.Internal, "the gateway sent an unusable session token")
	}
	a := &Attachment{client: c, token: session.GetToken(), done: make(chan struct{})}
	if err := a.open(ctx, sandbox, session.GetHostKeyFingerprint(), o); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

func (a *Attachment) open(ctx context.Context, sandbox, fingerprint string, o AttachOptions) error {
	relay, err := a.client.DialSSH(ctx, sandbox, a.token)
	if err != nil {
		return err
	}
	limit := time.AfterFunc(sshHandshake, func() { _ = relay.Close() })
	conn, chans, reqs, err := ssh.NewClientConn(relay, sandbox, &ssh.ClientConfig{User: sshUser, HostKeyCallback: hostKey(fingerprint)})
	if !limit.Stop() && err == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		_ = relay.Close()
		return sshFault(sandbox, err)
	}
	a.conn = ssh.NewClient(conn, chans, reqs)
	channel, requests, err := a.conn.OpenChannel("session", nil)
	if err != nil {
		return sshFault(sandbox, err)
	}
	a.channel = channel
	go a.follow(requests) // ends with the channel
	if o.TTY {
		pty := struct {
			Term                      string
			Cols, Rows, Width, Height uint32
			Modes                     string
		}{o.Term, o.Cols, o.Rows, 0, 0, "\x00"}
		if ok, err := channel.SendRequest("pty-req", true, ssh.Marshal(pty)); err != nil || !ok {
			return sshFault(sandbox, errors.Join(errors.New("no terminal was given"), err))
		}
	}
	ok, err := channel.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{brand.SSHMain}))
	if err != nil || !ok {
		return sshFault(sandbox, errors.Join(errors.New("the main process cannot be attached to"), err))
	}
	return nil
}

// hostKey checks the key against what the gateway said, if it said anything:
// the channel below is already authenticated by the gateway.
func hostKey(fingerprint string) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, key ssh.PublicKey) error {
		if fingerprint != "" && ssh.FingerprintSHA256(key) != fingerprint {
			return fault.New(fault.PermissionDenied, "the sandbox shows another host key than the gateway knows")
		}
		return nil
	}
}

func sshFault(sandbox string, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	return fault.New(fault.Unavailable, "cannot attach to sandbox %q", sandbox).Hint("%s sandbox get %s", brand.CLI, sandbox).Cause(err)
}

func (a *Attachment) follow(requests <-chan *ssh.Request) {
	for r := range requests {
		switch r.Type {
		case "exit-status":
			var m struct{ Status uint32 }
			if ssh.Unmarshal(r.Payload, &m) == nil {
				a.code, a.exited = int(m.Status), true
			}
		case "exit-signal":
			var m struct {
				Signal     string
				CoreDumped bool
				Error      string
				Lang       string
			}
			if ssh.Unmarshal(r.Payload, &m) == nil && !a.exited {
				a.code, a.exited = 128+signals[m.Signal], true
			}
		}
		if r.WantReply {
			_ = r.Reply(false, nil)
		}
	}
	close(a.done)
}

// signals are the names of RFC 4254 6.10.
var signals = map[string]int{"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15}

// Stdout is the output of the process.
func (a *Attachment) Stdout() io.Reader { return a.channel }

// Stderr is its error output, and notices of the server.
func (a *Attachment) Stderr() io.Reader { return a.channel.Stderr() }

// Write sends input.
func (a *Attachment) Write(p []byte) (int, error) { return a.channel.Write(p) }

// CloseInput is the end of input.
func (a *Attachment) CloseInput() error { return a.channel.CloseWrite() }

// Resize tells the size of the caller's terminal.
func (a *Attachment) Resize(rows, cols uint32) error {
	_, err := a.channel.SendRequest("window-change", false, ssh.Marshal(struct{ Cols, Rows, Width, Height uint32 }{cols, rows, 0, 0}))
	return err
}

// Signal passes a signal to the process.
func (a *Attachment) Signal(sig syscall.Signal) error {
	for name, n := range signals {
		if n == int(sig) {
			_, err := a.channel.SendRequest("signal", false, ssh.Marshal(struct{ Name string }{name}))
			return err
		}
	}
	return nil
}

// Done is closed when the attachment has ended; Result is valid then.
func (a *Attachment) Done() <-chan struct{} { return a.done }

// Result returns the exit code of the process; ok is false if the attachment
// ended before the process did.
func (a *Attachment) Result() (code int, ok bool) { return a.code, a.exited }

// KeepAlive asks the server for a sign of life until ctx ends, so that a dead
// connection is noticed, and closes the attachment when there is none.
func (a *Attachment) KeepAlive(ctx context.Context) {
	tick := time.NewTicker(sshAlive)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.done:
			return
		case <-tick.C:
		}
		answered := make(chan error, 1)
		go func() {
			_, _, err := a.conn.SendRequest("keepalive@openssh.com", true, nil)
			answered <- err
		}()
		select {
		case err := <-answered:
			if err == nil {
				continue
			}
		case <-time.After(3 * sshAlive):
		}
		_ = a.conn.Close()
		<-answered
		return
	}
}

// Hangup ends the connection at once; the readers of its output end.
func (a *Attachment) Hangup() { _ = a.conn.Close() }

// Close ends the attachment and revokes its session. The process goes on.
func (a *Attachment) Close() {
	if a.conn != nil {
		_ = a.conn.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = a.client.RevokeSshSession(ctx, &openshellv1.RevokeSshSessionRequest{Token: a.token, AllowMissing: true})
}
