package policy

// Endpoint is one destination of a rule, with what is allowed there.
type Endpoint struct {
	// Host is a name, an address or a pattern as written, compared without
	// regard to case. It may be empty when AllowedIPs confines the endpoint.
	Host string
	// Ports has at least one port.
	Ports []uint16
	// Path selects among inspected endpoints of one host and port.
	Path string
	// AllowedIPs lists addresses and prefixes. If it is not empty, every
	// address a name resolves to must be inside, public ones included.
	AllowedIPs []string

	Protocol    Protocol
	TLS         TLSMode
	Enforcement Enforcement
	Access      Access
	Allow       []L7Rule // rules
	Deny        []L7Rule // deny_rules
	// AllowEncodedSlash keeps "%2F" in paths instead of refusing it.
	AllowEncodedSlash bool

	// CredentialProvider is the provider of credential_binding, or empty.
	CredentialProvider          string
	RequestBodyRewrite          bool
	WebSocketRewrite            bool
	AllowUninspectedCredentials bool
	Signing                     Signing
	SigningService              string
	SigningRegion               string

	PersistedQueries  PersistedQueries
	RegisteredQueries []RegisteredQuery // graphql_persisted_queries, by ascending ID
	GraphQLMaxBody    uint32            // 0: DefaultMaxBody
	JSONRPCMaxBody    uint32            // 0: DefaultMaxBody
	MCP               *MCPOptions       // nil: not written

	// Provenance of composed policies. Never written by a person, never
	// serialised.
	AdvisorProposed      bool
	ProviderCredentialed bool
	TokenGrantOwner      string

	Pos Pos
}

// DefaultMaxBody is how many bytes of a body are read for a decision if the
// endpoint does not say.
const DefaultMaxBody = 65536

// MCPOptions is the mcp member of an endpoint.
type MCPOptions struct {
	Versions         []MCPVersion // empty: DefaultMCPVersion
	MaxBody          uint32       // 0: DefaultMaxBody
	LooseToolNames   bool         // strict_tool_names: false
	AllowCoreMethods bool         // allow_all_known_mcp_methods
}

// MCPVersion is a revision of the Model Context Protocol.
type MCPVersion string

// The revisions of the contract. A request without a header is of the first.
const (
	MCP20250326 MCPVersion = "2025-03-26"
	MCP20250618 MCPVersion = "2025-06-18"
	MCP20251125 MCPVersion = "2025-11-25"
	MCP20260728 MCPVersion = "2026-07-28"

	DefaultMCPVersion = MCP20251125
)

var mcpVersions = []MCPVersion{MCP20250326, MCP20250618, MCP20251125, MCP20260728}

// EffectiveMCPVersions returns the revisions an mcp endpoint takes. Omission
// never means the latest.
func (e *Endpoint) EffectiveMCPVersions() []MCPVersion {
	if e.MCP == nil || len(e.MCP.Versions) == 0 {
		return []MCPVersion{DefaultMCPVersion}
	}
	return e.MCP.Versions
}

// Inspected reports whether requests to the endpoint are read one by one.
func (e *Endpoint) Inspected() bool { return e.Protocol.Inspected() && e.TLS != TLSSkip }

// RegisteredQuery is a GraphQL operation known by its hash or id.
type RegisteredQuery struct {
	ID            string
	OperationType string
	OperationName string
	Fields        []string
}

// L7Rule is one allow or deny rule of an inspected endpoint. Which members
// count depends on the protocol. Empty means not written.
type L7Rule struct {
	Method        string
	Path          string
	Command       string
	OperationType string
	OperationName string
	Fields        []string
	Query         []NamedMatcher // by ascending name
	// Tool is the tool member, which is the same as params.name.
	Tool   *Matcher
	Params []NamedMatcher // by ascending name
	Pos    Pos
}

// NamedMatcher is a matcher for the value with that name.
type NamedMatcher struct {
	Name string
	Matcher
}

// Matcher is a glob, or any of several.
type Matcher struct {
	Glob string
	Any  []string // not empty: {any: [...]}, and Glob is empty
}

// Globs returns the alternatives of the matcher.
func (m *Matcher) Globs() []string {
	if len(m.Any) > 0 {
		return m.Any
	}
	return []string{m.Glob}
}

// ToolMatcher returns what selects a tool: Tool, or params.name.
func (r *L7Rule) ToolMatcher() *Matcher {
	if r.Tool != nil {
		return r.Tool
	}
	for i := range r.Params {
		if r.Params[i].Name == "name" {
			return &r.Params[i].Matcher
		}
	}
	return nil
}
