package decide

import (
	"slices"
	"strings"

	"openshell.dev/openshell/internal/l7"
	"openshell.dev/openshell/internal/policy"
)

// Ruling is the answer to Request. The zero Ruling denies.
type Ruling struct {
	// Allow says that the request may be forwarded: a rule allows it, or it is
	// denied softly by an endpoint that only audits (then Audited is set).
	Allow   bool
	Audited bool
	// Hard marks a denial that auditing does not soften.
	Hard   bool
	Reason Reason
	// Rule is the endpoint that decided: of the allow or deny rule, or the one
	// that was asked for the path.
	Rule RuleRef
	// Index is that of the rule in rules or deny_rules (Denies), -1 for none.
	Index    int
	Denies   bool
	Protocol policy.Protocol
	Holder   int // index of the entry of Flow.Programs that was denied
}

// Request decides one request, and the connection it needs. On a connection
// that Connect allows with another kind than Inspect every request passes. It
// does not allocate.
//
// Every endpoint whose host, port and program match takes part. The one whose
// path fits closest says how the request is read and whether a denial is
// enforced; only rules of its protocol can allow, any deny rule can deny, and
// deny wins.
func (ix *Index) Request(f Flow, r *l7.Facts) Ruling {
	if ix == nil || r == nil {
		return Ruling{Index: -1}
	}
	if !canonical(f.Host) {
		return Ruling{Index: -1, Hard: true, Reason: HostNotCanonical}
	}
	if ix.ignorePrograms || len(f.Programs) == 0 { // nobody, who is denied
		return ix.ask(f, nil, 0, r)
	}
	var out Ruling
	for i, chain := range f.Programs {
		switch one := ix.ask(f, chain, i, r); {
		case !one.Allow:
			return one
		case i == 0 || one.Audited && !out.Audited:
			out = one
		}
	}
	return out
}

// asking is one walk over the endpoints for one request and one holder.
type asking struct {
	facts    *l7.Facts
	route    *endpoint // closest path; the later of equals
	deciding bool      // second walk: rules
	// hits are the endpoints of the first walk, so that few need no second.
	hits     [8]*endpoint
	found    int
	revision policy.MCPVersion

	denied, allowed         *endpoint
	deniedRule, allowedRule int
	unregistered            bool // a persisted query is not known
}

// ask decides for one holder. If only endpoints without inspection allow it to
// connect, its requests pass.
func (ix *Index) ask(f Flow, chain []Program, holder int, r *l7.Facts) Ruling {
	a := asking{facts: r}
	s := search{port: f.Port, chain: chain, any: ix.ignorePrograms, asking: &a}
	ix.find(&s, f.Host)
	if s.matched == nil {
		v := s.verdict(holder)
		return Ruling{Index: -1, Hard: true, Reason: v.Reason, Rule: v.Rule, Holder: holder}
	}
	if a.route == nil {
		if s.kind != Inspect {
			return Ruling{Index: -1, Allow: true, Reason: Matched, Rule: s.matched.ref(), Holder: holder}
		}
		return Ruling{Index: -1, Hard: true, Reason: NoRoute, Rule: s.matched.ref(), Holder: holder}
	}
	in := a.route.inspection
	out := Ruling{Index: -1, Rule: a.route.ref(), Protocol: in.protocol, Holder: holder}
	if out.Reason = a.precheck(in); out.Reason != NoReason {
		out.Hard = true
		return out
	}
	a.deciding = true
	if a.found <= len(a.hits) {
		for _, e := range a.hits[:a.found] {
			a.judge(e)
		}
	} else {
		ix.find(&s, f.Host)
	}
	switch {
	case a.denied != nil:
		out.Reason, out.Rule, out.Index, out.Denies = RuleDenied, a.denied.ref(), a.deniedRule, true
	case a.allowed != nil:
		out.Allow, out.Reason, out.Rule, out.Index = true, Matched, a.allowed.ref(), a.allowedRule
		return out
	case a.unregistered:
		out.Reason = QueryNotRegistered
	default:
		out.Reason = NoRule
	}
	if !in.enforce {
		out.Allow, out.Audited = true, true
	}
	return out
}

