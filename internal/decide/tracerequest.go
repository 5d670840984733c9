package decide

import (
	"slices"

	"openshell.dev/openshell/internal/l7"
	"openshell.dev/openshell/internal/policy"
)

// RequestTrace is a ruling with what every endpoint and rule had to say.
type RequestTrace struct {
	Ruling  Ruling
	Connect Trace
	Rules   []RuleStep // rules of the endpoints that let the holder connect
}

// RuleStep says why one rule of an endpoint does or does not match a request.
type RuleStep struct {
	Rule   RuleRef
	Holder int
	Index  int  // in rules, deny_rules, or the preset
	Preset bool // the rule stands for the access member
	Denies bool
	Why    RuleWhy
	Pos    policy.Pos // of the rule; for a preset that of the endpoint
}

// RuleWhy is why a rule does not match.
type RuleWhy uint8

// The reasons, in the order in which they are looked for.
const (
	RuleMatches    RuleWhy = iota + 1
	OtherRoute             // the endpoint's path does not cover the request's
	OtherProtocol          // an endpoint of another protocol is closer
	OtherMethod            // HTTP method, or JSON-RPC method of some message
	OtherPath              // path
	OtherQuery             // a query value, or one is missing
	OtherOperation         // GraphQL type, name or field of some operation
	OtherTool              // MCP tool of some message
)

var ruleWhyTexts = [...]string{
	RuleMatches:    "matches",
	OtherRoute:     "the endpoint is for another path",
	OtherProtocol:  "another endpoint is closer and reads the request by another protocol",
	OtherMethod:    "another method",
	OtherPath:      "another path",
	OtherQuery:     "another query value, or it is missing",
	OtherOperation: "another operation or field",
	OtherTool:      "another tool",
}

// String returns the reason in words.
func (w RuleWhy) String() string {
	if int(w) < len(ruleWhyTexts) && ruleWhyTexts[w] != "" {
		return ruleWhyTexts[w]
	}
	return "unknown"
}

// TraceRequest decides a request and asks every rule in turn.
func (ix *Index) TraceRequest(f Flow, r *l7.Facts) RequestTrace {
	t := RequestTrace{Ruling: ix.Request(f, r), Connect: ix.Trace(f)}
	if ix == nil || r == nil {
		return t
	}
	for _, s := range t.Connect.Endpoints {
		if s.Why != Matched {
			continue
		}
		i := slices.IndexFunc(ix.all, func(e *endpoint) bool { return e.ref() == s.Rule })
		if i < 0 || ix.all[i].inspection == nil {
			continue
		}
		t.Rules = append(t.Rules, ix.all[i].steps(r, t.Ruling.Protocol, s.Holder)...)
	}
	return t
}

func (e *endpoint) steps(r *l7.Facts, protocol policy.Protocol, holder int) (out []RuleStep) {
	in := e.inspection
	list := func(rules []l7rule, denies bool, doc []policy.L7Rule) {
		for i := range rules {
			s := RuleStep{Rule: e.ref(), Holder: holder, Index: rules[i].index, Denies: denies, Preset: len(doc) == 0, Pos: e.doc.Pos}
			if !s.Preset {
				s.Pos = doc[rules[i].index].Pos
			}
			switch {
			case !in.path.match(r.Path):
				s.Why = OtherRoute
			case !denies && protocol != in.protocol:
				s.Why = OtherProtocol
			default:
				s.Why = in.why(&rules[i], r, denies)
			}
			out = append(out, s)
		}
	}
	list(in.deny, true, e.doc.Deny)
	list(in.allow, false, e.doc.Allow)
	return out
}

// why compares one rule with the request as a whole.
func (in *inspection) why(x *l7rule, r *l7.Facts, denies bool) RuleWhy {
	switch {
	case in.protocol == policy.MCP || in.protocol == policy.JSONRPC:
		return x.whyMessages(r, denies)
	case x.graphQL:
		return in.whyOperations(x, r, denies)
	case !matchMethod(x.method, r.Method):
		return OtherMethod
	case x.path != nil && !x.path.Match(r.Path, '/'):
		return OtherPath
	case !x.matchHTTP(r, denies):
		return OtherQuery
	}
	return RuleMatches
}

func (r *l7rule) whyMessages(f *l7.Facts, denies bool) RuleWhy {
	if f.RPC == nil || len(f.RPC.Messages) == 0 {
		return OtherMethod
	}
	out := OtherMethod
	for i := range f.RPC.Messages {
		m := &f.RPC.Messages[i]
		one := OtherMethod
		switch {
		case m.Kind != l7.Response && r.message(m):
			one = RuleMatches
		case r.tools != nil && m.Method == toolsCall:
			one = OtherTool
		}
		if denies && one == RuleMatches {
			return RuleMatches
		}
		if !denies && one != RuleMatches {
			return one
		}
		out = one
	}
	return out
}

func (in *inspection) whyOperations(x *l7rule, r *l7.Facts, denies bool) RuleWhy {
	if r.GraphQL == nil {
		return OtherOperation
	}
	hit := false
	for i := range r.GraphQL.Operations {
		kind, name, fields, ok := in.known(&r.GraphQL.Operations[i])
		fits := ok && x.operation(kind, name) && (denies && x.someField(fields) || !denies && x.allFields(fields))
		if !denies && !fits {
			return OtherOperation
		}
		hit = hit || fits
	}
	if !hit {
		return OtherOperation
	}
	return RuleMatches
}
