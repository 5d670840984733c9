package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"openshell.dev/openshell/internal/brand"
)

// Lint returns what is probably not meant in a valid document: rules without
// effect, rules wider than they look, and settings that only sound strict. It
// is advice; nothing is refused because of it.
func Lint(d *Document) []Violation {
	c := &checker{d: d}
	for i := range d.Rules {
		r := &d.Rules[i]
		path := join("network_policies", r.Key)
		c.lintRule(r, path)
		for j := range r.Endpoints {
			e := &r.Endpoints[j]
			at := index(path+".endpoints", j)
			for _, l := range endpointLints {
				if text := l.found(e); text != "" {
					c.add(Advice, at+l.field, "%s", text)
				}
			}
			if c.d.where[at+".port"].Known() && c.d.where[at+".ports"].Known() {
				c.add(Advice, at+".port", "port and ports are both written; only ports counts")
			}
			c.lintRules(e, at)
			c.lintShadow(i, j, at)
		}
	}
	for i := range d.Middlewares {
		m := &d.Middlewares[i]
		if m.OnError == FailOpen {
			c.add(Advice, join("network_middlewares", m.Key)+".on_error", "fail_open lets requests pass unread when the service fails")
		}
	}
	return c.vs
}

func (c *checker) lintRule(r *Rule, path string) {
	switch {
	case len(r.Endpoints) == 0:
		c.add(Advice, path, "the rule has no endpoints and grants nothing")
	case len(r.Binaries) == 0:
		c.add(Advice, path, "the rule has no binaries and matches no program; write path: %q for every program", AnyProgram)
	}
	for i, b := range r.Binaries {
		at := index(path+".binaries", i)
		switch {
		case b.Path == AnyProgram || b.Path == "**":
			c.add(Advice, at, "every program may use this rule, also one that the agent writes itself")
		case !strings.HasPrefix(b.Path, "/") && !strings.HasPrefix(b.Path, "*"):
			c.add(Advice, at, "%q is not absolute and can never match", clip(b.Path))
		case !strings.Contains(b.Path, "*") && strings.ContainsAny(b.Path, "?[{"):
			c.add(Advice, at, "%q is taken literally: a path is a pattern only if it has a \"*\"", clip(b.Path))
		case strings.HasPrefix(b.Path, "/tmp/") || strings.HasPrefix(b.Path, "/dev/shm/"):
			c.add(Advice, at, "the agent can write to %q and put another program there", clip(b.Path))
		}
	}
}

// endpointLint finds one thing about an endpoint; the empty text is nothing.
type endpointLint struct {
	field string // below the endpoint, with its dot
	found func(e *Endpoint) string
}

func lintIf(field, text string, is func(e *Endpoint) bool) endpointLint {
	return endpointLint{field, func(e *Endpoint) string {
		if is(e) {
			return text
		}
		return ""
	}}
}

