package seccomp

import "golang.org/x/sys/unix"

// sockTypeMask keeps the type of a socket and drops SOCK_CLOEXEC and
// SOCK_NONBLOCK, which share its argument.
const sockTypeMask = 0xf

// sockets adds the rows that judge family, type and protocol.
//
// Errnos: a family that we do not offer is EAFNOSUPPORT and a protocol
// EPROTONOSUPPORT, as a kernel built without them answers. Libraries fall back
// on these, and take EPERM (the answer of OpenShell 0.1.x for netlink) for a
// failure of the machine: that is how every Node agent died at start. A raw
// socket is EPERM, the kernel's own answer without CAP_NET_RAW, on which ping
// and traceroute know what to say.
func (t *table) sockets(c call) {
	inet := is(0, "family", unix.AF_INET, unix.AF_INET6)
	kind := func(values ...uint32) Cond { return is(1, "type", values...).masked(sockTypeMask) }

	t.when(c, Deny(unix.EAFNOSUPPORT), "other families widen the kernel surface or reach past the network namespace (AF_ALG, AF_VSOCK, AF_PACKET, ...)",
		isNot(0, "family", unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK))
	t.when(c, Deny(unix.EPROTONOSUPPORT), "of netlink only ROUTE: getifaddrs and every runtime's list of interfaces need it, and without a capability it only reads its own namespace",
		is(0, "family", unix.AF_NETLINK), isNot(2, "protocol", unix.NETLINK_ROUTE))
	t.when(c, Deny(unix.EPERM), "raw packets; SOCK_PACKET is AF_PACKET by its old name",
		inet, kind(unix.SOCK_RAW, unix.SOCK_PACKET))
	t.when(c, Deny(unix.ESOCKTNOSUPPORT), "no other transport (SCTP, DCCP)",
		inet, isNot(1, "type", unix.SOCK_STREAM, unix.SOCK_DGRAM).masked(sockTypeMask))
	t.when(c, Deny(unix.EPROTONOSUPPORT), "of streams only TCP: MPTCP, SCTP and SMC pass by rules written for TCP",
		inet, kind(unix.SOCK_STREAM), isNot(2, "protocol", 0, unix.IPPROTO_TCP))
	t.when(c, Deny(unix.EPROTONOSUPPORT), "of datagrams only UDP: no ping sockets, no UDP-Lite",
		inet, kind(unix.SOCK_DGRAM), isNot(2, "protocol", 0, unix.IPPROTO_UDP))
}

// outOfBand adds the rows against urgent data.
//
// What is dangerous is MSG_OOB on Unix sockets (CVE-2024-26923, CVE-2025-38236:
// code that nothing uses, reachable from every sandbox). A filter cannot see the
// family of a descriptor, so the flag is refused for all. TCP urgent data is
// advised against by RFC 6093 and does not pass the proxy. EOPNOTSUPP is the
// answer of Unix sockets built without it.
func (t *table) outOfBand() {
	const why = "urgent data on Unix sockets was exploitable more than once and nothing uses it; the family is not visible here"
	for _, row := range []struct {
		call
		arg int
	}{
		{call{"sendto", unix.SYS_SENDTO}, 3}, {call{"recvfrom", unix.SYS_RECVFROM}, 3},
		{call{"sendmsg", unix.SYS_SENDMSG}, 2}, {call{"recvmsg", unix.SYS_RECVMSG}, 2},
		{call{"sendmmsg", unix.SYS_SENDMMSG}, 3}, {call{"recvmmsg", unix.SYS_RECVMMSG}, 3},
	} {
		t.when(row.call, Deny(unix.EOPNOTSUPP), why, has(row.arg, "flags", unix.MSG_OOB))
	}
}
