package sockdiag

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// ErrNotCaptured means that a connection was made to our listener itself and
// so wanted to go nowhere else.
var ErrNotCaptured = errors.New("the connection was not redirected")

// OriginalDst returns the destination that the program asked for, for a
// connection accepted on a capturing listener (TCP4, TCP6, DNSTCP4, DNSTCP6).
// It is ErrNotCaptured for one that a program made to the listener itself, so
// that the outside half never dials its own listener.
func OriginalDst(c *net.TCPConn) (netip.AddrPort, error) {
	local, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, errors.New("reading the original destination: no local address")
	}
	self := unmap(local.AddrPort())
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the original destination: %w", err)
	}
	var dst netip.AddrPort
	var optErr error
	err = raw.Control(func(fd uintptr) { dst, optErr = originalDst(fd, self.Addr().Is4()) })
	if err = errors.Join(err, optErr); err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the original destination: %w", err)
	}
	if dst == self {
		return netip.AddrPort{}, ErrNotCaptured
	}
	return dst, nil
}
