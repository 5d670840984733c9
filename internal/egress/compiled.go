package egress

import (
	"net/netip"

	"openshell.dev/openshell/internal/decide"
)

// Compiled makes a Policy of a compiled document. word picks the wording of
// the narrowest change that suits the reader; nil takes the line of policy.
func Compiled(ix *decide.Index, word func(decide.Change) string) Policy {
	if word == nil {
		word = func(c decide.Change) string { return c.Line }
	}
	return compiled{ix, word}
}

type compiled struct {
	ix   *decide.Index
	word func(decide.Change) string
}

// Names includes every name if an endpoint allows any host by its address.
func (c compiled) Names(host string) bool { return c.ix.MatchesHost(host) || c.ix.Hostless() }

func (c compiled) Connect(f Flow) Verdict {
	chain := make([]decide.Program, len(f.Chain))
	for i, path := range f.Chain {
		chain[i].Path = path
	}
	flow := decide.Flow{Host: f.Host, Port: f.Port, Programs: [][]decide.Program{chain}}
	v := c.ix.Connect(flow)
	out := Verdict{Allow: v.Allow, Rule: v.Rule.Key, Detail: v.Address}
	switch {
	case !v.Allow:
		out.Reason, out.Change = c.ix.Explain(flow, v), c.word(c.ix.Change(flow, v))
	case v.Kind != decide.Relay && v.Kind != decide.Raw:
		// Requests that the policy wants read one by one must not pass unread.
		out = Verdict{Rule: v.Rule.Key, Reason: "the endpoint requires requests to be inspected, and this proxy relays them unread"}
	}
	return out
}

func (compiled) Address(_ Flow, v Verdict, addr netip.Addr) error {
	rule, ok := v.Detail.(decide.AddressRule)
	if !ok {
		return decide.RefusedNoRule
	}
	return decide.CheckAddress(addr, rule)
}
