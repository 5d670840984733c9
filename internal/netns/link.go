package netns

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/netlink"
)

// Addresses as the kernel takes them.
var (
	addr4    = []byte{10, 200, 0, 2}
	proxy4   = []byte{10, 200, 0, 1}
	gateway4 = []byte{10, 200, 0, 254} // nobody: makes a default route
	cast4    = []byte{10, 200, 0, 255}
	addr6    = []byte{0xfd, 0, 2, 0, 15: 2}
	proxy6   = []byte{0xfd, 0, 2, 0, 15: 1}
	gateway6 = []byte{0xfd, 0, 2, 0, 15: 0xfe}
)

// Numbers that x/sys/unix does not have or names otherwise.
const (
	loIndex         = 1
	addrGenModeNone = 1 // IFLA_INET6_ADDR_GEN_MODE: no fe80 address
	operUp          = 6 // RFC 2863 ifOperStatus "up"
	vethInfoPeer    = 1
	brMcastSnooping = 23 // IFLA_BR_MCAST_SNOOPING
	skipStats       = 8  // RTEXT_FILTER_SKIP_STATS
)

// Steps whose failure is answered, not only reported.
const (
	stepMake = "make the interface"
	stepIPv6 = "set up IPv6"
)

// kind is a way to make the interface.
type kind struct {
	name string
	data func(b *netlink.Batch) // content of IFLA_INFO_DATA, or nil
	peer bool                   // has another end, to be brought up too
	// present: only where the driver is in the kernel, built in or loaded.
	present bool
}

// kinds in the order of trial. All but the pair are alone, up and running at
// once. Taking a bridge down holds the kernel's network lock for an RCU barrier
// (18 ms measured), for which every other start waits, so one of the plain
// kinds is better; but loading their drivers puts interfaces on the host, so
// they come first only where the driver is there already. A pair shows its
// other end and needs 30 ms to report its carrier.
var kinds = []kind{
	{name: "ifb", present: true},
	{name: "dummy", present: true},
	{name: "bridge", data: bridge},
	{name: "dummy"},
	{name: "ifb"},
	{name: "veth", peer: true, data: veth},
}

// bridge has no reports of its own to send. Never give it a hardware address:
// setting one makes it count its ports, find none and lose its carrier.
func bridge(b *netlink.Batch) { b.Attr(brMcastSnooping, 0) }

func veth(b *netlink.Batch) {
	n := b.Nest(vethInfoPeer)
	b.Raw(ifinfo(0, 0, 0)...)
	b.AttrString(unix.IFLA_IFNAME, peerName)
	b.Close(n)
}

// pack writes the whole set-up as one batch of acknowledged messages, numbered
// from 1, with the name of each step.
func pack(k kind, index uint32, ipv6 bool) (batch []byte, steps []string) {
	var b netlink.Batch
	step := func(name string, typ, flags uint16) {
		steps = append(steps, name)
		b.Message(typ, flags|unix.NLM_F_ACK, uint32(len(steps)))
	}
	const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	// A route of lo outlives a first try.
	const replace = unix.NLM_F_CREATE | unix.NLM_F_REPLACE

	step(stepMake, unix.RTM_NEWLINK, create)
	b.Raw(ifinfo(index, 0, 0)...)
	b.AttrString(unix.IFLA_IFNAME, Interface)
	info := b.Nest(unix.IFLA_LINKINFO)
	b.AttrString(unix.IFLA_INFO_KIND, k.name)
	if k.data != nil {
		n := b.Nest(unix.IFLA_INFO_DATA)
		k.data(&b)
		b.Close(n)
	}
	b.Close(info)

	if k.peer {
		step("bring up the other end", unix.RTM_NEWLINK, 0)
		b.Raw(ifinfo(0, unix.IFF_UP, unix.IFF_UP)...)
		b.AttrString(unix.IFLA_IFNAME, peerName)
		if ipv6 {
			noLinkLocal(&b)
		}
	}

	step("bring up lo", unix.RTM_NEWLINK, 0)
	b.Raw(ifinfo(loIndex, unix.IFF_UP, unix.IFF_UP)...)

	if ipv6 {
		// Before it is up: no link-local address, so no router
		// solicitations and nothing a scoped address could reach.
		step(stepIPv6, unix.RTM_NEWLINK, 0)
		b.Raw(ifinfo(index, 0, 0)...)
		noLinkLocal(&b)
	}

	step("bring up the interface", unix.RTM_NEWLINK, 0)
	// The plain kinds come without multicast and with NOARP.
	b.Raw(ifinfo(index, unix.IFF_UP|unix.IFF_MULTICAST, unix.IFF_UP|unix.IFF_MULTICAST|unix.IFF_NOARP)...)
	b.Attr(unix.IFLA_OPERSTATE, operUp)

	step("add "+Address, unix.RTM_NEWADDR, create)
	b.Raw(ifaddr(unix.AF_INET, 24, 0, index)...)
	b.Attr(unix.IFA_LOCAL, addr4...)
	b.Attr(unix.IFA_ADDRESS, addr4...)
	b.Attr(unix.IFA_BROADCAST, cast4...)

	step("make "+Proxy+" local", unix.RTM_NEWROUTE, replace)
	b.Raw(rtmsg(unix.AF_INET, 32, unix.RT_TABLE_LOCAL, unix.RT_SCOPE_HOST, unix.RTN_LOCAL)...)
	b.Attr(unix.RTA_DST, proxy4...)
	b.Attr(unix.RTA_PREFSRC, addr4...) // or its own address would be the source
	b.AttrUint32(unix.RTA_OIF, loIndex)

	step("add the default route", unix.RTM_NEWROUTE, create)
	b.Raw(rtmsg(unix.AF_INET, 0, unix.RT_TABLE_MAIN, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST)...)
	b.Attr(unix.RTA_GATEWAY, gateway4...)
	b.AttrUint32(unix.RTA_OIF, index)

	if !ipv6 {
		return b.Bytes(), steps
	}
	step(stepIPv6, unix.RTM_NEWADDR, create)
	b.Raw(ifaddr(unix.AF_INET6, 64, unix.IFA_F_NODAD, index)...)
	b.Attr(unix.IFA_LOCAL, addr6...)
	b.Attr(unix.IFA_ADDRESS, addr6...)

	// The kernel adds this route by itself, but later, from a work queue.
	// Until then captured connections would go to a neighbour search of 3 s.
	step(stepIPv6, unix.RTM_NEWROUTE, create)
	b.Raw(rtmsg(unix.AF_INET6, 128, unix.RT_TABLE_LOCAL, unix.RT_SCOPE_HOST, unix.RTN_LOCAL)...)
	b.Attr(unix.RTA_DST, addr6...)
	b.AttrUint32(unix.RTA_OIF, index)

	step(stepIPv6, unix.RTM_NEWROUTE, replace)
	b.Raw(rtmsg(unix.AF_INET6, 128, unix.RT_TABLE_LOCAL, unix.RT_SCOPE_HOST, unix.RTN_LOCAL)...)
	b.Attr(unix.RTA_DST, proxy6...)
	b.AttrUint32(unix.RTA_OIF, loIndex)

	step(stepIPv6, unix.RTM_NEWROUTE, create)
	b.Raw(rtmsg(unix.AF_INET6, 0, unix.RT_TABLE_MAIN, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST)...)
	b.Attr(unix.RTA_GATEWAY, gateway6...)
	b.AttrUint32(unix.RTA_OIF, index)
	return b.Bytes(), steps
}

