package policy

import (
	"errors"
	"net/netip"
	"strings"
)

// HostPattern is a host of a rule: a name, an address, or a pattern.
//
// "*" as a whole label stands for exactly one label, inside the first label
// for any characters but a dot; "**" as the whole first label stands for one
// or more labels, not for none. A pattern has at least three labels, so that
// nobody can name a whole top-level domain. The zero value matches nothing.
type HostPattern struct {
	text     string   // canonical, lower case
	labels   []string // from the left; empty for an exact host
	wildcard bool
}

const maxHost = 253 // RFC 1035

// ParseHost reads the host of an endpoint.
func ParseHost(s string) (HostPattern, error) {
	if len(s) > maxHost+1 {
		return HostPattern{}, errors.New("the host is longer than 253 bytes")
	}
	text := strings.ToLower(s)
	if !strings.Contains(text, "*") {
		name, err := CanonicalHost(text)
		if err != nil {
			return HostPattern{}, err
		}
		if strings.HasSuffix(text, ".") {
			return HostPattern{}, errors.New("the trailing dot would never match; leave it out")
		}
		return HostPattern{text: name}, nil
	}
	if err := hostBytes(text); err != nil {
		return HostPattern{}, err
	}
	labels := strings.Split(text, ".")
	if len(labels) < 3 {
		return HostPattern{}, errors.New("TLD wildcard '" + clip(s) + "' is not allowed: it would match every site below it; name the site, for example \"*.example.com\"")
	}
	for i, l := range labels {
		switch {
		case l == "":
			return HostPattern{}, errors.New("invalid host wildcard: empty label")
		case i == 0 && strings.Contains(l, "**") && l != "**":
			return HostPattern{}, errors.New("invalid host wildcard: ** must be the whole first label")
		case i > 0 && strings.Contains(l, "**"):
			return HostPattern{}, errors.New("invalid host wildcard: ** is allowed only as the first label")
		case i > 0 && l != "*" && strings.Contains(l, "*"):
			return HostPattern{}, errors.New("invalid host wildcard: * inside a label is allowed only in the first label")
		}
	}
	return HostPattern{text: text, labels: labels, wildcard: true}, nil
}

// String returns the canonical form.
func (p HostPattern) String() string { return p.text }

// Exact reports whether the pattern stands for one host only.
func (p HostPattern) Exact() bool { return !p.wildcard }

// Labels returns the labels of a wildcard pattern, from the left. The caller
// must not change them.
func (p HostPattern) Labels() []string { return p.labels }

// Match reports whether the pattern covers host, which must be canonical. It
// does not allocate.
func (p HostPattern) Match(host string) bool {
	if !p.wildcard {
		return p.text != "" && p.text == host
	}
	rest := host
	for i := len(p.labels) - 1; i > 0; i-- {
		dot := strings.LastIndexByte(rest, '.')
		if dot < 0 {
			return false
		}
		label := rest[dot+1:]
		if label == "" || p.labels[i] != "*" && p.labels[i] != label {
			return false
		}
		rest = rest[:dot]
	}
	if p.labels[0] == "**" {
		return rest != "" && rest[0] != '.' && rest[len(rest)-1] != '.' && !strings.Contains(rest, "..")
	}
	return MatchLabel(p.labels[0], rest)
}

// MatchLabel reports whether a label with "*" inside covers label, which may
// not be empty nor contain a dot.
func MatchLabel(pattern, label string) bool {
	if label == "" || strings.IndexByte(label, '.') >= 0 {
		return false
	}
	return wild(pattern, label)
}

// wild matches "*" against any run of bytes. Only the last star needs to be
// tried again, so this is at most quadratic.
func wild(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// Overlaps reports whether some host is covered by both patterns.
func (p HostPattern) Overlaps(q HostPattern) bool {
	switch {
	case !p.wildcard:
		return q.Match(p.text)
	case !q.wildcard:
		return p.Match(q.text)
	}
	a, b := p.labels, q.labels
	for len(a) > 1 && len(b) > 1 {
		x, y := a[len(a)-1], b[len(b)-1]
		if x != y && x != "*" && y != "*" {
			return false
		}
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	switch {
	case a[0] == "**" && len(a) == 1:
		return true // b has at least one label left
	case b[0] == "**" && len(b) == 1:
		return true
	case len(a) != len(b):
		return false
	}
	return wildOverlap(a[0], b[0])
}

// wildOverlap reports whether two patterns with "*" for any run of bytes have
// a string in common.
func wildOverlap(a, b string) bool {
	// row[j]: a[i:] and b[j:] have a string in common.
	row := make([]bool, len(b)+1)
	for i := len(a); i >= 0; i-- {
		next := row
		row = make([]bool, len(b)+1)
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a) && j == len(b):
				row[j] = true
			case i < len(a) && a[i] == '*':
				row[j] = next[j] || j < len(b) && row[j+1]
			case j < len(b) && b[j] == '*':
				row[j] = row[j+1] || i < len(a) && next[j]
			case i < len(a) && j < len(b) && a[i] == b[j]:
				row[j] = next[j+1]
			}
		}
	}
	return row[0]
}

// CanonicalHost returns the one spelling by which a destination is judged:
// lower case, no brackets, no trailing dot, addresses as netip writes them.
// Names that some resolvers would read as an address in another spelling
// ("127.1", "0x7f000001") are refused, as is everything that is no host.
func CanonicalHost(s string) (string, error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		if !ok || err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", errors.New("this is not an IPv6 address in brackets")
		}
		return addr.String(), nil
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr.Zone() != "" {
			return "", errors.New("an address may not have a zone")
		}
		return addr.String(), nil
	}
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	switch {
	case s == "":
		return "", errors.New("the host is empty")
	case len(s) > maxHost:
		return "", errors.New("the host is longer than 253 bytes")
	}
	if err := hostBytes(s); err != nil {
		return "", err
	}
	if strings.IndexByte(s, '*') >= 0 || strings.IndexByte(s, ':') >= 0 {
		return "", errors.New("this is neither a name nor an address")
	}
	label := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			label++
			continue
		}
		if label == 0 || label > 63 {
			return "", errors.New("a label must have 1 to 63 bytes")
		}
		label = 0
	}
	if numberLike(s[strings.LastIndexByte(s, '.')+1:]) {
		return "", errors.New("this is an address in an unusual spelling")
	}
	return s, nil
}

// numberLike reports whether the last label makes old resolvers read the name
// as an IPv4 address (WHATWG URL, "ends in a number").
func numberLike(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

func hostBytes(s string) error {
	if strings.Contains(s, "://") {
		return errors.New("write the host only, without scheme and path")
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '*', c == ':':
		case c >= 0x80:
			return errors.New("write the name in its ASCII form (xn--...)")
		default:
			return errors.New("a host has letters, digits, hyphens and dots only")
		}
	}
	return nil
}
