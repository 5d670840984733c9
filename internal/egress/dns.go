package egress

import (
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"openshell.dev/openshell/internal/event"
)

// UnknownNames says what the policy DNS answers for names no rule mentions.
// Nobody is ever asked upstream for them.
type UnknownNames uint8

const (
	// Observe gives them an address of their own, so that the connection that
	// follows is denied by name, port and program with the narrowest change.
	// It is the default, and what 0.1.x does.
	Observe UnknownNames = iota
	// NXDomain says that they do not exist, and makes an event.
	NXDomain
)

const (
	dnsTTL     = 30
	maxUDPSize = 1232 // what we say we take (DNS flag day 2020)
	minUDPSize = 512
	maxQuery   = 4096
)

// Question answers one DNS message of the sandbox. It decides by the current
// policy alone, waits for nobody, and gives nil for what deserves no answer.
func (p *Proxy) Question(wire []byte, size int) []byte {
	if len(wire) > maxQuery {
		return nil
	}
	var parser dnsmessage.Parser
	h, err := parser.Start(wire)
	if err != nil || h.Response {
		return nil // without a header there is nobody to answer; answers to answers loop
	}
	r := reply{id: h.ID, opcode: h.OpCode, recursion: h.RecursionDesired, size: max(min(size, 65535), minUDPSize)}
	if h.OpCode != 0 {
		return r.pack(dnsmessage.RCodeNotImplemented)
	}
	q, ok := onlyQuestion(&parser)
	if !ok {
		return r.pack(dnsmessage.RCodeFormatError)
	}
	edns, ok := onlyOPT(&parser)
	if !ok {
		return r.pack(dnsmessage.RCodeFormatError)
	}
	r.question, r.edns = &q, edns != nil
	if edns != nil {
		if edns.version != 0 {
			return r.pack(badVersion)
		}
		r.size = min(r.size, max(edns.size, minUDPSize))
	} else if size <= maxUDPSize {
		r.size = minUDPSize
	}
	if q.Class != dnsmessage.ClassINET {
		return r.pack(dnsmessage.RCodeRefused)
	}
	return r.pack(p.lookup(&r, q))
}

// onlyQuestion takes the one question of a message without answers.
func onlyQuestion(parser *dnsmessage.Parser) (dnsmessage.Question, bool) {
	q, err := parser.Question()
	if err != nil {
		return q, false
	}
	if _, err := parser.Question(); err != dnsmessage.ErrSectionDone {
		return q, false
	}
	if _, err := parser.AnswerHeader(); err != dnsmessage.ErrSectionDone {
		return q, false
	}
	_, err = parser.AuthorityHeader()
	return q, err == dnsmessage.ErrSectionDone
}

type ednsInfo struct {
	size    int
	version uint8
}

// onlyOPT reads the additional section: at most one OPT record (RFC 6891).
func onlyOPT(parser *dnsmessage.Parser) (*ednsInfo, bool) {
	var found *ednsInfo
	for range 8 {
		h, err := parser.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return found, true
		}
		if err != nil {
			return nil, false
		}
		if h.Type == dnsmessage.TypeOPT {
			if found != nil || h.Name.String() != "." {
				return nil, false
			}
			found = &ednsInfo{size: int(h.Class), version: uint8(h.TTL >> 16)}
		}
		if parser.SkipAdditional() != nil {
			return nil, false
		}
	}
	return nil, false
}

