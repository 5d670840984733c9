package decide_test

import (
	"errors"
	"net/netip"
	"testing"

	"openshell.dev/openshell/internal/decide"
)

const places = `
name: {endpoints: [{host: svc.corp.example, ports: [443, 6443]}], binaries: [{path: "/**"}]}
star: {endpoints: [{host: "*.corp.example", port: 444}], binaries: [{path: "/**"}]}
listed: {endpoints: [{host: "*.corp.example", ports: [445, 2379], allowed_ips: [10.0.0.0/8, "fd12::/16", 8.8.8.8]}], binaries: [{path: "/**"}]}
hostless: {endpoints: [{port: 446, allowed_ips: [10.0.0.0/8]}], binaries: [{path: "/**"}]}
literal: {endpoints: [{host: 10.1.2.3, port: 447}], binaries: [{path: "/**"}]}
pattern: {endpoints: [{host: "10.*.*.*", ports: [448, 6443]}], binaries: [{path: "/**"}]}
broken: {endpoints: [{host: b.corp.example, port: 449, allowed_ips: [10.0.0.0/8, 127.0.0.0/8]}], binaries: [{path: "/**"}]}
cgnat: {endpoints: [{host: c.corp.example, port: 450, allowed_ips: [100.64.0.0/10]}], binaries: [{path: "/**"}]}
`

// ok is the want of an address that may be dialled.
const ok = decide.Refusal(0)

