package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/netlink"
)

// originalDst reads SO_ORIGINAL_DST, or its IPv6 twin of the same number, into
// a buffer as large as the larger socket address.
func originalDst(fd uintptr, four bool) (netip.AddrPort, error) {
	level, want := unix.SOL_IPV6, unix.SizeofSockaddrInet6
	if four {
		level, want = unix.SOL_IP, unix.SizeofSockaddrInet4
	}
	var buf [unix.SizeofSockaddrInet6]byte
	size := uint32(want)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, uintptr(level), unix.SO_ORIGINAL_DST,
		uintptr(unsafe.Pointer(&buf)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	return parseSockaddr(buf[:min(int(size), len(buf))])
}

// parseSockaddr reads struct sockaddr_in or sockaddr_in6.
func parseSockaddr(b []byte) (netip.AddrPort, error) {
	if len(b) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}, netlink.ErrMalformed
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), nil
	case family == unix.AF_INET6 && len(b) >= unix.SizeofSockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), port), nil
	}
	return netip.AddrPort{}, netlink.ErrMalformed
}
