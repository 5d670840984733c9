package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/netlink"
)

func TestParsePacket(t *testing.T) {
	v4 := func(proto byte, fragment uint16, ports ...byte) []byte {
		p := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0, 10, 200, 0, 2, 8, 8, 8, 8}
		binary.BigEndian.PutUint16(p[6:], fragment)
		return append(p, ports...)
	}
	options := v4(unix.IPPROTO_UDP, 0, 1, 1, 1, 1, 0, 1, 0, 2)
	options[0] = 0x46
	v6 := make([]byte, 44)
	v6[0], v6[6], v6[23], v6[39] = 0x60, unix.IPPROTO_TCP, 2, 1
	copy(v6[40:], []byte{0, 3, 0, 4})
	for _, tt := range []struct {
		name     string
		in       []byte
		proto    uint8
		from, to string
		ok       bool
	}{
		{"UDP", v4(17, 0, 0, 9, 0, 53), 17, "10.200.0.2:9", "8.8.8.8:53", true},
		{"behind options", options, 17, "10.200.0.2:1", "8.8.8.8:2", true},
		{"a later fragment", v4(17, 1, 0, 9, 0, 53), 17, "10.200.0.2:0", "8.8.8.8:0", true},
		{"ICMP has no ports", v4(1, 0, 8, 0, 1, 2), 1, "10.200.0.2:0", "8.8.8.8:0", true},
		{"ports cut off", v4(17, 0, 0, 9), 17, "10.200.0.2:0", "8.8.8.8:0", true},
		{"IPv6", v6, 6, "[::2]:3", "[::1]:4", true},
		{"IPv6 cut off", v6[:39], 0, "", "", false},
		{"header longer than the packet", append([]byte{0x4f}, v4(17, 0)[1:]...), 0, "", "", false},
		{"header shorter than can be", append([]byte{0x44}, v4(17, 0)[1:]...), 0, "", "", false},
		{"version 5", append([]byte{0x55}, v4(17, 0)[1:]...), 0, "", "", false},
		{"nothing", nil, 0, "", "", false},
	} {
		proto, from, to, ok := parsePacket(tt.in)
		if ok != tt.ok || ok && (proto != tt.proto || from.String() != tt.from || to.String() != tt.to) {
			t.Errorf("%s: %d %v %v %v", tt.name, proto, from, to, ok)
		}
	}
}

// A question's addresses come back from an answer that repeats them.
func FuzzRequestAndAnswer(f *testing.F) {
	f.Add([]byte{10, 200, 0, 2}, uint16(1), []byte{8, 8, 8, 8}, uint16(53))
	f.Add(make([]byte, 16), uint16(1), make([]byte, 16), uint16(53))
	f.Fuzz(func(t *testing.T, a []byte, ap uint16, b []byte, bp uint16) {
		la, ok1 := netip.AddrFromSlice(a)
		ra, ok2 := netip.AddrFromSlice(b)
		local, remote := unmap(netip.AddrPortFrom(la, ap)), unmap(netip.AddrPortFrom(ra, bp))
		if !ok1 || !ok2 || local.Addr().Is4() != remote.Addr().Is4() {
			return
		}
		q := request(local, remote, 0)
		if len(q) != 56 {
			t.Fatalf("request of %d bytes", len(q))
		}
		msg := make([]byte, answerLen)
		msg[0] = q[0]
		copy(msg[4:], q[8:])
		got, err := parseSocket(msg)
		if err != nil || got.local != local || got.remote != remote {
			t.Errorf("%v to %v came back as %v to %v, %v", local, remote, got.local, got.remote, err)
		}
	})
}

func FuzzParseSocket(f *testing.F) {
	var b netlink.Batch
	b.Message(requestType, 0, 1)
	b.Raw(make([]byte, answerLen)...)
	b.Attr(attrCgroupID, 1, 2, 3, 4, 5, 6, 7, 8)
	f.Add(b.Bytes()[netlink.HeaderLen:])
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := parseSocket(in)
		if err == nil && len(in) < answerLen {
			t.Errorf("%+v from %d bytes", a, len(in))
		}
		if err == nil && in[0] != unix.AF_INET && in[0] != unix.AF_INET6 && (a.local.IsValid() || a.remote.IsValid()) {
			t.Errorf("family %d has addresses %v, %v", in[0], a.local, a.remote)
		}
	})
}

// A refusal is only passed on with both addresses of one family.
func FuzzParseLog(f *testing.F) {
	var b netlink.Batch
	b.Message(logPacket, 0, 0)
	b.Raw(unix.AF_INET, 0, 0, 5)
	b.AttrString(logPrefix, "denied")
	b.Attr(logPayload, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 200, 0, 2, 8, 8, 8, 8, 0, 9, 0, 53)
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		n := 0
		parseLog(in, func(r Refusal) {
			n++
			if !r.From.IsValid() || !r.To.IsValid() || r.From.Addr().Is4() != r.To.Addr().Is4() {
				t.Errorf("refusal = %+v", r)
			}
		})
		if n > len(in)/netlink.HeaderLen {
			t.Errorf("%d refusals from %d bytes", n, len(in))
		}
	})
}

func FuzzParseSockaddr(f *testing.F) {
	f.Add([]byte{2, 0, 1, 187, 93, 184, 216, 34, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		if a, err := parseSockaddr(in); err == nil && (!a.IsValid() || a.Addr().Is4In6()) {
			t.Errorf("address %v without error", a)
		}
	})
}
