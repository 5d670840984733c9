package netns

import (
	"bytes"
	"encoding/binary"
	"flag"
	"net/netip"
	"os"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	mdlayher "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite fence.bin")

// TestFenceIsBuiltFromTheRules compares the committed batch with the rules
// below. After a change of the rules: go test -run FenceIsBuilt -update.
func TestFenceIsBuiltFromTheRules(t *testing.T) {
	got := buildFence(t)
	if *update {
		if err := os.WriteFile("fence.bin", got, 0o644); err != nil {
			t.Fatal(err)
		}
		fence = got
	}
	if !bytes.Equal(got, fence) {
		t.Error("fence.bin does not hold the rules of this file; run the test with -update")
	}
}

// buildFence encodes the rules as one batch with a single acknowledgement, for
// its last message: a refusal is reported whatever the flags say.
func buildFence(t *testing.T) []byte {
	t.Helper()
	var sent []mdlayher.Message
	conn, err := nftables.New(nftables.WithTestDial(func(req []mdlayher.Message) ([]mdlayher.Message, error) {
		if len(req) > 0 {
			sent = req
		}
		acks := make([]mdlayher.Message, len(req))
		for i := range acks {
			acks[i] = mdlayher.Message{Header: mdlayher.Header{Type: mdlayher.Error, Sequence: req[i].Header.Sequence}, Data: make([]byte, 4)}
		}
		return acks, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	writeRules(t, conn)
	if err := conn.Flush(); err != nil && len(sent) == 0 {
		t.Fatal(err)
	}
	var out []byte
	for i, m := range sent {
		flags := uint16(m.Header.Flags) &^ (unix.NLM_F_ACK | unix.NLM_F_ECHO)
		if i == len(sent)-2 {
			flags |= unix.NLM_F_ACK
		}
		padded := (len(m.Data) + 3) &^ 3
		out = binary.NativeEndian.AppendUint32(out, uint32(unix.SizeofNlMsghdr+padded))
		out = binary.NativeEndian.AppendUint16(out, uint16(m.Header.Type))
		out = binary.NativeEndian.AppendUint16(out, flags)
		out = binary.NativeEndian.AppendUint32(out, uint32(i+1))
		out = binary.NativeEndian.AppendUint32(out, 0)
		out = append(out, m.Data...)
		out = append(out, make([]byte, padded-len(m.Data))...)
	}
	return out
}

// rule is one line: what must hold, then what happens.
type rule struct {
	why  string
	when [][]expr.Any
	then []expr.Any
}

// writeRules is the fence.
func writeRules(t *testing.T, conn *nftables.Conn) {
	t.Helper()
	table := conn.CreateTable(&nftables.Table{Name: Table, Family: nftables.TableFamilyINet})
	denied4 := addSet(t, conn, table, SetDenied4, 1, nftables.TypeIPAddr)
	denied6 := addSet(t, conn, table, SetDenied6, 2, nftables.TypeIP6Addr)
	accept, drop := nftables.ChainPolicyAccept, nftables.ChainPolicyDrop
	chains := []struct {
		chain nftables.Chain
		rules []rule
	}{
		// Before nat, so that it sees the destination that was meant.
		{nftables.Chain{Name: "early", Type: nftables.ChainTypeFilter, Priority: nftables.ChainPriorityMangle, Policy: &accept}, []rule{
			{"say what everybody is denied, if not too often", all(v4, opening, dest4In(denied4), seldom), logAs(LogDenied)},
			{"refuse at connect what everybody is denied", all(v4, opening, dest4In(denied4)), reset},
			{"say what everybody is denied, if not too often", all(v6, opening, dest6In(denied6), seldom), logAs(LogDenied)},
			{"refuse at connect what everybody is denied", all(v6, opening, dest6In(denied6)), reset},
			{"a connection straight to our listener has no destination", all(v4, tcp, port(CapturePort), dest4(Address)), reset},
			{"a connection straight to our listener has no destination", all(v6, tcp, port(CapturePort), dest6(Address6)), reset},
		}},
		{nftables.Chain{Name: "capture", Type: nftables.ChainTypeNAT, Priority: nftables.ChainPriorityNATDest, Policy: &accept}, []rule{
			{"a program's own name server, if there is one", all(v4, dest4("127.0.0.1")), leave},
			{"a program's own name server, if there is one", all(v6, dest6("::1")), leave},
			{"a program's own name server, if there is one", all(v4, dest4(Address)), leave},
			{"a program's own name server, if there is one", all(v6, dest6(Address6)), leave},
			{"questions to any other server, 127.0.0.53 included, are ours", all(v4, udp, port(53)), to4(DNSPort)},
			{"questions to any other server, 127.0.0.53 included, are ours", all(v4, tcp, port(53)), to4(DNSPort)},
			{"questions to any other server", all(v6, udp, port(53)), to6(DNSPort)},
			{"questions to any other server", all(v6, tcp, port(53)), to6(DNSPort)},
			{"services inside", all(v4, net4("127.0.0.0/8")), leave},
			{"the explicit proxy", all(v4, dest4(Proxy)), leave},
			{"the explicit proxy", all(v6, dest6(Proxy6)), leave},
			{"everything else is ours", all(v4, tcp), to4(CapturePort)},
			{"everything else is ours", all(v6, tcp), to6(CapturePort)},
		}},
		// By address and never by interface: routes through lo reach anywhere.
		{nftables.Chain{Name: "fence", Type: nftables.ChainTypeFilter, Priority: nftables.ChainPriorityFilter, Policy: &drop}, []rule{
			{"services inside and our listeners", all(v4, net4("127.0.0.0/8")), accepted},
			{"services inside and our listeners", all(v6, dest6("::1")), accepted},
			{"services inside and answers to captured connections", all(v4, range4(Proxy, Address)), accepted},
			{"services inside and answers to captured connections", all(v6, range6(Proxy6, Address6)), accepted},
			{"multicast stays inside; programs that announce themselves need it to succeed", all(v4, net4("224.0.0.0/4")), accepted},
			{"multicast stays inside; programs that announce themselves need it to succeed", all(v6, net6("ff00::/8")), accepted},
			{"say what has nowhere to go, if not too often", all(seldom), logAs(LogStray)},
			{"an ICMP answer would cost a connect one second", all(tcp), reset},
			{"the send fails at once with EPERM", all(), unreachable},
		}},
	}
	for _, c := range chains {
		c.chain.Table, c.chain.Hooknum = table, nftables.ChainHookOutput
		chain := conn.AddChain(&c.chain)
		for _, r := range c.rules {
			var exprs []expr.Any
			for _, w := range r.when {
				exprs = append(exprs, w...)
			}
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(exprs, r.then...)})
		}
	}
}

func addSet(t *testing.T, conn *nftables.Conn, table *nftables.Table, name string, id uint32, addr nftables.SetDatatype) *nftables.Set {
	t.Helper()
	set := &nftables.Set{
		Table: table, ID: id, Name: name, Concatenation: true, Dynamic: true, HasTimeout: true, Size: MaxDenied,
		KeyType: nftables.MustConcatSetType(addr, nftables.TypeInetService),
	}
	if err := conn.AddSet(set, nil); err != nil {
		t.Fatal(err)
	}
	return set
}

func all(parts ...[]expr.Any) [][]expr.Any { return parts }

func meta(key expr.MetaKey, value byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, equal(value)}
}

