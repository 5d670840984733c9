// Package decide compiles a policy document to an immutable index and answers
// questions about it: may these programs connect there, may this address be
// dialled.
//
// It is pure (no network, no file, no clock) and decides without allocating.
// The zero value of every answer denies, and so does whatever it was not told:
// an unknown program, a host that is not canonical, a nil Index. The texts of
// a denial are made only when asked for, by Explain and Change. The proxy, the
// gateway's checks and the explaining commands all use this same code.
package decide

import (
	"openshell.dev/openshell/internal/policy"
)

// Program is one executable. A Program without a path is unknown and matches
// no rule.
type Program struct {
	Path   string   // absolute, as found behind the process, never argv[0]
	Digest [32]byte // SHA-256 of its content, zero if it was not taken
}

// Flow is one connection that somebody wants.
type Flow struct {
	// Host is what policy.CanonicalHost returns: a lower-case name or an
	// address. Everything else is denied.
	Host string
	Port uint16
	// Programs has an entry for each process that holds the socket: its
	// executable, then its ancestors', nearest first. All of them must be
	// allowed. Nobody is denied.
	Programs [][]Program
}

// Kind is how an allowed connection is treated.
type Kind uint8

// The kinds.
const (
	Denied  Kind = iota // not at all
	Inspect             // requests are read and judged one by one
	Relay               // relayed; TLS may be ended where credentials need it
	Raw                 // relayed unread: protocol tcp, or tls: skip
)

// Reason is why a verdict is what it is.
type Reason uint8

// The reasons.
const (
	NoReason          Reason = iota // nothing allowed it
	Matched                         // a rule allows it
	HostNotCanonical                // the caller gave no canonical host
	NoEndpoint                      // no rule names the host
	PortNotAllowed                  // a rule names the host, not the port
	ProgramUnknown                  // no process, or one without a known executable
	ProgramNotAllowed               // rules name the endpoint, not the program

	// Of requests. Only the first three can be softened by auditing.
	RuleDenied            // a deny rule fired
	NoRule                // no allow rule matches
	QueryNotRegistered    // a GraphQL query sent as an unknown hash
	NoRoute               // no endpoint on the host and port has the path
	TargetNotCanonical    // the caller gave no canonical path
	EncodedSlash          // "%2F", and the endpoint does not take it
	UpgradeRefused        // Upgrade on an endpoint that cannot follow it
	NotWebSocket          // no valid upgrade on a websocket endpoint
	GraphQLMalformed      // the document cannot be judged
	RPCMalformed          // the JSON-RPC body cannot be judged
	RPCResponse           // a response frame from the client
	MCPRevisionUnknown    // the revision header is not one known revision
	MCPRevisionNotAllowed // a known revision that the endpoint does not take
	MCPInvalid            // structure, direction or method is not of the revision
	MCPMethodNotAllowed   // the revision knows POST only
)

// RuleRef names an endpoint of a rule and its place in the document.
type RuleRef struct {
	Key      string // key of the rule, empty for none
	Endpoint int    // index into its endpoints
	Pos      policy.Pos
}

// Verdict is the answer to Connect. The zero Verdict denies.
type Verdict struct {
	Allow  bool
	Kind   Kind
	Reason Reason
	// Rule is the rule that allows, the one with the smallest key if there
	// are several; for a denial the one that came closest, if any.
	Rule RuleRef
	// Holder is the index of the entry of Flow.Programs that was denied.
	Holder int
	// Address says which addresses may be dialled. Its zero value: none.
	Address AddressRule
}

// Options changes what Compile makes. The zero value is the contract.
type Options struct {
	// IgnorePrograms allows every program what a rule allows one. It stands
	// for hosts where programs cannot be told apart, and is asked for.
	IgnorePrograms bool
	// Targets returns further paths for an exact binary path, such as what a
	// symbolic link leads to inside the sandbox. It is called by Compile only.
	Targets func(path string) []string
}

// Compile makes the index of a document. It refuses, as a *policy.Error, a
// document that is not valid or that is ambiguous. It does not refuse what is
// not enforced yet: that is policy.Unenforced's question.
func Compile(d *policy.Document) (*Index, error) { return CompileWith(d, Options{}) }

// CompileWith is Compile with options.
func CompileWith(d *policy.Document, opts Options) (*Index, error) {
	vs := append(policy.Validate(d), policy.Ambiguities(d)...)
	if err := policy.NewError(d, vs); err != nil {
		return nil, err
	}
	return build(d, opts)
}

// Connect decides one connection. It does not allocate.
func (ix *Index) Connect(f Flow) Verdict {
	if ix == nil {
		return Verdict{}
	}
	if !canonical(f.Host) {
		return Verdict{Reason: HostNotCanonical}
	}
	if ix.ignorePrograms {
		s := search{port: f.Port, any: true}
		ix.find(&s, f.Host)
		return s.verdict(0)
	}
	var out Verdict
	for i, chain := range f.Programs {
		s := search{port: f.Port, chain: chain}
		ix.find(&s, f.Host)
		v := s.verdict(i)
		switch {
		case !v.Allow:
			return v
		case i == 0:
			out = v
		default:
			out = out.and(v)
		}
	}
	if len(f.Programs) == 0 {
		s := search{port: f.Port}
		ix.find(&s, f.Host)
		return s.verdict(0)
	}
	return out
}

// and joins the verdicts on two holders of one socket: the stricter of each.
func (v Verdict) and(w Verdict) Verdict {
	if w.Kind < v.Kind { // the kinds stand in order of strictness
		v.Kind = w.Kind
	}
	v.Address = v.Address.and(w.Address)
	return v
}
