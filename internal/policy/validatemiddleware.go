package policy

import (
	"fmt"
	"strings"
)

// Bounds of middlewares.
const (
	maxMiddlewares = 10
	maxSelectors   = 32
)

func (c *checker) middlewares() {
	ms := c.d.Middlewares
	if len(ms) > maxMiddlewares {
		c.add(Invalid, "network_middlewares", "at most %d middlewares are allowed, there are %d", maxMiddlewares, len(ms))
	}
	orders := map[int32]string{}
	for i := range ms {
		m := &ms[i]
		path := join("network_middlewares", m.Key)
		if m.Key == "" {
			c.add(Invalid, path, "the key of a middleware may not be empty")
		}
		if m.Middleware == "" {
			c.add(Decode, path+".middleware", "missing field `middleware`")
		}
		if other, dup := orders[m.Order]; dup {
			c.add(Invalid, path+".order", "order %d is also that of %q; each needs its own", m.Order, clip(other))
		}
		orders[m.Order] = m.Key
		if len(m.Include) == 0 {
			c.add(Invalid, path+".endpoints", "endpoints.include needs at least one host pattern")
		}
		if n := len(m.Include) + len(m.Exclude); n > maxSelectors {
			c.add(Invalid, path+".endpoints", "at most %d host patterns are allowed, there are %d", maxSelectors, n)
		}
		for j, s := range m.Include {
			c.selector(s, index(path+".endpoints.include", j))
		}
		for j, s := range m.Exclude {
			c.selector(s, index(path+".endpoints.exclude", j))
		}
		if m.deniesUninspectable() {
			c.uninspectable(m, path)
		}
	}
}

func (c *checker) selector(s, path string) {
	if err := CheckSelector(s); err != nil {
		c.add(Invalid, path, "%q: %v", clip(s), err)
	}
}

// CheckSelector reports why s cannot select hosts for a middleware: labels of
// "*", "**" (one or more labels), or text with "*" inside, without a port.
func CheckSelector(s string) error {
	if len(s) > maxHost {
		return fmt.Errorf("the pattern is longer than 253 bytes")
	}
	if strings.Contains(s, ":") && !isLiteral(s) {
		return fmt.Errorf("a host pattern may not contain a port")
	}
	if isLiteral(s) {
		return nil
	}
	if err := hostBytes(strings.ToLower(s)); err != nil {
		return err
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return fmt.Errorf("empty label")
		case label != "**" && strings.Contains(label, "**"):
			return fmt.Errorf("** must be a whole label")
		}
	}
	return nil
}

// deniesUninspectable is on_uninspectable with its defaults applied.
func (m *Middleware) deniesUninspectable() bool {
	switch m.OnUninspectable {
	case UninspectableAllow:
		return false
	case UninspectableDeny:
		return true
	case UninspectableUnspecified:
	}
	return m.OnError != FailOpen
}

// uninspectable refuses a middleware that must read what is relayed unread.
func (c *checker) uninspectable(m *Middleware, path string) {
	for i := range c.d.Rules {
		r := &c.d.Rules[i]
		for j := range r.Endpoints {
			e := &r.Endpoints[j]
			if e.TLS == TLSSkip && m.maySelect(e.Host) {
				c.add(Invalid, path+".endpoints", "may select %s of network_policies.%s, whose tls: skip cannot be inspected; exclude that host or set on_uninspectable: allow", e.Host, r.Key)
				return
			}
		}
	}
}

// maySelect reports whether a host of the pattern may be selected. An exact
// host that is excluded is not.
func (m *Middleware) maySelect(pattern string) bool {
	hit := pattern == ""
	host := strings.Split(strings.ToLower(pattern), ".")
	for _, s := range m.Include {
		hit = hit || labelsOverlap(strings.Split(strings.ToLower(s), "."), host)
	}
	if !hit {
		return false
	}
	for _, s := range m.Exclude {
		if strings.EqualFold(s, pattern) {
			return false
		}
		if !strings.Contains(pattern, "*") && pattern != "" && labelsOverlap(strings.Split(strings.ToLower(s), "."), host) {
			return false
		}
	}
	return true
}

// labelsOverlap reports whether two lists of labels with "*", "**" and inner
// stars have a name in common.
func labelsOverlap(a, b []string) bool {
	row := make([]bool, len(b)+1)
	for i := len(a); i >= 0; i-- {
		next := row
		row = make([]bool, len(b)+1)
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a) || j == len(b):
				row[j] = i == len(a) && j == len(b)
			case a[i] == "**" || b[j] == "**":
				// One label each, then "**" may go on.
				row[j] = next[j+1] || a[i] == "**" && row[j+1] || b[j] == "**" && next[j]
			default:
				row[j] = next[j+1] && wildOverlap(a[i], b[j])
			}
		}
	}
	return row[0]
}
