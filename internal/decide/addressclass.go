package decide

import "net/netip"

// special is the table of addresses that are not simply public, most specific
// first where two overlap. It holds after unwrap.
var special = []struct {
	prefix netip.Prefix
	class  Refusal
	why    string
}{
	{netip.MustParsePrefix("169.254.169.254/32"), RefusedMetadata, "AWS, Azure, GCP and most others"},
	{netip.MustParsePrefix("169.254.170.0/23"), RefusedMetadata, "AWS task and pod credentials"},
	{netip.MustParsePrefix("100.100.100.200/32"), RefusedMetadata, "Alibaba"},
	{netip.MustParsePrefix("192.0.0.192/32"), RefusedMetadata, "Oracle"},
	{netip.MustParsePrefix("168.63.129.16/32"), RefusedMetadata, "Azure wire server"},
	{netip.MustParsePrefix("fd00:ec2::/32"), RefusedMetadata, "AWS over IPv6"},
	{netip.MustParsePrefix("fd20:ce::254/128"), RefusedMetadata, "GCP over IPv6"},
	{netip.MustParsePrefix("127.0.0.0/8"), RefusedLoopback, "RFC 1122"},
	{netip.MustParsePrefix("169.254.0.0/16"), RefusedLinkLocal, "RFC 3927"},
	{netip.MustParsePrefix("0.0.0.0/8"), RefusedUnspecified, "RFC 1122; Linux takes 0.0.0.0 for itself"},
	{netip.MustParsePrefix("224.0.0.0/4"), RefusedMulticast, "RFC 1112"},
	{netip.MustParsePrefix("255.255.255.255/32"), RefusedMulticast, "broadcast"},
	{netip.MustParsePrefix("10.0.0.0/8"), RefusedPrivate, "RFC 1918"},
	{netip.MustParsePrefix("172.16.0.0/12"), RefusedPrivate, "RFC 1918"},
	{netip.MustParsePrefix("192.168.0.0/16"), RefusedPrivate, "RFC 1918"},
	{netip.MustParsePrefix("100.64.0.0/10"), RefusedPrivate, "RFC 6598, carrier NAT"},
	{netip.MustParsePrefix("192.0.0.0/24"), RefusedPrivate, "RFC 6890"},
	{netip.MustParsePrefix("192.0.2.0/24"), RefusedPrivate, "RFC 5737, documentation"},
	{netip.MustParsePrefix("198.51.100.0/24"), RefusedPrivate, "RFC 5737, documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), RefusedPrivate, "RFC 5737, documentation"},
	{netip.MustParsePrefix("198.18.0.0/15"), RefusedPrivate, "RFC 2544; our synthetic addresses"},
	{netip.MustParsePrefix("192.88.99.0/24"), RefusedPrivate, "RFC 7526, 6to4 relays"},
	{netip.MustParsePrefix("240.0.0.0/4"), RefusedPrivate, "RFC 1112, reserved"},

	{netip.MustParsePrefix("::1/128"), RefusedLoopback, "RFC 4291"},
	{netip.MustParsePrefix("::/128"), RefusedUnspecified, "RFC 4291"},
	{netip.MustParsePrefix("::/96"), RefusedEmbedded, "IPv4-compatible, RFC 4291"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), RefusedEmbedded, "IPv4-translated, RFC 2765"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), RefusedEmbedded, "local NAT64 of unknown shape, RFC 8215"},
	{netip.MustParsePrefix("2002::/16"), RefusedEmbedded, "6to4, RFC 3056"},
	{netip.MustParsePrefix("2001::/32"), RefusedEmbedded, "Teredo, RFC 4380"},
	{netip.MustParsePrefix("fe80::/10"), RefusedLinkLocal, "RFC 4291"},
	{netip.MustParsePrefix("ff00::/8"), RefusedMulticast, "RFC 4291"},
	{netip.MustParsePrefix("fc00::/7"), RefusedPrivate, "RFC 4193, unique local"},
	{netip.MustParsePrefix("fec0::/10"), RefusedPrivate, "RFC 3879, site local"},
	{netip.MustParsePrefix("2001:2::/48"), RefusedPrivate, "RFC 5180, benchmarking"},
	{netip.MustParsePrefix("2001:10::/28"), RefusedPrivate, "RFC 4843, ORCHID"},
	{netip.MustParsePrefix("2001:20::/28"), RefusedPrivate, "RFC 7343, ORCHIDv2"},
	{netip.MustParsePrefix("2001:db8::/32"), RefusedPrivate, "RFC 3849, documentation"},
	{netip.MustParsePrefix("3fff::/20"), RefusedPrivate, "RFC 9637, documentation"},
}

// globalUnicast is all the public IPv6 space there is; the rest is reserved.
var globalUnicast = netip.MustParsePrefix("2000::/3")

// classify returns what is special about an unwrapped address, zero for a
// public one.
func classify(addr netip.Addr) Refusal {
	for i := range special {
		if special[i].prefix.Contains(addr) {
			return special[i].class
		}
	}
	if addr.Is6() {
		if isatap(addr) {
			return RefusedEmbedded
		}
		if !globalUnicast.Contains(addr) {
			return RefusedPrivate
		}
	}
	return 0
}

// isatap reports the interface identifiers of RFC 5214, which hide an IPv4
// address behind any prefix.
func isatap(addr netip.Addr) bool {
	b := addr.As16()
	return b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

var wellKnownNAT64 = netip.MustParsePrefix("64:ff9b::/96")

// unwrap returns the IPv4 address that an IPv6 address stands for, if that is
// where the packets would go: IPv4-mapped and NAT64.
func (a Addresses) unwrap(addr netip.Addr) netip.Addr {
	if addr.Is4In6() {
		return addr.Unmap()
	}
	if !addr.Is6() {
		return addr
	}
	if wellKnownNAT64.Contains(addr) {
		return embedded(addr, 96)
	}
	for _, p := range a.NAT64 {
		if p.Contains(addr) {
			return embedded(addr, p.Bits())
		}
	}
	return addr
}

// embedded takes the IPv4 address out (RFC 6052 section 2.2; octet 8 is
// skipped).
func embedded(addr netip.Addr, bits int) netip.Addr {
	b := addr.As16()
	switch bits {
	case 96:
		return netip.AddrFrom4([4]byte(b[12:16]))
	case 32:
		return netip.AddrFrom4([4]byte(b[4:8]))
	case 40:
		return netip.AddrFrom4([4]byte{b[5], b[6], b[7], b[9]})
	case 48:
		return netip.AddrFrom4([4]byte{b[6], b[7], b[9], b[10]})
	case 56:
		return netip.AddrFrom4([4]byte{b[7], b[9], b[10], b[11]})
	case 64:
		return netip.AddrFrom4([4]byte{b[9], b[10], b[11], b[12]})
	}
	return netip.IPv4Unspecified() // a shape we do not know is refused
}
