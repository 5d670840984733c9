package egress

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"openshell.dev/openshell/internal/event"
)

func query(t testing.TB, name string, kind dnsmessage.Type, edns bool) []byte {
	t.Helper()
	n, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 4711, RecursionDesired: true})
	_ = b.StartQuestions()
	_ = b.Question(dnsmessage.Question{Name: n, Type: kind, Class: dnsmessage.ClassINET})
	if edns {
		_ = b.StartAdditionals()
		var h dnsmessage.ResourceHeader
		_ = h.SetEDNS0(4096, 0, false)
		_ = b.OPTResource(h, dnsmessage.OPTResource{})
	}
	msg, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// ask returns the answer in one line: code, addresses with TTL.
func ask(t testing.TB, p *Proxy, name string, kind dnsmessage.Type) string {
	t.Helper()
	return show(t, p.Question(query(t, name, kind, true), maxUDPSize))
}

func show(t testing.TB, wire []byte) string {
	t.Helper()
	if wire == nil {
		return "silence"
	}
	var m dnsmessage.Message
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("our answer: %v", err)
	}
	if !m.Response || m.ID != 4711 {
		t.Errorf("header %+v", m.Header)
	}
	out := strings.TrimPrefix(m.RCode.String(), "RCode")
	for _, a := range m.Answers {
		switch r := a.Body.(type) {
		case *dnsmessage.AResource:
			out += fmt.Sprintf(" %s/%d", netip.AddrFrom4(r.A), a.Header.TTL)
		case *dnsmessage.AAAAResource:
			out += fmt.Sprintf(" %s/%d", netip.AddrFrom16(r.AAAA), a.Header.TTL)
		}
	}
	return out
}

const (
	typeSVCB  dnsmessage.Type = 64
	typeHTTPS dnsmessage.Type = 65
)

func TestTheAnswersOfThePolicyDNS(t *testing.T) {
	policy := rules{allow: []string{"api.example.com:443"}, wild: []string{".wild.example.com"}}
	for _, row := range []struct {
		name    string
		unknown UnknownNames
		kind    dnsmessage.Type
		want    string
	}{
		{"api.example.com.", Observe, dnsmessage.TypeA, "Success 198.18.0.1/30"},
		{"API.eXample.COM.", Observe, dnsmessage.TypeA, "Success 198.18.0.1/30"},
		{"api.example.com.", Observe, dnsmessage.TypeAAAA, "Success"},
		{"api.example.com.", Observe, dnsmessage.TypeMX, "Success"},
		{"api.example.com.", Observe, dnsmessage.TypeTXT, "Success"},
		{"api.example.com.", Observe, dnsmessage.TypeALL, "Success"},
		{"api.example.com.", Observe, typeHTTPS, "Success"},
		{"api.example.com.", Observe, typeSVCB, "Success"},
		{"a.wild.example.com.", Observe, dnsmessage.TypeA, "Success 198.18.0.1/30"},
		{"_http._tcp.a.wild.example.com.", Observe, dnsmessage.TypeSRV, "Success"},
		{"_http._tcp.a.wild.example.com.", Observe, dnsmessage.TypeA, "Success"},
		{"unknown.example.org.", Observe, dnsmessage.TypeA, "Success 198.18.0.1/30"},
		{"unknown.example.org.", Observe, dnsmessage.TypeAAAA, "Success"},
		{"unknown.example.org.", NXDomain, dnsmessage.TypeA, "NameError"},
		{"unknown.example.org.", NXDomain, dnsmessage.TypeAAAA, "NameError"},
		{"wpad.", Observe, dnsmessage.TypeA, "NameError"},
		{"printer.local.", Observe, dnsmessage.TypeA, "NameError"},
		{"1.0.200.10.in-addr.arpa.", Observe, dnsmessage.TypePTR, "NameError"},
		{"_sip._udp.example.org.", Observe, dnsmessage.TypeSRV, "Success"},
		{"_http._tcp.api.example.com.", NXDomain, dnsmessage.TypeSRV, "Success"},
		{"_http._tcp.example.org.", NXDomain, dnsmessage.TypeSRV, "NameError"},
		{"10.0.0.1.", Observe, dnsmessage.TypeA, "NameError"},
		{"0x7f.1.", Observe, dnsmessage.TypeA, "NameError"},
		{"evil\x00.example.com.", Observe, dnsmessage.TypeA, "NameError"},
		{"\x1b]0;x.example.com.", Observe, dnsmessage.TypeA, "NameError"},
		{".", Observe, dnsmessage.TypeNS, "NameError"},
		{"localhost.", Observe, dnsmessage.TypeA, "Success 127.0.0.1/30"},
		{"a.localhost.", Observe, dnsmessage.TypeAAAA, "Success ::1/30"},
		{"box.", Observe, dnsmessage.TypeA, "Success 10.200.0.2/30"},
		{"box.", Observe, dnsmessage.TypeAAAA, "Success"},
		{"host.openshell.internal.", NXDomain, dnsmessage.TypeA, "Success 198.18.0.1/30"},
		{"policy.local.", Observe, dnsmessage.TypeA, "NameError"},
	} {
		t.Run(fmt.Sprintf("%q %v", row.name, row.kind), func(t *testing.T) {
			z := &zone{}
			p := New(Options{Policy: policy, Resolver: z, UnknownNames: row.unknown, Hostname: "box", Self: mustAddr("10.200.0.2")})
			if got := ask(t, p, row.name, row.kind); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
			if len(z.questions()) != 0 {
				t.Error("somebody was asked upstream")
			}
		})
	}
}

