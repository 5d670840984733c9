package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/netlink"
	"openshell.dev/openshell/internal/netns"
)

// Why says which part of the fence refused a packet. The zero value is unknown.
type Why uint8

// The reasons.
const (
	Unknown Why = iota
	Denied      // the destination is in a denied set
	Stray       // a protocol that no listener can take, such as UDP
)

// Refusal is a packet that the fence refused.
type Refusal struct {
	Why      Why
	Protocol uint8 // IP protocol number
	// From and To have port 0 for a protocol without ports.
	From, To netip.AddrPort
}

// Log reads the refused packets. One goroutine may Run it.
type Log struct {
	f *os.File
	// Lost is called, when set, each time the kernel dropped reports because
	// they were not read in time. Set it before Run.
	Lost func()
}

// NewLog wraps the Log descriptor of the floor, which it owns from now on.
func NewLog(fd int) (*Log, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("preparing the packet log: %w", err)
	}
	return &Log{f: os.NewFile(uintptr(fd), "packet log")}, nil
}

// Close ends a Run and closes the descriptor.
func (l *Log) Close() error { return l.f.Close() }

// Run passes every refused packet to each until the context ends or the
// descriptor is closed, and then returns nil or the reading error.
func (l *Log) Run(ctx context.Context, each func(Refusal)) error {
	if err := l.f.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("reading the packet log: %w", err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		l.f.SetReadDeadline(time.Unix(1, 0))
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := l.f.Read(buf)
		switch {
		case ctx.Err() != nil, errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.ENOBUFS):
			if l.Lost != nil {
				l.Lost()
			}
			continue
		case err != nil:
			return fmt.Errorf("reading the packet log: %w", err)
		}
		parseLog(buf[:n], each)
	}
}

// Types of nfnetlink_log.
const (
	logPacket  = unix.NFNL_SUBSYS_ULOG << 8
	logPayload = 9  // NFULA_PAYLOAD
	logPrefix  = 10 // NFULA_PREFIX
	genLen     = 4  // struct nfgenmsg
)

// parseLog passes on the readable packets of one datagram. What is not
// readable is dropped: the packet itself was refused all the same.
func parseLog(b []byte, each func(Refusal)) {
	for {
		m, rest, ok, err := netlink.Next(b)
		if err != nil || !ok {
			return
		}
		b = rest
		if m.Type != logPacket || len(m.Data) < genLen {
			continue
		}
		if r, ok := parseRefusal(m.Data[genLen:]); ok {
			each(r)
		}
	}
}

func parseRefusal(attrs []byte) (r Refusal, ok bool) {
	for {
		typ, value, rest, more, err := netlink.NextAttr(attrs)
		if err != nil {
			return Refusal{}, false
		}
		if !more {
			return r, ok
		}
		attrs = rest
		switch typ {
		case logPrefix:
			switch unix.ByteSliceToString(value) {
			case netns.LogDenied:
				r.Why = Denied
			case netns.LogStray:
				r.Why = Stray
			}
		case logPayload:
			r.Protocol, r.From, r.To, ok = parsePacket(value)
		}
	}
}

// parsePacket reads the addresses and, where there are any, the ports of an
// IP packet as a program's own kernel made it. IPv6 extension headers are not
// followed: the protocol is then theirs and the ports are 0.
func parsePacket(p []byte) (proto uint8, from, to netip.AddrPort, ok bool) {
	if len(p) < 20 {
		return 0, from, to, false
	}
	var src, dst netip.Addr
	var ports []byte
	switch p[0] >> 4 {
	case 4:
		header := int(p[0]&15) * 4
		if header < 20 || header > len(p) {
			return 0, from, to, false
		}
		proto = p[9]
		src, dst = netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
		if binary.BigEndian.Uint16(p[6:])&0x1fff == 0 { // only the first fragment has ports
			ports = p[header:]
		}
	case 6:
		if len(p) < 40 {
			return 0, from, to, false
		}
		proto = p[6]
		src, dst = netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
		ports = p[40:]
	default:
		return 0, from, to, false
	}
	var sport, dport uint16
	switch proto {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP, unix.IPPROTO_UDPLITE:
		if len(ports) >= 4 {
			sport, dport = binary.BigEndian.Uint16(ports), binary.BigEndian.Uint16(ports[2:])
		}
	}
	return proto, netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport), true
}
