package egress

import (
	"errors"
	"net/netip"
)

// Flow is one question to the policy: may this process reach this place?
type Flow struct {
	Host string     // canonical name, or the address in canonical form
	Addr netip.Addr // valid if Host is an address
	Port uint16
	// Chain is the paths of the program and its ancestors, nearest first.
	Chain []string
}

// Verdict is the answer. The zero Verdict denies.
type Verdict struct {
	Allow  bool
	Rule   string // key of the rule that matched, empty for none
	Reason string // why not
	Change string // the narrowest change that would allow it, if the policy knows
	// Detail is the policy's own, for Address.
	Detail any
}

// Policy is one compiled revision. It is pure: no network, no clock, no state.
type Policy interface {
	// Names reports whether some rule could allow a connection to host, a
	// canonical name; only such names get an address that means them.
	Names(host string) bool
	// Connect decides one flow.
	Connect(Flow) Verdict
	// Address reports why an address found for an allowed flow may not be
	// dialled, or nil. The text ends a message: "blocked: TEXT".
	Address(Flow, Verdict, netip.Addr) error
}

// denyAll is the policy of a proxy that was given none.
type denyAll struct{}

func (denyAll) Names(string) bool { return false }
func (denyAll) Connect(Flow) Verdict {
	return Verdict{Reason: "network connections not allowed by policy"}
}
func (denyAll) Address(Flow, Verdict, netip.Addr) error { return errors.New("internal address") }

// generation is everything one policy revision decides. It never changes.
type generation struct {
	policy   Policy
	revision uint64
}

// SetPolicy makes another policy revision rule. Live connections are
// authorised again under it, and those it does not allow are cut; the others
// do not notice. It returns how many were cut.
func (p *Proxy) SetPolicy(policy Policy, revision uint64) int {
	if policy == nil {
		policy = denyAll{}
	}
	next := &generation{policy: policy, revision: revision}
	p.current.Store(next)
	cut := 0
	for _, l := range p.live.all() {
		if !p.reauthorise(l, next) {
			cut++
		}
	}
	return cut
}

// reauthorise cuts l and returns false if g does not allow it.
func (p *Proxy) reauthorise(l *live, g *generation) bool {
	again := *l.passage.Load() // a passage that others see never changes
	d := again.evaluate(g)
	if d == nil {
		d = again.checkAddress(p, g, l.remote.Addr())
	}
	if d == nil {
		return true
	}
	if l.cut() {
		p.reportCut(l, d)
	}
	return false
}
