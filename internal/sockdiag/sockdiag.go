// Package sockdiag works the descriptors of a sandbox's network floor from outside.
//
// It owns the questions the outside half asks of another network namespace
// through sockets that were opened there: who owns a connection (Diag), where a
// captured connection wanted to go (OriginalDst), which packets were refused
// (Log), and the list of destinations refused at connect (Fence). It needs no
// privilege but, for Fence, the user id that owns the sandbox's user namespace.
//
// An answer that does not match the question exactly is an error, never a
// guess. It takes no decision and looks up no process: the launcher maps a
// socket's inode to processes. The supervisor's side calls it.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/netlink"
	"openshell.dev/openshell/internal/netns"
)

// ErrNoSocket means that no such connection exists, or no longer.
var ErrNoSocket = errors.New("no such socket")

// Socket is one end of a TCP connection inside the sandbox.
type Socket struct {
	// Inode is the socket's file number; 0 once the program has closed it,
	// and then nobody owns it.
	Inode uint64
	UID   uint32 // as the sandbox's user namespace numbers it
	// Cookie identifies the socket for the life of the kernel.
	Cookie uint64
	Cgroup uint64 // cgroup id, 0 if the kernel does not say
	State  uint8  // TCP state, 1 is established
}

// Diag asks about sockets. It is safe for concurrent use.
type Diag struct {
	mu  sync.Mutex // one exchange at a time; the kernel answers inside the send
	fd  int
	seq uint32
}

// NewDiag wraps a NETLINK_SOCK_DIAG descriptor. The caller keeps and closes it.
func NewDiag(fd int) *Diag { return &Diag{fd: fd} }

// devices to try. A socket bound to a device is only found by a question that
// names it.
var devices = netns.Devices()

// Lookup finds the program's end of a connection: local is the program's
// address, remote the destination it asked for (before any redirection).
// IPv4 and IPv4-mapped addresses mean the same.
func (d *Diag) Lookup(local, remote netip.AddrPort) (Socket, error) {
	local, remote = unmap(local), unmap(remote)
	if !local.IsValid() || !remote.IsValid() || local.Addr().Is4() != remote.Addr().Is4() {
		return Socket{}, fmt.Errorf("looking up %v to %v: addresses of one family are needed", local, remote)
	}
	for _, device := range devices {
		s, err := d.ask(local, remote, device)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, ErrNoSocket) {
			return Socket{}, fmt.Errorf("looking up %v to %v: %w", local, remote, err)
		}
	}
	return Socket{}, ErrNoSocket
}

// requestType is SOCK_DIAG_BY_FAMILY, of questions and of answers.
const requestType = 20

// anyCookie is INET_DIAG_NOCOOKIE.
const anyCookie = ^uint64(0)

func (d *Diag) ask(local, remote netip.AddrPort, device uint32) (s Socket, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seq++
	var b netlink.Batch
	// Asked with an acknowledgement, so that the answer has a known end.
	b.Message(requestType, unix.NLM_F_ACK, d.seq)
	b.Raw(request(local, remote, device)...)
	found := false
	err = netlink.Exchange(d.fd, b.Bytes(), d.seq, d.seq, func(m netlink.Message) error {
		if m.Type != requestType {
			return nil
		}
		got, err := parseSocket(m.Data)
		if err != nil {
			return err
		}
		// The kernel may offer a listener in place of a connection.
		if got.local == local && got.remote == remote {
			s, found = got.Socket, true
		}
		return nil
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return Socket{}, ErrNoSocket
	case err != nil:
		return Socket{}, err
	case !found:
		return Socket{}, ErrNoSocket
	}
	return s, nil
}

// request is struct inet_diag_req_v2: family, protocol, extensions, padding,
// states, then the socket: ports, addresses, device, cookie.
func request(local, remote netip.AddrPort, device uint32) []byte {
	b := make([]byte, 0, 56)
	family := byte(unix.AF_INET6)
	if local.Addr().Is4() {
		family = unix.AF_INET
	}
	b = append(b, family, unix.IPPROTO_TCP, 0xff, 0)
	b = binary.NativeEndian.AppendUint32(b, ^uint32(0))
	b = binary.BigEndian.AppendUint16(b, local.Port())
	b = binary.BigEndian.AppendUint16(b, remote.Port())
	b = appendAddr(b, local.Addr())
	b = appendAddr(b, remote.Addr())
	b = binary.NativeEndian.AppendUint32(b, device)
	return binary.NativeEndian.AppendUint64(b, anyCookie)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	s := a.AsSlice()
	return append(append(b, s...), make([]byte, 16-len(s))...)
}

// answer is a parsed struct inet_diag_msg.
type answer struct {
	Socket
	local, remote netip.AddrPort
}

const (
	answerLen    = 72
	attrCgroupID = 21 // INET_DIAG_CGROUP_ID
)

func parseSocket(data []byte) (answer, error) {
	if len(data) < answerLen {
		return answer{}, netlink.ErrMalformed
	}
	a := answer{
		local:  unmap(addrPort(data[0], data[8:24], data[4:6])),
		remote: unmap(addrPort(data[0], data[24:40], data[6:8])),
	}
	a.State = data[1]
	a.Cookie = binary.NativeEndian.Uint64(data[44:])
	a.UID = binary.NativeEndian.Uint32(data[64:])
	a.Inode = uint64(binary.NativeEndian.Uint32(data[68:]))
	for attrs := data[answerLen:]; ; {
		typ, value, rest, ok, err := netlink.NextAttr(attrs)
		if err != nil || !ok {
			return a, err
		}
		if typ == attrCgroupID && len(value) == 8 {
			a.Cgroup = binary.NativeEndian.Uint64(value)
		}
		attrs = rest
	}
}

// addrPort reads an address of the given family; an unknown family gives the
// invalid address, which equals no question.
func addrPort(family byte, addr, port []byte) netip.AddrPort {
	var ip netip.Addr
	switch family {
	case unix.AF_INET:
		ip = netip.AddrFrom4([4]byte(addr))
	case unix.AF_INET6:
		ip = netip.AddrFrom16([16]byte(addr))
	}
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(port))
}

// unmap removes the IPv4-mapped form and a zone.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
