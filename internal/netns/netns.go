// Package netns furnishes a fresh network namespace so that everything a
// program sends meets our listeners or a refusal.
//
// It owns the one interface programs see, the routes that lead nowhere but
// make the output hooks run, the packet rules (the fence) and the sockets that
// the outside half serves from. Nothing in it leads out: with every rule gone
// the namespace still has no way to the network.
//
// It guarantees that Setup fails unless exactly lo and our interface are up
// and running, and that LoadFence is all or nothing. It decides no policy,
// serves no connection and passes no descriptor on. The launcher calls it, as
// pid 1 with CAP_NET_ADMIN over fresh user and network namespaces; the outside
// half uses its constants only.
//
// The interface is of a kind that is alone in every list, up and running at
// once and with multicast: dummy or ifb where their driver is there, else a
// bridge without ports. Report says which was taken.
//
// What a program may notice: a server of its own on port 53 of 127.0.0.1, ::1
// or the interface's address is reached, every other name server is ours; a
// socket bound to lo (not to the interface) that connects elsewhere waits in
// vain; broadcast and UDP to anywhere fail at once with EPERM.
package netns

import "golang.org/x/sys/unix"

// Names and addresses inside. The proxy's addresses are local routes without
// an interface address: programs reach them and no list shows them.
const (
	Interface = "eth0"
	peerName  = "gw0" // only with a veth pair

	Address  = "10.200.0.2"
	Proxy    = "10.200.0.1" // explicit proxy and name server
	Address6 = "fd00:200::2"
	Proxy6   = "fd00:200::1"
)

// Ports of the listeners. The fence leads to CapturePort and DNSPort.
const (
	ProxyPort   = 3128
	CapturePort = 15001
	DNSPort     = 15053
)

// Names in the fence that the outside half uses.
const (
	LogGroup   = 5
	LogDenied  = "denied" // log prefix: destination in a denied set
	LogStray   = "stray"  // log prefix: what no listener can take, such as UDP
	Table      = "fence"
	SetDenied4 = "denied4" // address . port, with a time-out
	SetDenied6 = "denied6"
	// MaxDenied bounds each denied set.
	MaxDenied = 512
)

// Index names a socket of the floor. The order is the order in which the
// descriptors are handed over and never changes.
type Index int

// The sockets of the floor.
const (
	HTTP      Index = iota // stream, 10.200.0.1:3128: CONNECT, absolute-form, SOCKS
	TCP4                   // stream, 10.200.0.2:15001: captured connections
	TCP6                   // stream, [fd00:200::2]:15001
	DNSUDP4                // datagram, 10.200.0.2:15053: captured questions
	DNSUDP6                // datagram, [fd00:200::2]:15053
	DNSTCP4                // stream, 10.200.0.2:15053
	DNSTCP6                // stream, [fd00:200::2]:15053
	Diag                   // NETLINK_SOCK_DIAG: who owns a connection
	Netfilter              // NETLINK_NETFILTER: the fence and its denied sets
	Log                    // NETLINK_NETFILTER bound to LogGroup: refused packets
	Count
)

// Sockets are open descriptors by Index. All are non-blocking and closed on
// exec. A descriptor is -1 where the machine has no IPv6.
type Sockets [Count]int

// Close closes every open descriptor.
func (s *Sockets) Close() {
	for i, fd := range s {
		if fd >= 0 {
			unix.Close(fd)
			s[i] = -1
		}
	}
}

// Report says what Setup found and what it could not do.
type Report struct {
	Kind   string   // of the interface: dummy, ifb, bridge or veth
	IPv6   bool     // the namespace has IPv6 addresses and routes
	Others []string // further interfaces the kernel made by itself, all down
	Notes  []string // conveniences left out, in words; never a control
}