func equal(data ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func load(base expr.PayloadBase, offset, length, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}
}

// The conditions. An address is only ever looked at after v4 or v6.
var (
	v4  = meta(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV4)
	v6  = meta(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6)
	tcp = meta(expr.MetaKeyL4PROTO, unix.IPPROTO_TCP)
	udp = meta(expr.MetaKeyL4PROTO, unix.IPPROTO_UDP)

	// SYN without ACK: connections that exist are cut by the outside half.
	opening = append(append([]expr.Any{}, tcp...),
		load(expr.PayloadBaseTransportHeader, 13, 1, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x12}, Xor: []byte{0}},
		equal(0x02))

	seldom = []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: 20, Unit: expr.LimitTimeSecond, Burst: 100}}
)

func port(n uint16) []expr.Any {
	return []expr.Any{load(expr.PayloadBaseTransportHeader, 2, 2, 1), equal(binaryutil.BigEndian.PutUint16(n)...)}
}

func bytesOf(addr string) []byte { return netip.MustParseAddr(addr).AsSlice() }

func dest4(addr string) []expr.Any {
	return []expr.Any{load(expr.PayloadBaseNetworkHeader, 16, 4, 1), equal(bytesOf(addr)...)}
}

func dest6(addr string) []expr.Any {
	return []expr.Any{load(expr.PayloadBaseNetworkHeader, 24, 16, 1), equal(bytesOf(addr)...)}
}

func range4(from, to string) []expr.Any {
	return []expr.Any{load(expr.PayloadBaseNetworkHeader, 16, 4, 1),
		&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: bytesOf(from), ToData: bytesOf(to)}}
}

func range6(from, to string) []expr.Any {
	return []expr.Any{load(expr.PayloadBaseNetworkHeader, 24, 16, 1),
		&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: bytesOf(from), ToData: bytesOf(to)}}
}

func net4(prefix string) []expr.Any { return network(16, prefix) }
func net6(prefix string) []expr.Any { return network(24, prefix) }

func network(offset uint32, prefix string) []expr.Any {
	p := netip.MustParsePrefix(prefix)
	base := p.Masked().Addr().AsSlice()
	mask := make([]byte, len(base))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	n := uint32(len(base))
	return []expr.Any{load(expr.PayloadBaseNetworkHeader, offset, n, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: n, Mask: mask, Xor: make([]byte, n)},
		equal(base...)}
}

// The port goes into the register behind the address: 1 is 16 bytes long and
// begins at 8 in units of four bytes, so 9 is behind four and 12 behind sixteen.
func dest4In(set *nftables.Set) []expr.Any {
	return []expr.Any{load(expr.PayloadBaseNetworkHeader, 16, 4, 1), load(expr.PayloadBaseTransportHeader, 2, 2, 9),
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}}
}

func dest6In(set *nftables.Set) []expr.Any {
	return []expr.Any{load(expr.PayloadBaseNetworkHeader, 24, 16, 1), load(expr.PayloadBaseTransportHeader, 2, 2, 12),
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}}
}

// The actions.
var (
	reset       = []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
	unreachable = []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}
	leave       = []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
	accepted    = []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
)

func logAs(prefix string) []expr.Any {
	return []expr.Any{&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: LogGroup, Data: []byte(prefix)}}
}

// The destination is the interface's own address, not the loopback one that
// redirect would take: only so does a socket bound to the interface
// (SO_BINDTODEVICE, or a scoped fe80 destination) get its answer.
func to4(port uint16) []expr.Any { return to(unix.NFPROTO_IPV4, Address, port) }
func to6(port uint16) []expr.Any { return to(unix.NFPROTO_IPV6, Address6, port) }

func to(family uint32, addr string, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: bytesOf(addr)},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	}
}
