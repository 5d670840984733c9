package egress

import (
	"context"
	"errors"
	"net"
	"time"
)

// explicit handles a connection whose program meant to talk to a proxy. The
// first byte tells the protocols apart.
func (p *Proxy) explicit(ctx context.Context, a *Arrival) {
	s := a.Stream
	if s.SetDeadline(time.Now().Add(p.limits.Handshake)) != nil {
		reset(s)
		return
	}
	var first [1]byte
	if n, err := s.Read(first[:]); n == 0 || err != nil {
		_ = s.Close() // a probe: it connected and left, or stayed silent
		return
	}
	switch c := first[0]; {
	case c == 5:
		p.socks(ctx, a)
	case c == 4:
		// SOCKS 4 and 4a: request rejected.
		p.malformed(a, Socks5, "SOCKS version 4 is not spoken here, use version 5", []byte{0, 0x5b, 0, 0, 0, 0, 0, 0})
	case c >= 'A' && c <= 'Z':
		p.http(ctx, a, first[:])
	default:
		p.malformed(a, Connect, "neither HTTP nor SOCKS", nil)
	}
}

// http reads one request head and hands the connection to its adapter.
func (p *Proxy) http(ctx context.Context, a *Arrival, first []byte) {
	raw, rest, err := readHead(a.Stream, first, maxRequestHead)
	_ = a.Stream.SetDeadline(time.Time{}) // the rest has time limits of its own
	if err == nil {
		var h *head
		if h, err = parseRequest(raw); err == nil {
			if h.method == "CONNECT" {
				p.tunnel(ctx, a, h, rest)
			} else {
				p.forward(ctx, a, h, rest)
			}
			return
		}
	}
	var timeout net.Error
	switch {
	case errors.Is(err, errHeadSize):
		p.malformed(a, Connect, err.Error(), headTooLarge)
	case errors.Is(err, errSyntax):
		p.malformed(a, Connect, err.Error(), badRequest)
	case errors.As(err, &timeout) && timeout.Timeout():
		p.malformed(a, Connect, "the request did not arrive in time", nil)
	default:
		_ = a.Stream.Close()
	}
}

// tunnel handles CONNECT: its target decides, nothing else of the head does.
// Bytes that came behind the head are the first of the tunnel.
func (p *Proxy) tunnel(ctx context.Context, a *Arrival, h *head, rest []byte) {
	host, addr, port, err := parseAuthority(h.target, 0)
	if err != nil {
		p.malformed(a, Connect, "CONNECT target: "+err.Error(), badRequest)
		return
	}
	in, d := p.explicitIntent(Intent{Host: host, Addr: addr, Port: port, How: Connect}, a)
	var l *live
	if d == nil {
		l, d = p.admit(ctx, a, in)
	}
	if d != nil {
		p.answer(a.Stream, d.response())
		return
	}
	l.early = rest
	if _, err := a.Stream.Write([]byte("HTTP/1.1 200 Connection Established\r\n\r\n")); err != nil {
		l.cut()
	}
	p.carry(l)
}

// explicitIntent replaces a synthetic address that a client resolved itself
// by its name. The denial is already reported.
func (p *Proxy) explicitIntent(in Intent, a *Arrival) (Intent, *Denial) {
	named, why := p.named(in)
	if why == "" {
		return named, nil
	}
	s := &passage{intent: in, client: a.Client}
	d := s.denied(codeAddress, "", why)
	p.report(d)
	return in, d
}