func TestCheckAddress(t *testing.T) {
	ix := compile(t, places)
	for _, c := range []struct {
		host string
		port uint16
		addr string
		want decide.Refusal
	}{
		// An endpoint that names the host may lead to private addresses.
		{"svc.corp.example", 443, "8.8.8.8", ok},
		{"svc.corp.example", 443, "10.1.1.1", ok},
		{"svc.corp.example", 443, "fd12::1", ok},
		{"svc.corp.example", 443, "100.64.1.1", ok},
		{"svc.corp.example", 443, "::ffff:10.1.1.1", ok},
		{"svc.corp.example", 443, "64:ff9b::8.8.8.8", ok},
		{"svc.corp.example", 443, "127.0.0.1", decide.RefusedLoopback},
		{"svc.corp.example", 443, "127.255.0.9", decide.RefusedLoopback},
		{"svc.corp.example", 443, "::1", decide.RefusedLoopback},
		{"svc.corp.example", 443, "::ffff:127.0.0.1", decide.RefusedLoopback},
		{"svc.corp.example", 443, "64:ff9b::127.0.0.1", decide.RefusedLoopback},
		{"svc.corp.example", 443, "169.254.169.254", decide.RefusedMetadata},
		{"svc.corp.example", 443, "::ffff:169.254.169.254", decide.RefusedMetadata},
		{"svc.corp.example", 443, "64:ff9b::169.254.169.254", decide.RefusedMetadata},
		{"svc.corp.example", 443, "169.254.170.2", decide.RefusedMetadata},
		{"svc.corp.example", 443, "100.100.100.200", decide.RefusedMetadata},
		{"svc.corp.example", 443, "168.63.129.16", decide.RefusedMetadata},
		{"svc.corp.example", 443, "fd00:ec2::254", decide.RefusedMetadata},
		{"svc.corp.example", 443, "169.254.1.1", decide.RefusedLinkLocal},
		{"svc.corp.example", 443, "fe80::1", decide.RefusedLinkLocal},
		{"svc.corp.example", 443, "fe80::1%eth0", decide.RefusedInvalid},
		{"svc.corp.example", 443, "0.0.0.0", decide.RefusedUnspecified},
		{"svc.corp.example", 443, "0.1.2.3", decide.RefusedUnspecified},
		{"svc.corp.example", 443, "::", decide.RefusedUnspecified},
		{"svc.corp.example", 443, "224.0.0.1", decide.RefusedMulticast},
		{"svc.corp.example", 443, "255.255.255.255", decide.RefusedMulticast},
		{"svc.corp.example", 443, "ff02::1", decide.RefusedMulticast},
		{"svc.corp.example", 443, "2002:7f00:1::", decide.RefusedEmbedded},
		{"svc.corp.example", 443, "2001:0:4136:e378::1", decide.RefusedEmbedded},
		{"svc.corp.example", 443, "::127.0.0.1", decide.RefusedEmbedded},
		{"svc.corp.example", 443, "::ffff:0:127.0.0.1", decide.RefusedEmbedded},
		{"svc.corp.example", 443, "64:ff9b:1::7f00:1", decide.RefusedEmbedded},
		{"svc.corp.example", 443, "2a00::5efe:7f00:1", decide.RefusedEmbedded},
		{"svc.corp.example", 443, "2a00::200:5efe:7f00:1", decide.RefusedEmbedded},
		{"svc.corp.example", 6443, "8.8.8.8", decide.RefusedPort},
		// A pattern leads to public addresses only.
		{"x.corp.example", 444, "8.8.8.8", ok},
		{"x.corp.example", 444, "2606:4700::1", ok},
		{"x.corp.example", 444, "10.1.1.1", decide.RefusedPrivate},
		{"x.corp.example", 444, "172.31.255.255", decide.RefusedPrivate},
		{"x.corp.example", 444, "172.32.0.1", ok},
		{"x.corp.example", 444, "192.168.0.1", decide.RefusedPrivate},
		{"x.corp.example", 444, "100.64.0.1", decide.RefusedPrivate},
		{"x.corp.example", 444, "100.128.0.1", ok},
		{"x.corp.example", 444, "198.18.0.1", decide.RefusedPrivate},
		{"x.corp.example", 444, "203.0.113.9", decide.RefusedPrivate},
		{"x.corp.example", 444, "240.0.0.1", decide.RefusedPrivate},
		{"x.corp.example", 444, "fd12::1", decide.RefusedPrivate},
		{"x.corp.example", 444, "fec0::1", decide.RefusedPrivate},
		{"x.corp.example", 444, "2001:db8::1", decide.RefusedPrivate},
		{"x.corp.example", 444, "4000::1", decide.RefusedPrivate},
		{"x.corp.example", 444, "::ffff:10.0.0.1", decide.RefusedPrivate},
		{"x.corp.example", 444, "64:ff9b::10.0.0.1", decide.RefusedPrivate},
		{"x.corp.example", 444, "127.0.0.1", decide.RefusedLoopback},
		// A list is the whole of what may be reached.
		{"x.corp.example", 445, "10.1.1.1", ok},
		{"x.corp.example", 445, "fd12::9", ok},
		{"x.corp.example", 445, "8.8.8.8", ok},
		{"x.corp.example", 445, "8.8.4.4", decide.RefusedNotListed},
		{"x.corp.example", 445, "192.168.1.1", decide.RefusedNotListed},
		{"x.corp.example", 445, "127.0.0.1", decide.RefusedLoopback},
		{"x.corp.example", 2379, "10.1.1.1", decide.RefusedPort},
		{"any.example", 446, "10.2.2.2", ok},
		{"any.example", 446, "8.8.8.8", decide.RefusedNotListed},
		{"10.2.2.2", 446, "10.2.2.2", ok},
		{"b.corp.example", 449, "10.1.1.1", decide.RefusedList},
		{"c.corp.example", 450, "100.64.0.7", ok},
		{"c.corp.example", 450, "100.100.100.200", decide.RefusedMetadata},
		// Literals: the endpoint that names one opens it, a pattern does not.
		{"10.1.2.3", 447, "10.1.2.3", ok},
		{"10.1.2.3", 448, "10.1.2.3", decide.RefusedPrivate},
		{"10.1.2.3", 6443, "10.1.2.3", decide.RefusedPrivate},
	} {
		v := ix.Connect(flow(c.host, c.port, "/x"))
		if !v.Allow {
			t.Errorf("%s:%d is not allowed: %+v", c.host, c.port, v)
			continue
		}
		err := decide.CheckAddress(netip.MustParseAddr(c.addr), v.Address)
		if c.want == ok && err != nil || c.want != ok && !errors.Is(err, c.want) {
			t.Errorf("%s:%d at %s: %v, want %v", c.host, c.port, c.addr, err, c.want)
		}
	}
}

