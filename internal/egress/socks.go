package egress

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// Requests of SOCKS5 (RFC 1928, 4 and 5).
const (
	socksConnect = 1
	socksIPv4    = 1
	socksName    = 3
	socksIPv6    = 4
)

// socksAnswer is a reply with the unspecified address: where we dialled from is
// not the program's business (RFC 1928, 6).
func socksAnswer(code byte) []byte {
	return []byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0}
}

// SOCKS5 replies (RFC 1928, 6).
const (
	socksSucceeded   = 0
	socksFailed      = 1
	socksNotAllowed  = 2
	socksUnreachable = 4
	socksNoCommand   = 7
	socksNoAddress   = 8
	socksNoMethod    = 0xff
)

// socks handles SOCKS version 5 (RFC 1928) without authentication, CONNECT only.
func (p *Proxy) socks(ctx context.Context, a *Arrival) {
	in, answer, err := socksRequest(a.Stream)
	_ = a.Stream.SetDeadline(time.Time{}) // the rest has time limits of its own
	if err != nil {
		if answer == nil {
			answer = []byte{}
		}
		p.malformed(a, Socks5, err.Error(), answer)
		return
	}
	in, d := p.explicitIntent(in, a)
	var l *live
	if d == nil {
		l, d = p.admit(ctx, a, in)
	}
	if d != nil {
		code := byte(socksNotAllowed)
		if d.Code == codeUnreachable {
			code = socksUnreachable
		}
		p.answer(a.Stream, socksAnswer(code))
		return
	}
	if _, err := a.Stream.Write(socksAnswer(socksSucceeded)); err != nil {
		l.cut()
	}
	p.carry(l)
}

// parseSocksHost turns the address of a SOCKS request into a canonical host.
func parseSocksHost(kind byte, raw []byte) (string, netip.Addr, error) {
	if kind == socksName {
		return canonicalHost(string(raw))
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok {
		return "", netip.Addr{}, errHost
	}
	addr = addr.Unmap()
	return addr.String(), addr, nil
}

// socksRequest reads greeting and request; the version byte of the greeting
// is already read. With an error comes the answer to give, if there is one.
func socksRequest(s io.ReadWriter) (in Intent, answer []byte, err error) {
	var b [256]byte
	if _, err := io.ReadFull(s, b[:1]); err != nil {
		return in, nil, fmt.Errorf("SOCKS greeting: %w", err)
	}
	methods := b[:b[0]]
	if _, err := io.ReadFull(s, methods); err != nil {
		return in, nil, fmt.Errorf("SOCKS greeting: %w", err)
	}
	if !bytes.Contains(methods, []byte{0}) {
		return in, []byte{5, socksNoMethod}, errors.New("SOCKS client offers no method without authentication")
	}
	if _, err := s.Write([]byte{5, 0}); err != nil {
		return in, nil, fmt.Errorf("SOCKS greeting: %w", err)
	}
	if _, err := io.ReadFull(s, b[:4]); err != nil {
		return in, nil, fmt.Errorf("SOCKS request: %w", err)
	}
	version, command, reserved, kind := b[0], b[1], b[2], b[3]
	if version != 5 || reserved != 0 {
		return in, socksAnswer(socksFailed), errors.New("SOCKS request is malformed")
	}
	length := 0
	switch kind {
	case socksIPv4:
		length = 4
	case socksIPv6:
		length = 16
	case socksName:
		if _, err := io.ReadFull(s, b[:1]); err != nil {
			return in, nil, fmt.Errorf("SOCKS request: %w", err)
		}
		length = int(b[0])
	default:
		return in, socksAnswer(socksNoAddress), fmt.Errorf("SOCKS address type %d", kind)
	}
	raw := b[:length]
	if _, err := io.ReadFull(s, raw); err != nil {
		return in, nil, fmt.Errorf("SOCKS request: %w", err)
	}
	var port [2]byte
	if _, err := io.ReadFull(s, port[:]); err != nil {
		return in, nil, fmt.Errorf("SOCKS request: %w", err)
	}
	in.How, in.Port = Socks5, binary.BigEndian.Uint16(port[:])
	if command != socksConnect {
		return in, socksAnswer(socksNoCommand), fmt.Errorf("SOCKS command %d: only CONNECT is possible", command)
	}
	if in.Host, in.Addr, err = parseSocksHost(kind, raw); err != nil || in.Port == 0 {
		return in, socksAnswer(socksNotAllowed), errors.New("SOCKS destination is not a host and a port")
	}
	return in, nil, nil
}
