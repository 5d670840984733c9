package egress

import (
	"context"
	"net"
	"net/netip"
)

// Source is where a sandbox's traffic comes from: listeners handed out of its
// namespace, notifications of a broker, streams over vsock. Nothing above it
// may know which.
type Source interface {
	// Serve gives everything that comes to h until ctx ends (nil) or the
	// source cannot go on. It returns when nothing of it runs any more.
	Serve(ctx context.Context, h Handler) error
}

// Handler takes what a source yields; a Proxy is one.
type Handler interface {
	// Connection takes over a and returns at once.
	Connection(ctx context.Context, a Arrival)
	// Question answers one DNS message, without waiting for anybody. The
	// answer has at most size bytes; nil means no answer at all.
	Question(wire []byte, size int) []byte
}

// Stream is a byte stream whose sending half can be ended alone.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// Arrival is one connection out of the sandbox.
type Arrival struct {
	Stream Stream
	// Client is the program's end, Original the destination it asked for.
	Client, Original netip.AddrPort
	// Explicit says that the program meant to talk to a proxy.
	Explicit bool
	// Owner finds who holds the program's end.
	Owner func(context.Context) (Owner, error)
}

// Owners finds the processes that hold a socket of the sandbox, by its exact
// tuple: client is the program's end, original the destination it asked for.
type Owners interface {
	Owner(ctx context.Context, client, original netip.AddrPort) (Owner, error)
}
