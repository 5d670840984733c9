package netns

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/netlink"
)

// backlog is the kernel's default upper bound (net.core.somaxconn).
const backlog = 4096

// logBytes is how much of a refused packet the log copies: both headers.
const logBytes = 128

// listeners by index. Each is bound to the very address the fence redirects
// to: a datagram answered from another address would not find its way back.
var listeners = []struct {
	index Index
	typ   int
	addr  unix.Sockaddr
}{
	{HTTP, unix.SOCK_STREAM, at4(proxy4, ProxyPort)},
	{TCP4, unix.SOCK_STREAM, at4(addr4, CapturePort)},
	{TCP6, unix.SOCK_STREAM, at6(addr6, CapturePort)},
	{DNSUDP4, unix.SOCK_DGRAM, at4(addr4, DNSPort)},
	{DNSUDP6, unix.SOCK_DGRAM, at6(addr6, DNSPort)},
	{DNSTCP4, unix.SOCK_STREAM, at4(addr4, DNSPort)},
	{DNSTCP6, unix.SOCK_STREAM, at6(addr6, DNSPort)},
}

func at4(ip []byte, port int) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte(ip)}
}

func at6(ip []byte, port int) unix.Sockaddr {
	return &unix.SockaddrInet6{Port: port, Addr: [16]byte(ip)}
}

// Listen opens the sockets of the floor. Setup must have run. Without IPv6 its
// sockets are -1. On error nothing stays open.
func Listen(rep Report) (s Sockets, err error) {
	for i := range s {
		s[i] = -1
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, l := range listeners {
		if _, six := l.addr.(*unix.SockaddrInet6); six && !rep.IPv6 {
			continue
		}
		if s[l.index], err = listen(l.typ, l.addr); err != nil {
			return s, fmt.Errorf("listening on socket %d of the floor: %w", l.index, err)
		}
	}
	if s[Diag], err = netlink.Open(unix.NETLINK_SOCK_DIAG); err != nil {
		return s, err
	}
	if s[Netfilter], err = netlink.Open(unix.NETLINK_NETFILTER); err != nil {
		return s, err
	}
	if s[Log], err = netlink.Open(unix.NETLINK_NETFILTER); err != nil {
		return s, err
	}
	if err = bindLog(s[Log]); err != nil {
		return s, fmt.Errorf("binding the packet log: %w", err)
	}
	return s, nil
}

// listen makes a plain TCP or UDP socket (never multipath), bound and, for a
// stream, listening. The descriptor is closed on error.
func listen(typ int, addr unix.Sockaddr) (int, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_TCP
	if _, six := addr.(*unix.SockaddrInet6); six {
		family = unix.AF_INET6
	}
	if typ == unix.SOCK_DGRAM {
		proto = unix.IPPROTO_UDP
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return -1, err
	}
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, addr)
	}
	if err == nil && typ == unix.SOCK_STREAM {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Commands and modes of nfnetlink_log, which x/sys/unix does not have.
const (
	ulogMsgConfig   = unix.NFNL_SUBSYS_ULOG<<8 | 1
	ulogAttrCmd     = 1 // NFULA_CFG_CMD
	ulogAttrMode    = 2 // NFULA_CFG_MODE
	ulogAttrQueue   = 5 // NFULA_CFG_QTHRESH
	ulogCmdBind     = 1 // NFULNL_CFG_CMD_BIND
	ulogCopyPacket  = 2 // NFULNL_COPY_PACKET
	ulogOneByOne    = 1 // or packets wait for a hundred others, or a second
	nfnetlinkFamily = unix.AF_UNSPEC
)

// bindLog makes fd receive the packets the fence logs. It must happen inside:
// the kernel checks who opened the socket and who sends.
func bindLog(fd int) error {
	var b netlink.Batch
	group := binary.BigEndian.AppendUint16([]byte{nfnetlinkFamily, unix.NFNETLINK_V0}, LogGroup)
	b.Message(ulogMsgConfig, unix.NLM_F_ACK, 1)
	b.Raw(group...)
	b.Attr(ulogAttrCmd, ulogCmdBind)
	b.Message(ulogMsgConfig, unix.NLM_F_ACK, 2)
	b.Raw(group...)
	mode := binary.BigEndian.AppendUint32(nil, logBytes)
	b.Attr(ulogAttrMode, append(mode, ulogCopyPacket, 0)...)
	b.Attr(ulogAttrQueue, binary.BigEndian.AppendUint32(nil, ulogOneByOne)...)
	return netlink.Exchange(fd, b.Bytes(), 1, 2, nil)
}
