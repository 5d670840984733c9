package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// AnyProgram is the binary pattern that covers every program with a path.
const AnyProgram = "/**"

// FromAllow makes a document from values of `run --allow HOST[:PORT]`: every
// program may reach these endpoints. A host alone means ports 443 and 80; an
// IPv6 address with a port is written in brackets. Patterns are allowed as in
// a policy file. What could never be reached is refused here. Anything else
// about the document is that of RunDefault.
func FromAllow(values []string) (*Document, error) {
	d := RunDefault()
	d.Source = "--allow"
	for _, v := range values {
		host, ports, err := splitAllow(v)
		if err != nil {
			return nil, fault.New(fault.InvalidArgument, "--allow %q: %v", v, err).
				Hint("--allow api.example.com:443").On("allow")
		}
		if text := lintHost(&Endpoint{Host: host}); strings.Contains(text, "never be reached") {
			hint := fmt.Sprintf("leave out --allow %s", v)
			if addr, err := netip.ParseAddr(host); host == "localhost" || err == nil && addr.IsLoopback() {
				hint = fmt.Sprintf("--allow %s:%d", brand.HostAlias, ports[0]) // this machine, as a sandbox names it
			}
			return nil, fault.New(fault.InvalidArgument, "--allow %q: %s", v, text).Hint("%s", hint).On("allow")
		}
		if text := lintPorts(&Endpoint{Host: host, Ports: ports}); text != "" {
			return nil, fault.New(fault.InvalidArgument, "--allow %q: %s", v, text).
				Hint("--allow %s:443", host).On("allow")
		}
		key := AllowKey(host, ports)
		if d.Rule(key) != nil {
			continue
		}
		d.Rules = append(d.Rules, Rule{
			Key:       key,
			Endpoints: []Endpoint{{Host: host, Ports: ports}},
			Binaries:  []Binary{{Path: AnyProgram}},
		})
	}
	slices.SortFunc(d.Rules, func(a, b Rule) int { return strings.Compare(a.Key, b.Key) })
	return d, NewError(d, Validate(d))
}

// AllowKey is the key the contract generates for a rule that allows a host.
func AllowKey(host string, ports []uint16) string {
	key := "allow_" + strings.NewReplacer(".", "_", "-", "_", ":", "_", "*", "any").Replace(host)
	for _, p := range ports {
		key += "_" + strconv.Itoa(int(p))
	}
	return key
}

func splitAllow(v string) (host string, ports []uint16, err error) {
	host, port := v, ""
	switch {
	case strings.HasPrefix(v, "["):
		end := strings.IndexByte(v, ']')
		if end < 0 {
			return "", nil, fmt.Errorf("the bracket is not closed")
		}
		host, port = v[:end+1], v[end+1:]
		if port != "" && port[0] != ':' {
			return "", nil, fmt.Errorf("expected HOST or HOST:PORT")
		}
	case strings.Count(v, ":") == 1:
		at := strings.IndexByte(v, ':')
		host, port = v[:at], v[at:]
	}
	pattern, err := ParseHost(host)
	if err != nil {
		return "", nil, err
	}
	if port == "" {
		return pattern.String(), []uint16{443, 80}, nil
	}
	n, err := strconv.ParseUint(port[1:], 10, 16)
	if err != nil || n == 0 {
		return "", nil, fmt.Errorf("%q is not a port, expected 1..65535", port[1:])
	}
	return pattern.String(), []uint16{uint16(n)}, nil
}