func TestPinnedAddress(t *testing.T) {
	ix := compile(t, places)
	rule := ix.Connect(flow("svc.corp.example", 443, "/x")).Address
	for _, c := range []struct {
		pin, addr string
		want      error
	}{
		{"127.0.0.1", "127.0.0.1", nil},
		{"172.17.0.1", "::ffff:172.17.0.1", nil},
		{"169.254.1.2", "169.254.1.2", nil},
		{"172.17.0.1", "172.17.0.2", decide.RefusedPinned},
		{"169.254.169.254", "169.254.169.254", decide.RefusedMetadata},
		{"0.0.0.0", "0.0.0.0", decide.RefusedUnspecified},
	} {
		if err := decide.CheckAddress(netip.MustParseAddr(c.addr), rule.Pin(netip.MustParseAddr(c.pin))); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("pinned to %s, dialling %s: %v, want %v", c.pin, c.addr, err, c.want)
		}
	}
	if err := decide.CheckAddress(netip.Addr{}, rule); !errors.Is(err, decide.RefusedInvalid) {
		t.Errorf("the invalid address: %v", err)
	}
}

func TestDiscoveredNAT64(t *testing.T) {
	ix := compile(t, places)
	rule := ix.Connect(flow("x.corp.example", 444, "/x")).Address
	// The examples of RFC 6052 section 2.4 stand for 192.0.2.33; here the
	// same shapes stand for 10.0.2.33.
	for _, c := range []struct{ prefix, addr string }{
		{"2a01:db8::/32", "2a01:db8:a00:221::"},
		{"2a01:db8:100::/40", "2a01:db8:10a:2:21::"},
		{"2a01:db8:122::/48", "2a01:db8:122:a00:2:2100::"},
		{"2a01:db8:122:300::/56", "2a01:db8:122:30a:0:221::"},
		{"2a01:db8:122:344::/64", "2a01:db8:122:344:a:2:2100:0"},
		{"2a01:db8:122:344::/96", "2a01:db8:122:344::10.0.2.33"},
	} {
		addr := netip.MustParseAddr(c.addr)
		if err := decide.CheckAddress(addr, rule); err != nil {
			t.Errorf("%s is public where the prefix is unknown: %v", c.addr, err)
		}
		known := decide.Addresses{NAT64: []netip.Prefix{netip.MustParsePrefix(c.prefix)}}
		if err := known.Check(addr, rule); !errors.Is(err, decide.RefusedPrivate) {
			t.Errorf("%s in %s: %v", c.addr, c.prefix, err)
		}
	}
}

func TestStricterHolderDecidesAddresses(t *testing.T) {
	ix := compile(t, `
a: {endpoints: [{host: svc.corp.example, port: 443}], binaries: [{path: /a}]}
b: {endpoints: [{host: "*.corp.example", port: 443}], binaries: [{path: /b}]}
`)
	f := flow("svc.corp.example", 443, "/a")
	f.Programs = append(f.Programs, chain("/b"))
	private := netip.MustParseAddr("10.0.0.1")
	if err := decide.CheckAddress(private, ix.Connect(f).Address); !errors.Is(err, decide.RefusedPrivate) {
		t.Errorf("with a holder that only a pattern allows: %v", err)
	}
	f.Programs = f.Programs[:1]
	if err := decide.CheckAddress(private, ix.Connect(f).Address); err != nil {
		t.Errorf("with the named endpoint's program alone: %v", err)
	}
}
