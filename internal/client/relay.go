package client

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"connectrpc.com/connect"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/fault"
)

const relayChunk = 64 << 10

// Relay is one connection into a sandbox over ForwardTcp. Deadlines are not
// kept: the stream ends with its context.
type Relay struct {
	stream *connect.BidiStreamForClientSimple[openshellv1.TcpForwardFrame, openshellv1.TcpForwardFrame]
	cancel context.CancelFunc

	mu     sync.Mutex // one sender at a time
	closed bool
	rest   []byte // received and not yet read; reader only
}

var _ net.Conn = (*Relay)(nil)

// DialPort opens a connection to a port on the loopback of a sandbox.
func (c *Client) DialPort(ctx context.Context, sandbox string, port uint16, token string) (*Relay, error) {
	return c.dial(ctx, &openshellv1.TcpForwardInit{Sandbox: sandbox, Workspace: c.Workspace, AuthorizationToken: token,
		Target: &openshellv1.TcpForwardInit_Tcp{Tcp: &openshellv1.TcpRelayTarget{Host: "127.0.0.1", Port: uint32(port)}}})
}

// DialSSH opens a connection to the SSH server of a sandbox.
func (c *Client) DialSSH(ctx context.Context, sandbox, token string) (*Relay, error) {
	return c.dial(ctx, &openshellv1.TcpForwardInit{Sandbox: sandbox, Workspace: c.Workspace, AuthorizationToken: token,
		ServiceId: "ssh:" + sandbox, Target: &openshellv1.TcpForwardInit_Ssh{Ssh: &openshellv1.SshRelayTarget{}}})
}

func (c *Client) dial(ctx context.Context, init *openshellv1.TcpForwardInit) (*Relay, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.ForwardTcp(ctx)
	if err != nil {
		cancel()
		return nil, c.explain(ctx, "ForwardTcp", err)
	}
	r := &Relay{stream: stream, cancel: cancel}
	if err := stream.Send(&openshellv1.TcpForwardFrame{Payload: &openshellv1.TcpForwardFrame_Init{Init: init}}); err != nil {
		defer cancel()
		if errors.Is(err, io.EOF) { // the reason is on the receiving side
			_, err = stream.Receive()
		}
		return nil, c.explain(ctx, "ForwardTcp", err)
	}
	return r, nil
}

// Read returns bytes from the sandbox.
func (r *Relay) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		frame, err := r.stream.Receive()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF // bare, as readers are compared with it
		}
		if err != nil {
			return 0, err
		}
		if frame.GetInit() != nil {
			return 0, fault.New(fault.Internal, "the gateway sent an init frame")
		}
		r.rest = frame.GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Write sends bytes to the sandbox.
func (r *Relay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, net.ErrClosed
	}
	for n := 0; n < len(p); {
		chunk := p[n:min(len(p), n+relayChunk)]
		if err := r.stream.Send(&openshellv1.TcpForwardFrame{Payload: &openshellv1.TcpForwardFrame_Data{Data: chunk}}); err != nil {
			return n, err
		}
		n += len(chunk)
	}
	return len(p), nil
}

// CloseWrite is the end of input; bytes still come back.
func (r *Relay) CloseWrite() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return r.stream.CloseRequest()
}

// Close ends the connection at once.
func (r *Relay) Close() error {
	_ = r.CloseWrite()
	r.cancel()
	return nil
}

// LocalAddr and RemoteAddr name no real address.
func (r *Relay) LocalAddr() net.Addr { return relayAddr{} }

// RemoteAddr names no real address.
func (r *Relay) RemoteAddr() net.Addr { return relayAddr{} }

// SetDeadline does nothing; see Relay.
func (r *Relay) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing; see Relay.
func (r *Relay) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing; see Relay.
func (r *Relay) SetWriteDeadline(time.Time) error { return nil }

type relayAddr struct{}

func (relayAddr) Network() string { return "relay" }
func (relayAddr) String() string  { return "sandbox" }
