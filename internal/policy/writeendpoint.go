package policy

func (e *Endpoint) tree() *tree {
	t := &tree{}
	t.str("host", e.Host)
	if len(e.Ports) == 1 {
		t.num("port", int64(e.Ports[0]))
	} else if len(e.Ports) > 1 {
		list := &tree{list: true}
		for _, p := range e.Ports {
			list.item(&tree{leaf: true, scalar: float64(p)})
		}
		t.put("ports", list)
	}
	t.str("path", e.Path)
	t.str("protocol", e.Protocol.String())
	t.str("tls", e.TLS.String())
	t.str("enforcement", e.Enforcement.String())
	t.str("access", e.Access.String())
	if len(e.Allow) > 0 {
		list := &tree{list: true}
		for i := range e.Allow {
			s := &tree{}
			s.put("allow", e.Allow[i].tree())
			list.item(s)
		}
		t.put("rules", list)
	}
	if len(e.Deny) > 0 {
		list := &tree{list: true}
		for i := range e.Deny {
			list.item(e.Deny[i].tree())
		}
		t.put("deny_rules", list)
	}
	t.strs("allowed_ips", e.AllowedIPs)
	t.flag("allow_encoded_slash", e.AllowEncodedSlash)
	if e.CredentialProvider != "" {
		s := &tree{}
		s.str("provider", e.CredentialProvider)
		t.put("credential_binding", s)
	}
	t.flag("websocket_credential_rewrite", e.WebSocketRewrite)
	t.flag("request_body_credential_rewrite", e.RequestBodyRewrite)
	t.flag("allow_uninspected_credentials", e.AllowUninspectedCredentials)
	t.str("credential_signing", e.Signing.String())
	t.str("signing_service", e.SigningService)
	t.str("signing_region", e.SigningRegion)
	t.str("persisted_queries", e.PersistedQueries.String())
	if len(e.RegisteredQueries) > 0 {
		s := &tree{}
		for i := range e.RegisteredQueries {
			q := &e.RegisteredQueries[i]
			o := &tree{}
			o.str("operation_type", q.OperationType)
			o.str("operation_name", q.OperationName)
			o.strs("fields", q.Fields)
			s.put(q.ID, o)
		}
		t.put("graphql_persisted_queries", s)
	}
	t.num("graphql_max_body_bytes", int64(e.GraphQLMaxBody))
	if e.JSONRPCMaxBody != 0 {
		s := &tree{}
		s.num("max_body_bytes", int64(e.JSONRPCMaxBody))
		t.put("json_rpc", s)
	}
	if e.Protocol == MCP {
		t.put("mcp", e.mcpTree())
	}
	return t
}

// mcpTree always writes the revisions, so that a later default cannot change
// what a stored document means.
func (e *Endpoint) mcpTree() *tree {
	t := &tree{}
	versions := &tree{list: true}
	for _, v := range e.EffectiveMCPVersions() {
		versions.item(&tree{leaf: true, scalar: string(v)})
	}
	t.put("versions", versions)
	if m := e.MCP; m != nil {
		t.num("max_body_bytes", int64(m.MaxBody))
		if m.LooseToolNames {
			t.put("strict_tool_names", &tree{leaf: true, scalar: false})
		}
		t.flag("allow_all_known_mcp_methods", m.AllowCoreMethods)
	}
	return t
}

func (r *L7Rule) tree() *tree {
	t := &tree{}
	t.str("method", r.Method)
	t.str("path", r.Path)
	t.str("command", r.Command)
	t.str("operation_type", r.OperationType)
	t.str("operation_name", r.OperationName)
	t.strs("fields", r.Fields)
	if len(r.Query) > 0 {
		s := &tree{}
		for i := range r.Query {
			s.put(r.Query[i].Name, r.Query[i].Matcher.tree())
		}
		t.put("query", s)
	}
	if tool := r.ToolMatcher(); tool != nil {
		t.put("tool", tool.tree())
	}
	return t
}

func (m *Matcher) tree() *tree {
	if len(m.Any) == 0 {
		return &tree{leaf: true, scalar: m.Glob}
	}
	t := &tree{}
	t.strs("any", m.Any)
	return t
}