var endpointLints = []endpointLint{
	lintIf(".enforcement", "without enforcement denied requests are only logged (audit); write enforcement: enforce", func(e *Endpoint) bool {
		return e.Inspected() && e.Enforcement == EnforcementUnspecified
	}),
	lintIf(".protocol", "tls: skip relays the connection unread, so protocol and its rules have no effect on TLS", func(e *Endpoint) bool {
		return e.Protocol.Inspected() && e.TLS == TLSSkip
	}),
	lintIf(".protocol", "protocol sql is known to the contract and enforced by nobody", func(e *Endpoint) bool { return e.Protocol == SQL }),
	lintIf(".access", "access has no effect without protocol: every request passes", func(e *Endpoint) bool {
		return e.Protocol == ProtocolNone && e.Access != AccessNone
	}),
	lintIf(".rules", "rules have no effect without protocol: every request passes", func(e *Endpoint) bool {
		return e.Protocol == ProtocolNone && len(e.Allow) > 0
	}),
	lintIf(".path", "without protocol path only narrows which requests get credentials: every request passes", func(e *Endpoint) bool {
		return e.Protocol == ProtocolNone && e.Path != ""
	}),
	lintIf(".enforcement", "enforcement has no effect without protocol", func(e *Endpoint) bool {
		return e.Protocol == ProtocolNone && e.Enforcement != EnforcementUnspecified
	}),
	lintIf(".persisted_queries", "persisted queries are for graphql endpoints and GraphQL over websocket", func(e *Endpoint) bool {
		return e.Protocol != GraphQL && e.Protocol != WebSocket && (e.PersistedQueries != PersistedUnspecified || len(e.RegisteredQueries) > 0)
	}),
	lintIf(".mcp", "without mcp.versions only "+string(DefaultMCPVersion)+" is taken, and a client that sends no version header is taken for "+string(MCP20250326), func(e *Endpoint) bool {
		return e.Protocol == MCP && (e.MCP == nil || len(e.MCP.Versions) == 0)
	}),
	lintIf(".mcp", "tool names of any characters are let through to the server", func(e *Endpoint) bool { return e.MCP != nil && e.MCP.LooseToolNames }),
	lintIf(".allow_uninspected_credentials", "credentials may leave on connections that nobody reads", func(e *Endpoint) bool { return e.AllowUninspectedCredentials }),
	{".host", lintHost},
	{".allowed_ips", lintAddresses},
	{".port", lintPorts},
}

func lintHost(e *Endpoint) string {
	host, err := ParseHost(e.Host)
	if err != nil {
		return ""
	}
	name := host.String()
	if addr, err := netip.ParseAddr(name); err == nil {
		if addr = addr.Unmap(); addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr.IsMulticast() {
			return name + " can never be reached, whatever a policy says"
		}
		return ""
	}
	switch {
	case name == "localhost" || name == "metadata.google.internal":
		return name + " leads to an address that can never be reached"
	case name == brand.PolicyName || name == brand.InferenceURL:
		return name + " is answered by the sandbox itself and needs no rule"
	case host.Exact() && !strings.Contains(name, "."):
		return fmt.Sprintf("%q has one label: no search domain is tried inside a sandbox, so ask for it exactly so", name)
	case host.Exact():
		return ""
	case host.Labels()[len(host.Labels())-1] == "*":
		return fmt.Sprintf("%q covers names below every top-level domain", name)
	case host.Labels()[0] == "**":
		return fmt.Sprintf("%q covers every depth below %s; names can carry data out by DNS as well", name, strings.TrimPrefix(name, "**."))
	}
	return ""
}

// neverListed is what makes every connection of an endpoint fail if
// allowed_ips reaches it.
var neverListed = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("0.0.0.0/32"),
	netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("::/128"), netip.MustParsePrefix("fe80::/10"),
}

// ListsForbidden reports whether an entry of allowed_ips reaches addresses
// that nobody may reach. Every connection of its endpoint fails then, and an
// edit that adds such an entry is refused.
func ListsForbidden(p netip.Prefix) bool {
	return slices.ContainsFunc(neverListed, p.Overlaps)
}

func lintAddresses(e *Endpoint) string {
	for _, s := range e.AllowedIPs {
		p, err := ParseAllowedIP(s)
		switch {
		case err != nil:
		case ListsForbidden(p):
			return fmt.Sprintf("%s reaches loopback or link-local addresses, so every connection to this endpoint fails", s)
		case p.Addr().Is4() && p.Bits() < 8, p.Addr().Is6() && p.Bits() < 16:
			return fmt.Sprintf("%s is a large part of the Internet", s)
		}
	}
	return ""
}

func lintPorts(e *Endpoint) string {
	host, err := ParseHost(e.Host)
	for _, p := range e.Ports {
		if slices.Contains(ControlPorts, p) && (e.Host == "" || err == nil && host.Exact() || len(e.AllowedIPs) > 0) {
			return fmt.Sprintf("port %d belongs to a control plane and is always refused", p)
		}
	}
	return ""
}

// ControlPorts are refused wherever an endpoint names its host or addresses:
// etcd, the Kubernetes API server and the kubelet.
var ControlPorts = []uint16{2379, 2380, 6443, 10250, 10255}
