package egress

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Resolver finds the addresses of a name; net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// stagger is how long one address has before the next is tried beside it
// (RFC 8305, 5, "connection attempt delay").
const stagger = 250 * time.Millisecond

// connect resolves once, checks every address and dials the allowed ones, and
// no others, until one answers.
func (p *Proxy) connect(ctx context.Context, s *passage) (net.Conn, netip.AddrPort, *Denial) {
	found, d := p.addresses(ctx, s)
	if d != nil {
		return nil, netip.AddrPort{}, d
	}
	allowed := make([]netip.AddrPort, 0, len(found))
	var refused *Denial
	for _, addr := range found {
		if d := s.checkAddress(p, s.gen, addr); d != nil {
			refused = d
			continue
		}
		allowed = append(allowed, netip.AddrPortFrom(addr.Unmap(), s.intent.Port))
	}
	if len(allowed) == 0 {
		return nil, netip.AddrPort{}, refused
	}
	ctx, cancel := context.WithTimeout(ctx, 3*p.limits.Dial)
	defer cancel()
	conn, to, err := p.race(ctx, interleave(allowed))
	if err != nil {
		return nil, to, s.failed("the destination did not answer", err)
	}
	return conn, to, nil
}

// dialOne dials one address within its time.
func (p *Proxy) dialOne(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.limits.Dial)
	defer cancel()
	return p.opts.Dial(ctx, to)
}

// race dials the addresses in order, each after the one before failed or had
// its head start, and returns the first that answers. A host whose IPv6 leads
// nowhere must not cost its users ten seconds a connection.
func (p *Proxy) race(ctx context.Context, addrs []netip.AddrPort) (net.Conn, netip.AddrPort, error) {
	if len(addrs) == 1 {
		conn, err := p.dialOne(ctx, addrs[0])
		return conn, addrs[0], err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		to   netip.AddrPort
		err  error
	}
	results := make(chan result, len(addrs))
	timer := time.NewTimer(stagger)
	defer timer.Stop()
	var won *result
	var last error
	next, running := 0, 0
	for won == nil && (next < len(addrs) || running > 0) {
		if next < len(addrs) {
			to := addrs[next]
			next++
			running++
			go func() {
				conn, err := p.dialOne(ctx, to)
				results <- result{conn, to, err}
			}()
			timer.Reset(stagger)
		}
		wait := timer.C
		if next == len(addrs) {
			wait = nil
		}
		select {
		case r := <-results:
			running--
			if r.err == nil {
				won = &r
			} else {
				last = r.err
			}
		case <-wait:
		}
	}
	cancel()
	for ; running > 0; running-- { // the losers
		if r := <-results; r.err == nil {
			reset(r.conn)
		}
	}
	if won == nil {
		return nil, netip.AddrPort{}, last
	}
	return won.conn, won.to, nil
}

// interleave alternates the families, beginning with the first that the
// resolver prefers (RFC 8305, 4).
func interleave(in []netip.AddrPort) []netip.AddrPort {
	var first, other []netip.AddrPort
	for _, a := range in {
		if a.Addr().Is4() == in[0].Addr().Is4() {
			first = append(first, a)
		} else {
			other = append(other, a)
		}
	}
	out := make([]netip.AddrPort, 0, len(in))
	for i := 0; i < len(first) || i < len(other); i++ {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(other) {
			out = append(out, other[i])
		}
	}
	return out
}

// dialTCP opens a plain connection. Keep-alive probes find dead peers; only
// the idle time is set, to spare two system calls a connection.
func dialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: -1, Count: -1}}
	return d.DialContext(ctx, "tcp", to.String())
}
