package policy

import "strings"

// l7rule checks the members of one allow or deny rule.
func (c *checker) l7rule(e *Endpoint, r *L7Rule, path string, allow bool) {
	if allow && r.empty() {
		return // said by allowBase
	}
	if e.Protocol != MCP && (r.Tool != nil || len(r.Params) > 0) {
		c.add(Invalid, path, "tool and params are for mcp endpoints only")
	}
	if r.Path != "" {
		c.glob(r.Path, '/', path+".path")
	}
	for _, q := range r.Query {
		c.matcher(&q.Matcher, join(path+".query", q.Name))
	}
	switch e.Protocol {
	case REST:
		c.methodAndPath(r, path)
	case WebSocket:
		if !r.graphQL() {
			c.methodAndPath(r, path)
			break
		}
		if r.Method != "" || r.Path != "" || len(r.Query) > 0 {
			c.add(Invalid, path, "a GraphQL rule of a websocket endpoint may not also have method, path or query")
		}
		c.graphQLRule(r, path)
	case GraphQL:
		c.graphQLRule(r, path)
	case JSONRPC:
		c.jsonRPCRule(r, path)
	case MCP:
		c.mcpRule(e, r, path)
	case SQL:
		if r.Command == "" {
			c.add(Invalid, path, "a sql rule needs command")
		}
	case ProtocolNone, TCP:
	}
}

// methodAndPath refuses rules that could never match.
func (c *checker) methodAndPath(r *L7Rule, path string) {
	if r.Method == "" || r.Path == "" {
		c.add(Invalid, path, "a rule without method and path would never match; write both (\"*\" and \"/**\" for all)")
	}
	if r.graphQL() {
		c.add(Invalid, path, "operation_type, operation_name and fields are for graphql endpoints")
	}
	if strings.ContainsAny(r.Method, " \t\r\n/") {
		c.add(Invalid, path+".method", "%q is not an HTTP method", clip(r.Method))
	}
}

// graphQL reports whether the rule speaks of GraphQL operations.
func (r *L7Rule) graphQL() bool {
	return r.OperationType != "" || r.OperationName != "" || len(r.Fields) > 0
}

func (c *checker) graphQLRule(r *L7Rule, path string) {
	if !operationType(r.OperationType, true) {
		c.add(Invalid, path, "operation_type must be query, mutation or subscription, got %q", clip(r.OperationType))
	}
	if r.OperationName != "" {
		c.glob(r.OperationName, '.', path+".operation_name")
	}
	c.words(r.Fields, path+".fields")
	for i, f := range r.Fields {
		c.glob(f, '.', index(path+".fields", i))
	}
}

func (c *checker) jsonRPCRule(r *L7Rule, path string) {
	if r.Method == "" {
		c.add(Invalid, path, "a json-rpc rule needs method")
	}
	if r.Method != "*" && strings.ContainsAny(r.Method, "*?[]{}\\") {
		c.add(Invalid, path+".method", "json-rpc methods are exact or \"*\", %q is a glob", clip(r.Method))
	}
	if r.Path != "" || len(r.Query) > 0 {
		c.add(Invalid, path, "a json-rpc rule may not have path or query")
	}
}

func (c *checker) mcpRule(e *Endpoint, r *L7Rule, path string) {
	core := e.MCP != nil && e.MCP.AllowCoreMethods
	tool := r.ToolMatcher()
	method := r.Method
	if method == "" && core && tool != nil {
		method = "tools/call"
	}
	switch {
	case method == "" && !core:
		c.add(Invalid, path, "an mcp rule needs method unless mcp.allow_all_known_mcp_methods is true")
	case method == "*":
		c.add(Invalid, path+".method", "the bare \"*\" is not allowed; set mcp.allow_all_known_mcp_methods or name the methods")
	case strings.ContainsAny(method, "*?[]{}\\"):
		if !strings.HasPrefix(method, "tools/") {
			c.add(Invalid, path+".method", "globs are allowed only in the tools/ family, got %q", clip(method))
		}
		c.glob(method, '.', path+".method")
	}
	if r.Path != "" || len(r.Query) > 0 {
		c.add(Invalid, path, "an mcp rule may not have path or query; put the path on the endpoint")
	}
	if r.Tool != nil && len(r.Params) > 0 {
		c.add(Invalid, path, "tool and params.name are the same; write one")
	}
	for _, p := range r.Params {
		if p.Name != "name" {
			c.add(Invalid, join(path+".params", p.Name), "only params.name can be matched")
		}
	}
	if tool == nil {
		return
	}
	if method != "tools/call" {
		c.add(Invalid, path, "a tool selector needs method tools/call, got %q", clip(method))
	}
	c.matcher(tool, path+".tool")
	if e.MCP != nil && e.MCP.LooseToolNames {
		for _, g := range tool.Globs() {
			if strings.ContainsAny(g, "*?[{") {
				c.add(Invalid, path, "wildcard tool matchers need mcp.strict_tool_names, got %q", clip(g))
			}
		}
	}
}

// mcpRules refuses a rule that already covers every tool beside one that
// names a tool: the narrow one would be without effect.
func (c *checker) mcpRules(e *Endpoint, path string) {
	for _, side := range []struct {
		name  string
		rules []L7Rule
	}{{"rules", e.Allow}, {"deny_rules", e.Deny}} {
		named, broad := false, -1
		for i := range side.rules {
			r := &side.rules[i]
			switch {
			case r.ToolMatcher() != nil:
				named = true
			case broad < 0 && r.coversToolsCall():
				broad = i
			}
		}
		if named && broad >= 0 {
			c.add(Invalid, index(path+"."+side.name, broad), "this rule covers every tools/call, so the rules that name a tool would be without effect")
		}
	}
}

func (r *L7Rule) coversToolsCall() bool {
	if !strings.HasPrefix(r.Method, "tools/") {
		return false
	}
	g, err := CompileGlob(r.Method, '.')
	return err == nil && g.Match("tools/call", '.')
}

// webSocketRules refuses text rules beside GraphQL rules.
func (c *checker) webSocketRules(e *Endpoint, path string) {
	graphQL := false
	for i := range e.Allow {
		graphQL = graphQL || e.Allow[i].graphQL()
	}
	for i := range e.Deny {
		graphQL = graphQL || e.Deny[i].graphQL()
	}
	for i := range e.Allow {
		if graphQL && strings.EqualFold(e.Allow[i].Method, "WEBSOCKET_TEXT") {
			c.add(Invalid, index(path+".rules", i), "a WEBSOCKET_TEXT rule would let every GraphQL message pass beside the GraphQL rules")
		}
	}
}

func (c *checker) matcher(m *Matcher, path string) {
	for _, g := range m.Globs() {
		c.glob(g, '.', path)
	}
}