func TestMessagesThatAreNoQuestion(t *testing.T) {
	p := New(Options{Policy: rules{}})
	good := query(t, "a.example.com.", dnsmessage.TypeA, false)
	change := func(f func(b []byte) []byte) []byte { return f(append([]byte(nil), good...)) }
	for _, row := range []struct {
		name string
		wire []byte
		want string
	}{
		{"nothing", nil, "silence"},
		{"half a header", good[:6], "silence"},
		{"an answer", change(func(b []byte) []byte { b[2] |= 0x80; return b }), "silence"},
		{"too long", make([]byte, maxQuery+1), "silence"},
		{"a notify", change(func(b []byte) []byte { b[2] |= 4 << 3; return b }), "NotImplemented"},
		{"no question", change(func(b []byte) []byte { b[5] = 0; return b[:12] }), "FormatError"},
		{"two questions", change(func(b []byte) []byte { b[5] = 2; return append(b, b[12:]...) }), "FormatError"},
		{"a cut name", good[:14], "FormatError"},
		{"an answer record claimed", change(func(b []byte) []byte { b[7] = 1; return b }), "FormatError"},
		{"a compression loop", change(func(b []byte) []byte { return append(b[:12], 0xc0, 12, 0, 1, 0, 1) }), "FormatError"},
		{"class CHAOS", change(func(b []byte) []byte { b[len(b)-1] = 3; return b }), "Refused"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := show(t, p.Question(row.wire, maxUDPSize)); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
	if got := p.Question(change(func(b []byte) []byte { // EDNS version 1
		b[11] = 1
		return append(b, 0, 0, 41, 16, 0, 0, 1, 0, 0, 0, 0)
	}), maxUDPSize); got == nil || got[3]&0xf != 0 || got[len(got)-6] != 1 {
		t.Errorf("BADVERS = %x", got)
	}
}

func TestAnAddressIsNeverGivenToAnotherName(t *testing.T) {
	n := newNames()
	seen := map[netip.Addr]string{}
	for i := range maxObserved + 10 {
		name := fmt.Sprintf("n%d.example.com", i)
		a, ok := n.address(name, true)
		if ok != (i < maxObserved) {
			t.Fatalf("name %d: %v", i, ok)
		}
		if !ok {
			continue
		}
		if other := seen[a]; other != "" || !synthetic.Contains(a) {
			t.Fatalf("%s has the address %s of %q", name, a, other)
		}
		seen[a] = name
	}
	// The names of the policy still get theirs, until nothing is left.
	for i := maxObserved; i < maxNames; i++ {
		if _, ok := n.address(fmt.Sprintf("p%d.example.com", i), false); !ok {
			t.Fatalf("no room for policy name %d", i)
		}
	}
	if a, ok := n.address("one.more", false); ok {
		t.Errorf("got %s from a full pool", a)
	}
	if a, ok := n.address("n0.example.com", true); !ok || a.String() != "198.18.0.1" {
		t.Errorf("a known name lost its address: %s", a)
	}
	if name, ok := n.name(mustAddr("198.18.0.1")); !ok || name != "n0.example.com" {
		t.Errorf("name = %q", name)
	}
	for _, a := range []string{"198.18.0.0", "198.19.255.255", "198.17.255.255", "198.20.0.0", "10.0.0.1", "::1"} {
		if name, ok := n.name(mustAddr(a)); ok {
			t.Errorf("%s stands for %q", a, name)
		}
	}
}

func TestAFullPoolIsAServerFailure(t *testing.T) {
	p := New(Options{Policy: rules{wild: []string{".example.com"}}})
	p.names.byOffset = make([]string, maxNames)
	if got := ask(t, p, "a.example.com.", dnsmessage.TypeA); got != "ServerFailure" {
		t.Errorf("got %q", got)
	}
	if got := ask(t, p, "a.example.org.", dnsmessage.TypeA); got != "NameError" {
		t.Errorf("unknown name: %q", got)
	}
}

func TestAnUnknownNameIsOneEvent(t *testing.T) {
	ring := event.NewRing(10)
	p := New(Options{Policy: rules{}, Events: ring, UnknownNames: NXDomain})
	for range 5 {
		ask(t, p, "x.example.com.", dnsmessage.TypeA)
		ask(t, p, "x.example.com.", dnsmessage.TypeAAAA)
	}
	got := ring.Events()
	if len(got) != 1 || event.Line(got[0]) != "NET:REFUSE [LOW] DENIED -> x.example.com:53/udp [policy:- engine:dns] [reason:the name is not allowed by any policy]" {
		t.Errorf("%d events: %v", len(got), event.Line(got[0]))
	}
	tunnel := event.NewRing(10)
	p = New(Options{Policy: rules{}, Events: tunnel})
	ask(t, p, "c2VjcmV0.evil.example.com.", dnsmessage.TypeTXT)
	if got := tunnel.Events(); len(got) != 1 {
		t.Errorf("a tunnel's question made %d events", len(got))
	}
	ask(t, p, "page.example.com.", dnsmessage.TypeA)
	if got := tunnel.Events(); len(got) != 1 {
		t.Errorf("an observed name made an event before it was connected to")
	}
}

func TestGoesThroughRealSocketsAndAResolver(t *testing.T) {
	up := serve(t, echo)
	b := start(t, Options{Policy: rules{allow: []string{"api.example.com:" + up.port}, private: true}})
	b.zone.names["api.example.com"] = []string{"127.0.0.1"}
	for _, network := range []string{"udp", "tcp"} {
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if network == "udp" {
				return (&net.Dialer{}).DialContext(ctx, "udp", b.dnsUDP)
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", b.dnsTCP)
		}}
		got, err := r.LookupNetIP(context.Background(), "ip4", "api.example.com.")
		if err != nil || len(got) != 1 || got[0].Unmap() != mustAddr("198.18.0.1") {
			t.Fatalf("%s: %v %v", network, got, err)
		}
		b.meant(netip.AddrPortFrom(got[0].Unmap(), netip.MustParseAddrPort(up.addr).Port()).String())
		c := dial(t, b.caught)
		_, _ = io.WriteString(c, "x\n")
		if got := readLine(t, c); got != "x\n" {
			t.Errorf("%s: %q", network, got)
		}
	}
	// Two questions on one connection, and a length that is too great.
	c := dial(t, b.dnsTCP)
	q := query(t, "api.example.com.", dnsmessage.TypeA, false)
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
	_, _ = c.Write(append(append(framed, framed...), 0xff, 0xff))
	all, _ := io.ReadAll(c)
	if n := strings.Count(string(all), "\xc6\x12\x00\x01"); n != 2 {
		t.Errorf("%d answers in %x", n, all)
	}
}

// Whatever comes, an answer is well-formed, repeats only the question, fits,
// and holds no address but those that mean something.
func FuzzQuestion(f *testing.F) {
	f.Add(query(f, "api.example.com.", dnsmessage.TypeA, true), 512)
	f.Add(query(f, "x.y.example.org.", dnsmessage.TypeAAAA, false), 1232)
	f.Add([]byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1}, 0)
	f.Fuzz(func(t *testing.T, wire []byte, size int) {
		z := &zone{}
		p := New(Options{Policy: rules{allow: []string{"api.example.com:443"}}, Resolver: z})
		out := p.Question(wire, size)
		if len(z.questions()) != 0 {
			t.Fatal("somebody was asked upstream")
		}
		if out == nil {
			return
		}
		if len(out) > max(size, minUDPSize) || len(out) > 65535 {
			t.Fatalf("%d bytes for a limit of %d", len(out), size)
		}
		var in, got dnsmessage.Message
		if err := got.Unpack(out); err != nil {
			t.Fatalf("our answer: %v", err)
		}
		var parser dnsmessage.Parser
		h, err := parser.Start(wire)
		if err != nil || !got.Response || got.ID != h.ID || h.Response || len(got.Authorities) != 0 {
			t.Fatalf("header %+v for %+v", got.Header, h)
		}
		_ = in
		if len(got.Questions) > 0 {
			q, err := parser.Question()
			if err != nil || q != got.Questions[0] {
				t.Fatalf("question %v became %v", q, got.Questions[0])
			}
		}
		for _, a := range got.Answers {
			if a.Header.Name != got.Questions[0].Name || a.Header.TTL > dnsTTL {
				t.Fatalf("answer %v", a.Header)
			}
			if r, ok := a.Body.(*dnsmessage.AResource); ok {
				addr := netip.AddrFrom4(r.A)
				name, known := p.names.name(addr)
				asked := strings.ToLower(strings.TrimSuffix(got.Questions[0].Name.String(), "."))
				if addr != mustAddr("127.0.0.1") && (!known || name != asked) {
					t.Fatalf("%s answered with %s of %q", asked, addr, name)
				}
			}
		}
	})
}
