package decide

import (
	"strings"

	"openshell.dev/openshell/internal/policy"
)

// inspection is the compiled request rules of an inspected endpoint.
type inspection struct {
	protocol     policy.Protocol
	enforce      bool
	encodedSlash bool
	path         routePath
	allow, deny  []l7rule

	graphQL    bool // a websocket endpoint whose messages are GraphQL
	registered bool // persisted queries that are registered are allowed
	persisted  map[string]*policy.RegisteredQuery

	revisions []policy.MCPVersion
	strict    bool // tool names of a safe alphabet only
	core      bool // core methods are allowed
	namesTool bool // some allow rule names a tool
}

// l7rule is one compiled allow or deny rule.
type l7rule struct {
	index  int
	method string // upper case for HTTP, exact for RPC, "*" for any
	family *policy.Glob
	path   *policy.Glob // nil: none is asked for
	query  []queryRule

	graphQL bool
	opType  string // lower case, "*" for any
	opName  *policy.Glob
	fields  []*policy.Glob

	tools []*policy.Glob // nil: any
}

type queryRule struct {
	name  string
	globs []*policy.Glob
}

// presets are the methods of an access preset; GraphQL has operation types.
var presets = map[policy.Protocol]map[policy.Access][]string{
	policy.REST: {
		policy.ReadOnly:  {"GET", "HEAD", "OPTIONS"},
		policy.ReadWrite: {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"},
		policy.Full:      {"*"},
	},
	policy.WebSocket: {
		policy.ReadOnly:  {"GET"},
		policy.ReadWrite: {"GET", "WEBSOCKET_TEXT"},
		policy.Full:      {"*"},
	},
	policy.GraphQL: {
		policy.ReadOnly:  {"query"},
		policy.ReadWrite: {"query", "mutation"},
		policy.Full:      {"*"},
	},
}

func compileInspection(e *policy.Endpoint) (*inspection, error) {
	in := &inspection{
		protocol: e.Protocol, enforce: e.Enforcement.Enforced(), encodedSlash: e.AllowEncodedSlash,
		path: newRoutePath(e.Path), registered: e.PersistedQueries == policy.PersistedRegistered,
		revisions: e.EffectiveMCPVersions(), strict: true,
	}
	if e.MCP != nil {
		in.strict, in.core = !e.MCP.LooseToolNames, e.MCP.AllowCoreMethods
	}
	if len(e.RegisteredQueries) > 0 {
		in.persisted = make(map[string]*policy.RegisteredQuery, len(e.RegisteredQueries))
		for i := range e.RegisteredQueries {
			in.persisted[e.RegisteredQueries[i].ID] = &e.RegisteredQueries[i]
		}
	}
	for i, word := range presets[e.Protocol][e.Access] {
		r := l7rule{index: i, method: word}
		if e.Protocol == policy.GraphQL {
			r = l7rule{index: i, graphQL: true, opType: word}
		}
		in.allow = append(in.allow, r)
	}
	for i := range e.Allow {
		r, err := in.compile(&e.Allow[i], i)
		if err != nil {
			return nil, err
		}
		in.allow = append(in.allow, r)
		in.namesTool = in.namesTool || r.tools != nil
		in.graphQL = in.graphQL || e.Protocol == policy.WebSocket && r.graphQL
	}
	for i := range e.Deny {
		r, err := in.compile(&e.Deny[i], i)
		if err != nil {
			return nil, err
		}
		in.deny = append(in.deny, r)
		in.graphQL = in.graphQL || e.Protocol == policy.WebSocket && r.graphQL
	}
	return in, nil
}

func (in *inspection) compile(d *policy.L7Rule, index int) (l7rule, error) {
	r := l7rule{index: index, opType: strings.ToLower(d.OperationType)}
	r.graphQL = d.OperationType != "" || d.OperationName != "" || len(d.Fields) > 0
	var err error
	glob := func(pattern string, sep byte) *policy.Glob {
		if pattern == "" {
			return nil
		}
		g, e := policy.CompileGlob(pattern, sep)
		if e != nil && err == nil {
			err = e
		}
		return g
	}
	globs := func(list []string) (out []*policy.Glob) {
		for _, s := range list {
			out = append(out, glob(s, '.'))
		}
		return out
	}
	r.path, r.opName, r.fields = glob(d.Path, '/'), glob(d.OperationName, '.'), globs(d.Fields)
	for i := range d.Query {
		r.query = append(r.query, queryRule{d.Query[i].Name, globs(d.Query[i].Globs())})
	}
	tool := d.ToolMatcher()
	if tool != nil {
		r.tools = globs(tool.Globs())
	}
	switch in.protocol {
	case policy.MCP:
		r.method = d.Method
		if r.method == "" {
			r.method = "*"
			if tool != nil {
				r.method = toolsCall
			}
		} else if strings.ContainsAny(r.method, `*?[{\`) {
			r.family = glob(r.method, '.')
		}
	case policy.JSONRPC:
		r.method = d.Method
	case policy.ProtocolNone, policy.TCP, policy.REST, policy.WebSocket, policy.GraphQL, policy.SQL:
		r.method = strings.ToUpper(d.Method)
	}
	return r, err
}

// routePath chooses among the endpoints of one host and port: "" is every
// path, "/x/**" is /x and what is below, and elsewhere "*" crosses "/".
type routePath struct {
	pattern     string // for wild, or the one path
	below       string // "/x" of "/x/**"
	all, exact  bool
	specificity int // fixed characters; the greater wins
}

func newRoutePath(p string) routePath {
	r := routePath{pattern: p, specificity: len(p) - strings.Count(p, "*")}
	if p == "" || p == "**" || p == "/**" {
		r.all = true
		return r
	}
	if head, ok := strings.CutSuffix(p, "/**"); ok && !strings.ContainsAny(head, "*?[") {
		r.below = head
		return r
	}
	r.exact = !strings.ContainsAny(p, "*?[")
	return r
}

func (r *routePath) match(path string) bool {
	switch {
	case r.all:
		return true
	case r.below != "":
		return strings.HasPrefix(path, r.below) && (len(path) == len(r.below) || path[len(r.below)] == '/')
	case r.exact:
		return path == r.pattern
	}
	return policy.MatchShell(r.pattern, path)
}
