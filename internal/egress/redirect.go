package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Redirect is the source of a namespace we own: its listeners were opened
// inside, where rules redirect every TCP connection and every DNS question to
// them, and handed out. Zero fields are sources that do not exist.
type Redirect struct {
	Caught   []*net.TCPListener // transparently redirected connections, IPv4 and IPv6
	Explicit []*net.TCPListener // where programs expect a proxy
	DNS      []*net.UDPConn     // bound exactly to the redirect's target address
	DNSTCP   []*net.TCPListener
	// Original finds the destination of a redirected connection.
	Original func(*net.TCPConn) (netip.AddrPort, error)
	Owners   Owners
	// DNSStreams bounds DNS connections over TCP; 128 by default.
	DNSStreams int
}

// Listener makes a TCP listener of a handed-over descriptor. The file is
// closed in any case.
func Listener(f *os.File) (*net.TCPListener, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over listener %s: %w", f.Name(), err)
	}
	t, ok := l.(*net.TCPListener)
	if !ok {
		_ = l.Close()
		return nil, fmt.Errorf("take over listener %s: not a TCP socket", f.Name())
	}
	return t, nil
}

// PacketConn makes a UDP socket of a handed-over descriptor. The file is
// closed in any case.
func PacketConn(f *os.File) (*net.UDPConn, error) {
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("take over socket %s: %w", f.Name(), err)
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("take over socket %s: not a UDP socket", f.Name())
	}
	return u, nil
}

// Serve accepts until ctx ends, and closes the listeners. An error of one
// listener ends all: half a source would look like a broken network.
func (r *Redirect) Serve(ctx context.Context, h Handler) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	run := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	for _, l := range r.Caught {
		run(func() error {
			return accept(ctx, l, func(c *net.TCPConn) { h.Connection(ctx, r.caught(c)) })
		})
	}
	for _, l := range r.Explicit {
		run(func() error {
			return accept(ctx, l, func(c *net.TCPConn) { h.Connection(ctx, r.arrival(c, addrPort(c.LocalAddr()), true)) })
		})
	}
	for _, c := range r.DNS {
		run(func() error { return answerPackets(ctx, c, h) })
	}
	streams := &tracker{}
	limit := r.DNSStreams
	if limit <= 0 {
		limit = 128
	}
	for _, l := range r.DNSTCP {
		run(func() error {
			return accept(ctx, l, func(c *net.TCPConn) {
				if !streams.enter(limit) {
					reset(c)
					return
				}
				wg.Go(func() {
					defer streams.leave()
					answerStream(ctx, c, h)
				})
			})
		})
	}
	<-ctx.Done()
	r.close()
	wg.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func (r *Redirect) close() {
	for _, l := range r.Caught {
		_ = l.Close()
	}
	for _, l := range r.Explicit {
		_ = l.Close()
	}
	for _, l := range r.DNSTCP {
		_ = l.Close()
	}
	for _, c := range r.DNS {
		_ = c.Close()
	}
}

func (r *Redirect) caught(c *net.TCPConn) Arrival {
	original, err := r.Original(c)
	if err != nil {
		original = netip.AddrPort{} // an unknown destination is denied
	}
	return r.arrival(c, original, false)
}

func (r *Redirect) arrival(c *net.TCPConn, original netip.AddrPort, explicit bool) Arrival {
	client := addrPort(c.RemoteAddr())
	return Arrival{Stream: c, Client: client, Original: original, Explicit: explicit,
		Owner: func(ctx context.Context) (Owner, error) {
			if r.Owners == nil {
				return Owner{}, errNobody
			}
			return r.Owners.Owner(ctx, client, original)
		}}
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// accept hands connections to use. Errors that pass (a lack of descriptors)
// are waited out; five in a row end the listener.
func accept(ctx context.Context, l *net.TCPListener, use func(*net.TCPConn)) error {
	wait := 100 * time.Millisecond
	for failed := 0; ; {
		c, err := l.AcceptTCP()
		if err == nil {
			failed, wait = 0, 100*time.Millisecond
			use(c)
			continue
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if failed++; failed >= 5 {
			return fmt.Errorf("accept connections on %s: %w", l.Addr(), err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, 5*time.Second)
	}
}