// noLinkLocal has the kernel give an interface no fe80 address.
func noLinkLocal(b *netlink.Batch) {
	spec := b.Nest(unix.IFLA_AF_SPEC)
	inet6 := b.Nest(unix.AF_INET6)
	b.Attr(unix.IFLA_INET6_ADDR_GEN_MODE, addrGenModeNone)
	b.Close(inet6)
	b.Close(spec)
}

// ifinfo is struct ifinfomsg.
func ifinfo(index, flags, change uint32) []byte {
	b := make([]byte, 4, unix.SizeofIfInfomsg) // family, padding, device type
	b = binary.NativeEndian.AppendUint32(b, index)
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// ifaddr is struct ifaddrmsg with universal scope.
func ifaddr(family, bits, flags byte, index uint32) []byte {
	return binary.NativeEndian.AppendUint32([]byte{family, bits, flags, unix.RT_SCOPE_UNIVERSE}, index)
}

// rtmsg is struct rtmsg.
func rtmsg(family, bits, table, scope, typ byte) []byte {
	return []byte{family, bits, 0, 0, table, unix.RTPROT_STATIC, scope, typ, 0, 0, 0, 0}
}

// link is an interface as the kernel lists it.
type link struct {
	name  string
	flags uint32
}

// String shows the name and the flags, for an error.
func (l link) String() string { return fmt.Sprintf("%s(%#x)", l.name, l.flags) }

// list dumps the interfaces of the namespace.
func list(fd int) ([]link, error) {
	var b netlink.Batch
	b.Message(unix.RTM_GETLINK, unix.NLM_F_DUMP, 1)
	b.Raw(ifinfo(0, 0, 0)...)
	b.AttrUint32(unix.IFLA_EXT_MASK, skipStats)
	var links []link
	err := netlink.Exchange(fd, b.Bytes(), 1, 1, func(m netlink.Message) error {
		if m.Type != unix.RTM_NEWLINK {
			return nil
		}
		l, err := parseLink(m.Data)
		if err == nil {
			links = append(links, l)
		}
		return err
	})
	return links, err
}

func parseLink(data []byte) (link, error) {
	if len(data) < unix.SizeofIfInfomsg {
		return link{}, netlink.ErrMalformed
	}
	l := link{flags: binary.NativeEndian.Uint32(data[8:])}
	for attrs := data[unix.SizeofIfInfomsg:]; ; {
		typ, value, rest, ok, err := netlink.NextAttr(attrs)
		if err != nil || !ok {
			return l, err
		}
		if typ == unix.IFLA_IFNAME {
			l.name = unix.ByteSliceToString(value)
		}
		attrs = rest
	}
}
