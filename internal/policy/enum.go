package policy

import "strings"

// Every enumeration below has zero for "not written". What that means is said
// by the Effective method of the type or in its comment; it is never a
// permission.

// Compatibility is what happens when Landlock cannot enforce the file rules.
type Compatibility uint8

// The Landlock modes.
const (
	CompatibilityUnspecified Compatibility = iota // best effort
	BestEffort                                    // run on, and say so
	HardRequirement                               // do not start
)

// Protocol is how an endpoint's traffic is read.
type Protocol uint8

// The protocols. SQL is known to the contract and enforced by nobody.
const (
	ProtocolNone Protocol = iota // connection level only
	TCP
	REST
	WebSocket
	GraphQL
	SQL
	JSONRPC
	MCP
)

// Inspected reports whether requests are read and judged one by one.
func (p Protocol) Inspected() bool {
	switch p {
	case REST, WebSocket, GraphQL, JSONRPC, MCP:
		return true
	case ProtocolNone, TCP, SQL:
	}
	return false
}

// TLSMode is what happens to TLS on an endpoint.
type TLSMode uint8

// The TLS modes.
const (
	TLSAuto TLSMode = iota // found out from the first bytes
	TLSSkip                // relayed unread
)

// Enforcement is what a denied request of an inspected endpoint leads to.
type Enforcement uint8

// The enforcement modes. The contract's default is Audit.
const (
	EnforcementUnspecified Enforcement = iota // audit
	Audit                                     // logged and forwarded
	Enforce                                   // refused
)

// Enforced reports whether a denied request is refused.
func (e Enforcement) Enforced() bool { return e == Enforce }

// Access is a preset of allow rules.
type Access uint8

// The presets.
const (
	AccessNone Access = iota
	ReadOnly
	ReadWrite
	Full
)

// PersistedQueries is what a GraphQL endpoint does with queries sent as a hash.
type PersistedQueries uint8

// The modes for persisted queries.
const (
	PersistedUnspecified PersistedQueries = iota // deny
	PersistedDeny
	PersistedRegistered
)

// Signing is how requests are signed again at the last step.
type Signing uint8

// The signing schemes.
const (
	SigningNone Signing = iota
	SigV4
	SigV4Body
	SigV4NoBody
)

// OnError is what a failing middleware does to a request.
type OnError uint8

// The failure modes.
const (
	OnErrorUnspecified OnError = iota // fail closed
	FailClosed
	FailOpen
)

// OnUninspectable is what happens to traffic a middleware cannot read.
type OnUninspectable uint8

// The modes for uninspectable traffic.
const (
	UninspectableUnspecified OnUninspectable = iota // deny, or allow beside fail_open
	UninspectableDeny
	UninspectableAllow
)

// Clipboard is what an agent may do with the clipboard.
type Clipboard uint8

// The clipboard modes.
const (
	ClipboardNone Clipboard = iota
	ClipboardRead
	ClipboardWrite
	ClipboardAll
)

// The spelling of each value; the index is the value, "" cannot be written.
var (
	compatibilityWords   = []string{"", "best_effort", "hard_requirement"}
	protocolWords        = []string{"", "tcp", "rest", "websocket", "graphql", "sql", "json-rpc", "mcp"}
	tlsWords             = []string{"", "skip"}
	enforcementWords     = []string{"", "audit", "enforce"}
	accessWords          = []string{"", "read-only", "read-write", "full"}
	persistedWords       = []string{"", "deny", "allow_registered"}
	signingWords         = []string{"", "sigv4", "sigv4:body", "sigv4:no_body"}
	onErrorWords         = []string{"", "fail_closed", "fail_open"}
	onUninspectableWords = []string{"", "deny", "allow"}
	clipboardWords       = []string{"none", "read", "write", "all"}
)

func (c Compatibility) String() string    { return word(compatibilityWords, c) }
func (p Protocol) String() string         { return word(protocolWords, p) }
func (t TLSMode) String() string          { return word(tlsWords, t) }
func (e Enforcement) String() string      { return word(enforcementWords, e) }
func (a Access) String() string           { return word(accessWords, a) }
func (p PersistedQueries) String() string { return word(persistedWords, p) }
func (s Signing) String() string          { return word(signingWords, s) }
func (o OnError) String() string          { return word(onErrorWords, o) }
func (o OnUninspectable) String() string  { return word(onUninspectableWords, o) }
func (c Clipboard) String() string        { return word(clipboardWords, c) }

func word[T ~uint8](words []string, v T) string {
	if int(v) < len(words) {
		return words[v]
	}
	return "invalid"
}

// lookup finds the value spelled s. Spelling counts: "SKIP" is not "skip".
func lookup[T ~uint8](words []string, s string) (T, bool) {
	for i, w := range words {
		if w == s && w != "" {
			return T(i), true
		}
	}
	return 0, false
}

// ParseProtocol finds a protocol by name, in any case as the contract does.
func ParseProtocol(s string) (Protocol, bool) {
	return lookup[Protocol](protocolWords, strings.ToLower(s))
}