// precheck finds what no rule can allow.
func (a *asking) precheck(in *inspection) Reason {
	r := a.facts
	switch {
	case r.Path == "" || r.Path[0] != '/' && r.Path != "*":
		return TargetNotCanonical
	case r.EncodedSlash && !in.encodedSlash:
		return EncodedSlash
	case r.Upgrade && in.protocol != policy.WebSocket:
		return UpgradeRefused
	}
	switch in.protocol {
	case policy.WebSocket:
		if r.Method != l7.WebSocketText && (!r.Upgrade || !r.WebSocket || r.Method != "GET") {
			return NotWebSocket
		}
		if in.graphQL && r.Method == l7.WebSocketText {
			return malformedGraphQL(r)
		}
	case policy.GraphQL:
		return malformedGraphQL(r)
	case policy.JSONRPC:
		return a.precheckRPC()
	case policy.MCP:
		return a.precheckMCP(in)
	case policy.ProtocolNone, policy.TCP, policy.REST, policy.SQL:
	}
	return NoReason
}

// consider takes an endpoint that matches host, port and program.
func (a *asking) consider(e *endpoint) {
	in := e.inspection
	if in == nil || !in.path.match(a.facts.Path) {
		return
	}
	if !a.deciding {
		if a.found < len(a.hits) {
			a.hits[a.found] = e
		}
		a.found++
		if a.route == nil || in.path.specificity > a.route.inspection.path.specificity ||
			in.path.specificity == a.route.inspection.path.specificity && e.order > a.route.order {
			a.route = e
		}
		return
	}
	a.judge(e)
}

// judge asks the rules of an endpoint whose path covers the request.
func (a *asking) judge(e *endpoint) {
	in := e.inspection
	if a.denied == nil || e.order < a.denied.order {
		if n := a.denies(in); n >= 0 {
			a.denied, a.deniedRule = e, n
		}
	}
	if in.protocol != a.route.inspection.protocol {
		return // another reading of the bytes cannot allow them
	}
	if a.allowed == nil || e.order < a.allowed.order {
		if ok, n := a.allows(in); ok {
			a.allowed, a.allowedRule = e, n
		}
	}
}

// denies returns the index of the first deny rule that fires, or -1.
func (a *asking) denies(in *inspection) int {
	for i := range in.deny {
		d := &in.deny[i]
		fires := false
		switch {
		case in.protocol == policy.MCP, in.protocol == policy.JSONRPC:
			fires = a.rpcHas(d)
		case d.graphQL:
			fires = a.graphQLDenied(in, d)
		default:
			fires = d.matchHTTP(a.facts, true)
		}
		if fires {
			return d.index
		}
	}
	return -1
}

// allows reports whether the rules of an endpoint allow the request, and by
// which; the index is -1 where several or none by name did.
func (a *asking) allows(in *inspection) (bool, int) {
	switch in.protocol {
	case policy.GraphQL:
		return a.graphQLAllowed(in), -1
	case policy.MCP, policy.JSONRPC:
		return a.rpcAllowed(in), -1
	case policy.WebSocket:
		if in.graphQL && a.facts.Method == l7.WebSocketText {
			return a.graphQLAllowed(in), -1
		}
	case policy.ProtocolNone, policy.TCP, policy.REST, policy.SQL:
	}
	for i := range in.allow {
		if !in.allow[i].graphQL && in.allow[i].matchHTTP(a.facts, false) {
			return true, in.allow[i].index
		}
	}
	return false, -1
}

// matchHTTP compares method, path and query. For a denial one value of each
// named parameter is enough; to be allowed, all must fit.
func (r *l7rule) matchHTTP(f *l7.Facts, deny bool) bool {
	if !matchMethod(r.method, f.Method) || r.path != nil && !r.path.Match(f.Path, '/') {
		return false
	}
	for i := range r.query {
		q := &r.query[i]
		found, hit := false, false
		for j := range f.Query {
			if f.Query[j].Name != q.name {
				continue
			}
			found = true
			if matchAny(q.globs, f.Query[j].Value) {
				hit = true
			} else if !deny {
				return false
			}
		}
		if !found || !hit {
			return false
		}
	}
	return true
}

// matchMethod compares a rule's upper-case method with that of a request. A
// GET rule speaks for HEAD too.
func matchMethod(rule, method string) bool {
	return rule == "*" || strings.EqualFold(rule, method) || rule == "GET" && strings.EqualFold(method, "HEAD")
}

func matchAny(globs []*policy.Glob, s string) bool {
	return slices.ContainsFunc(globs, func(g *policy.Glob) bool { return g.Match(s, '.') })
}