// lookup fills r for a question of class IN and returns the response code.
func (p *Proxy) lookup(r *reply, q dnsmessage.Question) dnsmessage.RCode {
	host, addr, err := canonicalHost(strings.TrimSuffix(q.Name.String(), "."))
	if err != nil || addr.IsValid() {
		p.reportQuestion(q, "not a host name", err == nil || q.Type == dnsmessage.TypeA)
		return dnsmessage.RCodeNameError
	}
	if v4, v6, ok := p.localName(host); ok {
		switch {
		case q.Type == dnsmessage.TypeA && v4.IsValid():
			r.a = v4
		case q.Type == dnsmessage.TypeAAAA && v6.IsValid():
			r.aaaa = v6
		}
		return dnsmessage.RCodeSuccess
	}
	// apt and others ask for _service._proto.NAME before they connect to NAME.
	base := withoutService(host)
	if isAlias(base) || p.current.Load().policy.Names(base) {
		return p.synthesise(r, q, host, false)
	}
	if p.opts.UnknownNames == NXDomain || !observable(base) {
		p.reportQuestion(q, "the name is not allowed by any policy", !strings.HasSuffix(host, ".arpa"))
		return dnsmessage.RCodeNameError
	}
	if !addressType(q.Type) {
		// A tunnel asks for TXT and the like; a program that wants to connect
		// is denied, and seen, when it does.
		p.reportQuestion(q, "the name is not allowed by any policy", true)
	}
	return p.synthesise(r, q, host, true)
}

// withoutService strips the leading labels of a service name (RFC 2782).
func withoutService(host string) string {
	for strings.HasPrefix(host, "_") {
		_, rest, ok := strings.Cut(host, ".")
		if !ok {
			return host
		}
		host = rest
	}
	return host
}

// addressType reports whether ordinary programs ask for t before they connect.
func addressType(t dnsmessage.Type) bool {
	return t == dnsmessage.TypeA || t == dnsmessage.TypeAAAA || t == dnsmessage.TypeSRV || t == 65 || t == 64
}

// synthesise answers A with the name's own address. AAAA and every other type
// exist but are empty; HTTPS and SVCB with them, so that nobody starts with
// QUIC or an encrypted client hello.
func (p *Proxy) synthesise(r *reply, q dnsmessage.Question, host string, observed bool) dnsmessage.RCode {
	if q.Type != dnsmessage.TypeA || strings.HasPrefix(host, "_") {
		return dnsmessage.RCodeSuccess
	}
	addr, ok := p.names.address(host, observed)
	switch {
	case ok:
		r.a = addr
		return dnsmessage.RCodeSuccess
	case observed:
		p.reportQuestion(q, "too many names that no policy allows", true)
		return dnsmessage.RCodeNameError
	}
	p.reportQuestion(q, "the addresses of this sandbox are used up", true)
	return dnsmessage.RCodeServerFailure
}

// localName answers the sandbox's own names.
func (p *Proxy) localName(host string) (v4, v6 netip.Addr, ok bool) {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761, 6.3
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback(), true
	}
	if p.opts.Hostname != "" && strings.EqualFold(host, p.opts.Hostname) {
		if self := p.opts.Self.Unmap(); self.Is4() {
			return self, netip.Addr{}, true
		}
		return netip.Addr{}, p.opts.Self, true
	}
	return netip.Addr{}, netip.Addr{}, false
}

func isAlias(host string) bool {
	for _, a := range hostAliases {
		if host == a {
			return true
		}
	}
	return false
}

// observable reports whether an unknown name gets an address: a dotted name
// outside the special domains (RFC 6761, 6762, 7686), where a wrong "exists"
// would confuse programs that only probe.
func observable(host string) bool {
	i := strings.LastIndexByte(host, '.')
	if i < 0 || strings.HasPrefix(host, "_") || strings.Contains(host, "._") {
		return false
	}
	switch host[i+1:] {
	case "arpa", "local", "localhost", "invalid", "test", "onion", "alt", "lan", "home", "localdomain":
		return false
	}
	return true
}

// reportQuestion makes the event of a question that was answered with no.
func (p *Proxy) reportQuestion(q dnsmessage.Question, why string, worthy bool) {
	if !worthy {
		return
	}
	name := strings.TrimSuffix(q.Name.String(), ".")
	p.denials.emit(burstKey{host: name, code: "dns", reason: why}, event.Event{
		Class: event.Network, Activity: event.NetRefuse, Severity: event.Low, Status: event.Failure,
		Action: event.Denied, Disposition: event.Blocked, Dst: &event.Endpoint{Domain: name, Port: 53},
		Rule: "-", Engine: "dns", Protocol: "udp", Detail: why,
		Message:  "DNS refused " + name,
		Unmapped: []event.Pair{{Key: "query_type", Value: q.Type.String()}},
	})
}
