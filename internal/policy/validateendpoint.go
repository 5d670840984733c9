package policy

import "strings"

// endpoint checks one endpoint; all its violations are reported together.
func (c *checker) endpoint(e *Endpoint, path string) {
	c.destination(e, path)
	if e.Protocol == TCP {
		c.tcp(e, path)
		return
	}
	c.allowBase(e, path)
	c.options(e, path)
	for i := range e.Allow {
		c.l7rule(e, &e.Allow[i], index(path+".rules", i)+".allow", true)
	}
	for i := range e.Deny {
		c.l7rule(e, &e.Deny[i], index(path+".deny_rules", i), false)
	}
	switch e.Protocol {
	case MCP:
		c.mcpRules(e, path)
	case WebSocket:
		c.webSocketRules(e, path)
	case ProtocolNone, TCP, REST, GraphQL, SQL, JSONRPC:
	}
}

// tcp refuses everything a raw stream cannot have.
func (c *checker) tcp(e *Endpoint, path string) {
	if e.Access != AccessNone || len(e.Allow) > 0 || len(e.Deny) > 0 {
		c.add(Invalid, path+".protocol", "protocol tcp does not support access, rules, or deny_rules; remove them or choose an inspected protocol")
	}
	var fields []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"tls", e.TLS != TLSAuto},
		{"enforcement", e.Enforcement != EnforcementUnspecified},
		{"path", e.Path != ""},
		{"allow_encoded_slash", e.AllowEncodedSlash},
		{"websocket_credential_rewrite", e.WebSocketRewrite},
		{"request_body_credential_rewrite", e.RequestBodyRewrite},
		{"persisted_queries", e.PersistedQueries != PersistedUnspecified},
		{"graphql_persisted_queries", len(e.RegisteredQueries) > 0},
		{"graphql_max_body_bytes", e.GraphQLMaxBody != 0},
		{"json_rpc", e.JSONRPCMaxBody != 0},
		{"mcp", e.MCP != nil},
		{"credential_signing", e.Signing != SigningNone},
		{"signing_service", e.SigningService != ""},
		{"signing_region", e.SigningRegion != ""},
		{"credential_binding", e.CredentialProvider != ""},
	} {
		if f.set {
			fields = append(fields, f.name)
		}
	}
	if len(fields) > 0 {
		c.add(Invalid, path+".protocol", "protocol tcp does not support L7-only fields: %s; remove them", strings.Join(fields, ", "))
	}
}

// allowBase checks that something is allowed, and in one way only.
func (c *checker) allowBase(e *Endpoint, path string) {
	if len(e.Allow) > 0 && e.Access != AccessNone {
		c.add(Invalid, path+".access", "rules and access are mutually exclusive")
	}
	base := len(e.Allow) > 0 || e.Access != AccessNone
	allCore := e.MCP != nil && e.MCP.AllowCoreMethods
	switch e.Protocol {
	case REST, WebSocket, GraphQL, SQL:
		if !base {
			c.add(Invalid, path+".protocol", "protocol requires rules or access to define allowed traffic")
		}
	case JSONRPC:
		if e.Access != AccessNone {
			c.add(Invalid, path+".access", "protocol json-rpc does not support access presets; write rules with allow.method")
		}
		if len(e.Allow) == 0 {
			c.add(Invalid, path+".protocol", "protocol json-rpc requires explicit rules with allow.method")
		}
	case MCP:
		if e.Access != AccessNone {
			c.add(Invalid, path+".access", "protocol mcp does not support access presets; write rules or set mcp.allow_all_known_mcp_methods")
		}
		if len(e.Allow) == 0 && !allCore {
			c.add(Invalid, path+".protocol", "protocol mcp requires rules when mcp.allow_all_known_mcp_methods is false")
		}
	case ProtocolNone:
		if len(e.Deny) > 0 {
			c.add(Invalid, path+".deny_rules", "deny_rules require protocol to be set, or nothing would read the requests")
		}
	case TCP:
	}
	if e.Protocol != ProtocolNone && e.Protocol != MCP && len(e.Deny) > 0 && !base {
		c.add(Invalid, path+".deny_rules", "deny_rules require rules or access as the base they take from")
	}
	for i := range e.Allow {
		if e.Allow[i].empty() && (e.Protocol != MCP || !allCore) {
			c.add(Invalid, index(path+".rules", i), "rules would deny all traffic (no allow clause found). Name at least what is allowed, for example method and path")
		}
	}
}

// options checks members that belong to one protocol or exclude each other.
func (c *checker) options(e *Endpoint, path string) {
	if e.MCP != nil && e.Protocol != MCP {
		c.add(Invalid, path+".mcp", "non-MCP endpoint '%s' cannot configure mcp options", clip(e.Host))
	}
	if e.Protocol == SQL && e.Enforcement == Enforce {
		c.add(Invalid, path+".enforcement", "protocol sql cannot be enforced; use enforcement: audit")
	}
	if e.WebSocketRewrite && e.Protocol != WebSocket {
		c.add(Invalid, path+".websocket_credential_rewrite", "websocket_credential_rewrite is for websocket endpoints only")
	}
	if e.RequestBodyRewrite && e.Protocol != REST {
		c.add(Invalid, path+".request_body_credential_rewrite", "request_body_credential_rewrite is for rest endpoints only")
	}
	if e.RequestBodyRewrite && e.Signing != SigningNone {
		c.add(Invalid, path+".credential_signing", "credential_signing and request_body_credential_rewrite are mutually exclusive")
	}
	if e.Signing != SigningNone && e.SigningService == "" {
		c.add(Invalid, path+".credential_signing", "credential_signing requires signing_service")
	}
	if e.CredentialProvider != "" && (e.Host == "" || len(e.Ports) == 0) {
		c.add(Invalid, path+".credential_binding", "credential_binding requires host and port")
	}
	for i := range e.RegisteredQueries {
		q := &e.RegisteredQueries[i]
		at := join(path+".graphql_persisted_queries", q.ID)
		if !operationType(q.OperationType, false) {
			c.add(Invalid, at+".operation_type", "operation_type must be query, mutation or subscription, got %q", clip(q.OperationType))
		}
		c.words(q.Fields, at+".fields")
	}
	if e.Protocol == MCP && e.Host == "" {
		c.add(Invalid, path+".host", "protocol mcp needs a host")
	}
}

func operationType(s string, star bool) bool {
	switch strings.ToLower(s) {
	case "query", "mutation", "subscription":
		return true
	case "*":
		return star
	}
	return false
}

func (c *checker) words(list []string, path string) {
	for i, s := range list {
		if s == "" {
			c.add(Invalid, index(path, i), "an entry may not be empty")
		}
	}
}

// empty reports whether no member of the rule is written.
func (r *L7Rule) empty() bool {
	return r.Method == "" && r.Path == "" && r.Command == "" && r.OperationType == "" && r.OperationName == "" &&
		len(r.Fields) == 0 && len(r.Query) == 0 && r.Tool == nil && len(r.Params) == 0
}
