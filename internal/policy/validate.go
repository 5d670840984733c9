package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ReservedPrefix begins the keys of rules that provider composition makes.
const ReservedPrefix = "_provider_"

// Bounds of the static sections.
const (
	MaxPathBytes = 4096
	MaxPaths     = 256
)

// Validate returns every violation of a document, however it was made. A
// document that Parse returned has none. Rules with the reserved prefix are
// not judged here (see ReservedKeys): a composed policy has them.
func Validate(d *Document) []Violation {
	c := &checker{d: d}
	c.static()
	for i := range d.Rules {
		r := &d.Rules[i]
		path := join("network_policies", r.Key)
		if r.Key == "" {
			c.add(Invalid, path, "the key of a rule may not be empty")
		}
		if i > 0 && d.Rules[i-1].Key >= r.Key {
			c.add(Invalid, path, "rules are not in ascending order of their keys")
		}
		for j := range r.Endpoints {
			c.endpoint(&r.Endpoints[j], index(path+".endpoints", j))
		}
		for j, b := range r.Binaries {
			c.binary(b, index(path+".binaries", j))
		}
	}
	c.middlewares()
	return c.vs
}

// ReservedKeys returns a violation for each rule whose key only provider
// composition may use. Policies of users are checked with it.
func ReservedKeys(d *Document) []Violation {
	c := &checker{d: d}
	for i := range d.Rules {
		if key := d.Rules[i].Key; strings.HasPrefix(key, ReservedPrefix) {
			c.add(Unsafe, join("network_policies", key), "key '%s' uses the reserved '%s' prefix for provider composition; start from `policy get <sandbox> --base`", clip(key), ReservedPrefix)
		}
	}
	return c.vs
}

type checker struct {
	d  *Document
	vs []Violation
}

func (c *checker) add(class Class, path, format string, args ...any) {
	if len(c.vs) < maxViolations {
		c.vs = append(c.vs, Violation{Class: class, Pos: c.d.At(path), Path: path, Text: fmt.Sprintf(format, args...)})
	}
}

func (c *checker) static() {
	if f := c.d.Filesystem; f != nil {
		c.paths("filesystem_policy.read_only", f.ReadOnly, false)
		c.paths("filesystem_policy.read_write", f.ReadWrite, true)
		if n := len(f.ReadOnly) + len(f.ReadWrite); n > MaxPaths {
			c.add(Unsafe, "filesystem_policy", "too many filesystem paths (%d > %d)", n, MaxPaths)
		}
	}
	if p := c.d.Process; p != nil {
		c.identity("process.run_as_user", "run_as_user", p.RunAsUser)
		c.identity("process.run_as_group", "run_as_group", p.RunAsGroup)
	}
	if u := c.d.UI; u != nil && !u.AllowGraphicalUI {
		if u.Clipboard != ClipboardNone {
			c.add(Invalid, "ui.clipboard", "clipboard needs allow_graphical_ui: true")
		}
		if u.AllowInputInjection {
			c.add(Invalid, "ui.allow_input_injection", "allow_input_injection needs allow_graphical_ui: true")
		}
	}
}

func (c *checker) paths(at string, paths []string, write bool) {
	for i, p := range paths {
		path := index(at, i)
		switch {
		case len(p) > MaxPathBytes:
			c.add(Unsafe, path, "path exceeds maximum length (%d > %d): %s", len(p), MaxPathBytes, clip(p))
		case strings.IndexByte(p, 0) >= 0:
			c.add(Unsafe, path, "path contains a NUL byte: %q", clip(p))
		case !strings.HasPrefix(p, "/"):
			c.add(Unsafe, path, "path must be absolute (start with '/'): %s", clip(p))
		case dotdot(p):
			c.add(Unsafe, path, "path contains '..' traversal component: %s", clip(p))
		case write && strings.Trim(p, "/.") == "":
			c.add(Unsafe, path, "read-write path is overly broad: %s", clip(p))
		}
	}
}

func dotdot(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

func (c *checker) identity(path, name, v string) {
	if v == "" || v == "sandbox" {
		return
	}
	id, err := strconv.ParseUint(v, 10, 32)
	if err != nil || id == 0 || id == 1<<32-1 || strconv.FormatUint(id, 10) != v {
		c.add(Unsafe, path, "%s must be 'sandbox' or a numeric UID/GID in range [1, 4294967294], got '%s'", name, clip(v))
	}
}

func (c *checker) binary(b Binary, path string) {
	switch {
	case b.Path == "":
		c.add(Decode, path+".path", "missing field `path`")
	case len(b.Path) > MaxPathBytes:
		c.add(Unsafe, path, "path exceeds maximum length (%d > %d): %s", len(b.Path), MaxPathBytes, clip(b.Path))
	case strings.Contains(b.Path, "*"):
		if _, err := CompileGlob(b.Path, '/'); err != nil {
			c.add(Invalid, path, "invalid glob %q: %v", clip(b.Path), err)
		}
	}
}

// destination checks host, ports and addresses of an endpoint.
func (c *checker) destination(e *Endpoint, path string) {
	switch pattern, err := ParseHost(e.Host); {
	case e.Host == "" && (len(e.AllowedIPs) == 0 || e.Protocol == TCP):
		c.add(Unsafe, path+".host", "endpoint host must not be empty unless allowed_ips constrains a non-TCP proxy endpoint")
	case e.Host == "":
	case err != nil:
		c.add(Unsafe, path+".host", "%q: %v", clip(e.Host), err)
	case e.Protocol == TCP && isLiteral(pattern.String()):
		c.add(Unsafe, path+".host", "protocol tcp needs a DNS name, %q is an address", clip(e.Host))
	}
	if len(e.Ports) == 0 {
		c.add(Unsafe, path+".port", "must declare at least one port")
	}
	for i, p := range e.Ports {
		if p == 0 {
			c.add(Unsafe, index(path+".ports", i), "has invalid port 0; expected 1..=65535")
		}
	}
	if e.Path != "" {
		if e.Path != "**" && !strings.HasPrefix(e.Path, "/") {
			c.add(Invalid, path+".path", "%q must start with / or be **", clip(e.Path))
		} else {
			c.glob(e.Path, '/', path+".path")
		}
	}
	for i, ip := range e.AllowedIPs {
		if _, err := ParseAllowedIP(ip); err != nil {
			c.add(Invalid, index(path+".allowed_ips", i), "%q is neither an address nor a prefix such as 10.0.0.0/8", clip(ip))
		}
	}
}

func (c *checker) glob(pattern string, sep byte, path string) {
	if _, err := CompileGlob(pattern, sep); err != nil {
		c.add(Invalid, path, "invalid glob %q: %v", clip(pattern), err)
	}
}

func isLiteral(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// ParseAllowedIP reads an entry of allowed_ips: an address or a prefix. An
// IPv4 address in IPv6 form is read as the IPv4 address.
func ParseAllowedIP(s string) (netip.Prefix, error) {
	s = strings.TrimSpace(s)
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("an address may not have a zone")
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("a prefix of IPv4 addresses in IPv6 form needs at least 96 bits")
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
