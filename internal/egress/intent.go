package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// How says which adapter understood a connection.
type How uint8

// The adapters.
const (
	Transparent How = iota + 1 // caught on its way to an address
	Connect                    // HTTP CONNECT
	Forward                    // HTTP/1.1 absolute-form
	Socks5                     // SOCKS version 5
)

// String returns the adapter's word in events.
func (h How) String() string {
	switch h {
	case Transparent:
		return "transparent"
	case Connect:
		return "connect"
	case Forward:
		return "forward"
	case Socks5:
		return "socks5"
	}
	return "unknown"
}

// Intent is what a program wants to reach, in the one form that is decided,
// resolved and dialled.
type Intent struct {
	Host string     // a name in canonical form, or the address in canonical form
	Addr netip.Addr // valid if Host is an address
	Port uint16
	How  How
	// Method and Target are those of a forwarded request, for messages only.
	Method, Target string
}

// Authority returns host:port.
func (i Intent) Authority() string {
	return net.JoinHostPort(i.Host, strconv.Itoa(int(i.Port)))
}

var (
	errHost    = errors.New("not a host name")
	errNumeric = errors.New("an address in an unusual form")
	errZone    = errors.New("an address with a zone")
)

const maxHost = 253 // RFC 1035, 2.3.4, without the final dot

// canonicalHost returns the only form of s that is decided and dialled: an
// address (unmapped, no zone), or a name of letters, digits, hyphens and
// underscores in lower case without its final dot. Everything else that some
// parser might read as a host (octal, hexadecimal or short addresses,
// Unicode, escapes) is an error, never repaired.
func canonicalHost(s string) (string, netip.Addr, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr.Zone() != "" {
			return "", netip.Addr{}, errZone
		}
		addr = addr.Unmap()
		return addr.String(), addr, nil
	}
	name := strings.TrimSuffix(s, ".")
	if name == "" || len(name) > maxHost {
		return "", netip.Addr{}, errHost
	}
	upper, last := false, 0
	for i := 0; i <= len(name); i++ {
		if i == len(name) || name[i] == '.' {
			if !okLabel(name[last:i]) {
				return "", netip.Addr{}, errHost
			}
			if i < len(name) {
				last = i + 1
			}
			continue
		}
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		case c >= 'A' && c <= 'Z':
			upper = true
		default:
			return "", netip.Addr{}, errHost
		}
	}
	if upper {
		name = strings.ToLower(name)
	}
	if numeric(name[last:]) {
		return "", netip.Addr{}, errNumeric
	}
	return name, netip.Addr{}, nil
}

func okLabel(l string) bool {
	return l != "" && len(l) <= 63 && l[0] != '-' && l[len(l)-1] != '-'
}

// numeric reports whether a URL parser would take a host that ends in this
// label for an IPv4 address (WHATWG URL, "ends in a number").
func numeric(label string) bool {
	if strings.HasPrefix(label, "0x") {
		_, err := strconv.ParseUint(label[2:]+"0", 16, 64)
		return err == nil || len(label) > 17
	}
	for i := range len(label) {
		if label[i] < '0' || label[i] > '9' {
			return false
		}
	}
	return true
}

// parseAuthority splits host:port as RFC 3986 writes it: brackets around an
// IPv6 address and nothing else, one port in decimal without sign. A missing
// port takes def, which 0 forbids.
func parseAuthority(s string, def uint16) (string, netip.Addr, uint16, error) {
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", netip.Addr{}, 0, fmt.Errorf("authority without a closing bracket")
		}
		host, port = s[1:end], s[end+1:]
		if addr, err := netip.ParseAddr(host); err != nil || !addr.Is6() {
			return "", netip.Addr{}, 0, fmt.Errorf("brackets around something else than an IPv6 address")
		}
		if port != "" && port[0] != ':' {
			return "", netip.Addr{}, 0, errHost
		}
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i:]
	}
	n := def
	if port != "" {
		v, err := parsePort(port[1:])
		if err != nil {
			return "", netip.Addr{}, 0, err
		}
		n = v
	}
	if n == 0 {
		return "", netip.Addr{}, 0, errors.New("no port")
	}
	name, addr, err := canonicalHost(host)
	return name, addr, n, err
}

func parsePort(s string) (uint16, error) {
	if s == "" || len(s) > 5 || s[0] == '0' {
		return 0, errors.New("not a port")
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, errors.New("not a port")
		}
		n = n*10 + int(s[i]-'0')
	}
	if n > 65535 {
		return 0, errors.New("not a port")
	}
	return uint16(n), nil
}
