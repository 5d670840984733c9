package decide

import "strings"

// search is one walk over the index for one holder of a socket. It lives on
// the stack of Connect.
type search struct {
	port  uint16
	chain []Program
	any   bool // every program

	nameOnly bool // MatchesHost: stop at the host
	named    bool // some endpoint covers the host

	matched  *endpoint // allows it; smallest order
	exact    bool      // one of those names the host itself
	listed   *endpoint // one of those has allowed_ips
	kind     Kind      // strictest of those
	onPort   *endpoint // covers host and port, not the program; smallest order
	offPort  *endpoint // covers the host, not the port
	noSource bool      // the holder has no known executable

	asking *asking // a request to be judged on the way, or nil

	missed  *[maxMissed]*endpoint // if not nil, keeps the endpoints that the program misses
	nMissed int
}

// maxMissed bounds the rules that one explanation names: a sandbox may cause
// as many denials as it likes.
const maxMissed = 8

// find visits every endpoint whose host covers host.
func (ix *Index) find(s *search, host string) {
	s.noSource = !s.any && (len(s.chain) == 0 || s.chain[0].Path == "")
	if at := ix.exact[host]; at != nil {
		s.visit(at)
	}
	ix.wild.find(s, host)
	s.visit(ix.hostless)
}

// find walks the labels of host from the right. Each node has one depth, so
// it is visited at most once.
func (n *node) find(s *search, rest string) {
	if n.deep != nil {
		s.visit(n.deep)
	}
	dot := strings.LastIndexByte(rest, '.')
	label := rest[dot+1:]
	child := n.children[label]
	if dot < 0 {
		if n.one != nil {
			s.visit(n.one)
		}
		if child != nil && child.here != nil {
			s.visit(child.here)
		}
		for i := range n.partial {
			if matchLabel(n.partial[i].pattern, label) {
				s.visit(n.partial[i].site)
			}
		}
		return
	}
	if child != nil {
		child.find(s, rest[:dot])
	}
	if n.star != nil {
		n.star.find(s, rest[:dot])
	}
}

func (s *search) visit(at *site) {
	s.named = s.named || len(at.ports) > 0
	if s.nameOnly {
		return
	}
	list := at.at(s.port)
	if list == nil && len(at.ports) > 0 {
		if e := at.ports[0].endpoints[0]; e.doc.Host != "" && (s.offPort == nil || e.order < s.offPort.order) {
			s.offPort = e
		}
	}
	for _, e := range list {
		if !s.any && (s.noSource || !e.rule.programs.match(s.chain)) {
			if s.onPort == nil || e.order < s.onPort.order {
				s.onPort = e
			}
			if s.missed != nil && s.nMissed < maxMissed {
				s.missed[s.nMissed] = e
				s.nMissed++
			}
			continue
		}
		if s.matched == nil || e.order < s.matched.order {
			s.matched = e
		}
		if s.kind == Denied || e.kind < s.kind {
			s.kind = e.kind
		}
		s.exact = s.exact || e.exact
		if s.asking != nil {
			s.asking.consider(e)
		}
		if e.listed && (s.listed == nil || e.order < s.listed.order) {
			s.listed = e
		}
	}
}

func (s *search) verdict(holder int) Verdict {
	if e := s.matched; e != nil {
		return Verdict{Allow: true, Kind: s.kind, Reason: Matched, Rule: e.ref(), Address: s.address()}
	}
	v := Verdict{Holder: holder, Reason: NoEndpoint}
	switch {
	case s.onPort != nil && s.noSource:
		v.Reason, v.Rule = ProgramUnknown, s.onPort.ref()
	case s.onPort != nil:
		v.Reason, v.Rule = ProgramNotAllowed, s.onPort.ref()
	case s.offPort != nil:
		v.Reason, v.Rule = PortNotAllowed, s.offPort.ref()
	}
	return v
}

// address says which addresses the matching endpoints let be dialled.
func (s *search) address() AddressRule {
	r := AddressRule{mode: publicOnly, port: s.port}
	switch {
	case s.listed != nil:
		r.mode, r.allowed = listedOnly, s.listed.allowed
	case s.exact:
		r.mode = named
	}
	return r
}

func (e *endpoint) ref() RuleRef { return RuleRef{Key: e.rule.key, Endpoint: e.index, Pos: e.doc.Pos} }
