package policy

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

func (r *reader) endpoint(n *yaml.Node, path string) Endpoint {
	e := Endpoint{Pos: Pos{n.Line, n.Column}}
	var port, ports []uint16
	r.object(n, path,
		field{"host", r.str(&e.Host)},
		field{"port", func(n *yaml.Node, path string) { port = r.port(nil, n, path) }},
		field{"ports", func(n *yaml.Node, path string) {
			r.list(n, path, func(_ int, n *yaml.Node, path string) { ports = r.port(ports, n, path) })
		}},
		field{"path", r.str(&e.Path)},
		field{"allowed_ips", r.strs(&e.AllowedIPs)},
		field{"protocol", func(n *yaml.Node, path string) {
			s, ok := r.text(n, path)
			if !ok {
				return
			}
			if e.Protocol, ok = ParseProtocol(s); !ok && s != "" {
				text := "unknown protocol '" + clip(s) + "' (expected tcp, rest, websocket, graphql, sql, json-rpc, or mcp)"
				if near := nearest(strings.ToLower(s), protocolWords[1:]); near != "" {
					text += "; did you mean " + strconv.Quote(near)
				}
				r.add(Invalid, resolve(n), path, "", "%s", text)
			}
		}},
		field{"tls", func(n *yaml.Node, path string) {
			s, ok := r.text(n, path)
			if !ok {
				return
			}
			if e.TLS, ok = lookup[TLSMode](tlsWords, s); !ok && s != "" {
				r.add(Invalid, resolve(n), path, "", "unsupported tls value '%s'; remove the tls field for automatic handling, or write \"skip\" to relay TLS unread", clip(s))
			}
		}},
		field{"enforcement", enum(r, &e.Enforcement, enforcementWords, Invalid, "unknown enforcement %q")},
		field{"access", enum(r, &e.Access, accessWords, Invalid, "unknown access preset %q")},
		field{"rules", r.l7rules(&e.Allow, true)},
		field{"deny_rules", r.l7rules(&e.Deny, false)},
		field{"allow_encoded_slash", r.boolean(&e.AllowEncodedSlash)},
		field{"credential_binding", func(n *yaml.Node, path string) {
			if resolve(n).Kind == yaml.MappingNode && len(resolve(n).Content) == 0 {
				r.wrong(n, path, "missing field `provider`")
			}
			r.object(n, path, field{"provider", func(n *yaml.Node, path string) {
				s, ok := r.text(n, path)
				if ok && (s == "" || s != strings.TrimSpace(s)) {
					r.add(Invalid, resolve(n), path, "", "the provider may not be empty nor have surrounding white space")
				}
				e.CredentialProvider = s
			}})
		}},
		field{"request_body_credential_rewrite", r.boolean(&e.RequestBodyRewrite)},
		field{"websocket_credential_rewrite", r.boolean(&e.WebSocketRewrite)},
		field{"allow_uninspected_credentials", r.boolean(&e.AllowUninspectedCredentials)},
		field{"credential_signing", enum(r, &e.Signing, signingWords, Invalid, "unknown credential_signing %q")},
		field{"signing_service", r.str(&e.SigningService)},
		field{"signing_region", r.str(&e.SigningRegion)},
		field{"persisted_queries", enum(r, &e.PersistedQueries, persistedWords, Invalid, "unknown persisted_queries %q")},
		field{"graphql_persisted_queries", func(n *yaml.Node, path string) {
			r.pairs(n, path, func(key string, _, v *yaml.Node) {
				q := RegisteredQuery{ID: key}
				r.object(v, join(path, key),
					field{"operation_type", r.str(&q.OperationType)},
					field{"operation_name", r.str(&q.OperationName)},
					field{"fields", r.strs(&q.Fields)})
				e.RegisteredQueries = append(e.RegisteredQueries, q)
			})
			slices.SortFunc(e.RegisteredQueries, func(a, b RegisteredQuery) int { return strings.Compare(a.ID, b.ID) })
		}},
		field{"graphql_max_body_bytes", r.uint32(&e.GraphQLMaxBody)},
		field{"json_rpc", func(n *yaml.Node, path string) {
			r.object(n, path, field{"max_body_bytes", r.uint32(&e.JSONRPCMaxBody)})
		}},
		field{"mcp", func(n *yaml.Node, path string) { e.MCP = r.mcp(n, path) }})
	if e.Ports = ports; len(ports) == 0 {
		e.Ports = port // with both written, the list wins as in the contract
	}
	return e
}

func (r *reader) port(to []uint16, n *yaml.Node, path string) []uint16 {
	if v, ok := r.number(n, path, 1, 65535); ok {
		return append(to, uint16(v))
	}
	return to
}

func (r *reader) mcp(n *yaml.Node, path string) *MCPOptions {
	m := &MCPOptions{}
	strict := true
	r.object(n, path,
		field{"versions", func(n *yaml.Node, path string) {
			r.list(n, path, func(_ int, n *yaml.Node, path string) {
				s, ok := r.text(n, path)
				switch {
				case !ok:
				case !slices.Contains(mcpVersions, MCPVersion(s)):
					r.add(Invalid, n, path, "", "unsupported MCP protocol version '%s', known are %s", clip(s), mcpVersionList())
				case slices.Contains(m.Versions, MCPVersion(s)):
					r.add(Invalid, n, path, "", "duplicate protocol version '%s'", s)
				default:
					m.Versions = append(m.Versions, MCPVersion(s))
				}
			})
			if v := resolve(n); v.Kind == yaml.SequenceNode && len(v.Content) == 0 {
				r.add(Invalid, v, path, "", "endpoint has an empty mcp.versions list; leave it out for %s or name at least one of %s", DefaultMCPVersion, mcpVersionList())
			}
			slices.Sort(m.Versions)
		}},
		field{"max_body_bytes", r.uint32(&m.MaxBody)},
		field{"strict_tool_names", r.boolean(&strict)},
		field{"allow_all_known_mcp_methods", r.boolean(&m.AllowCoreMethods)})
	m.LooseToolNames = !strict
	return m
}

func mcpVersionList() string {
	words := make([]string, len(mcpVersions))
	for i, v := range mcpVersions {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}

func (r *reader) l7rules(dst *[]L7Rule, wrapped bool) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		if v := resolve(n); v.Kind == yaml.SequenceNode && len(v.Content) == 0 {
			r.add(Invalid, v, path, "", "%s is empty and would never match; leave it out or add a rule", path[strings.LastIndexByte(path, '.')+1:])
		}
		r.list(n, path, func(_ int, n *yaml.Node, path string) {
			if !wrapped {
				*dst = append(*dst, r.l7rule(n, path))
				return
			}
			seen := false
			r.object(n, path, field{"allow", func(n *yaml.Node, path string) {
				seen = true
				*dst = append(*dst, r.l7rule(n, path))
			}})
			if !seen && resolve(n).Kind == yaml.MappingNode {
				r.wrong(n, path, "missing field `allow`")
			}
		})
	}
}

func (r *reader) l7rule(n *yaml.Node, path string) L7Rule {
	rule := L7Rule{Pos: Pos{n.Line, n.Column}}
	r.object(n, path,
		field{"method", r.str(&rule.Method)},
		field{"path", r.str(&rule.Path)},
		field{"command", r.str(&rule.Command)},
		field{"operation_type", r.str(&rule.OperationType)},
		field{"operation_name", r.str(&rule.OperationName)},
		field{"fields", func(n *yaml.Node, path string) {
			if v := resolve(n); v.Kind == yaml.SequenceNode && len(v.Content) == 0 {
				r.add(Invalid, v, path, "", "fields is empty; leave it out for every field")
			}
			r.strs(&rule.Fields)(n, path)
		}},
		field{"query", func(n *yaml.Node, path string) {
			r.pairs(n, path, func(key string, _, v *yaml.Node) {
				rule.Query = append(rule.Query, NamedMatcher{Name: key, Matcher: r.matcher(v, join(path, key))})
			})
		}},
		field{"tool", func(n *yaml.Node, path string) {
			m := r.matcher(n, path)
			rule.Tool = &m
		}},
		field{"params", func(n *yaml.Node, path string) { r.params(&rule.Params, n, path, "") }})
	byName := func(a, b NamedMatcher) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(rule.Query, byName)
	slices.SortFunc(rule.Params, byName)
	return rule
}

// matcher reads a glob or {any: [globs]}.
func (r *reader) matcher(n *yaml.Node, path string) Matcher {
	var m Matcher
	v := resolve(n)
	if v.Kind != yaml.MappingNode {
		s, ok := r.text(n, path)
		if ok && s == "" {
			r.add(Invalid, v, path, "", "an empty matcher can never be delivered; write a glob")
		}
		m.Glob = s
		return m
	}
	r.object(n, path, field{"any", r.strs(&m.Any)})
	if len(m.Any) == 0 || slices.Contains(m.Any, "") {
		r.add(Invalid, v, path, "", "any needs at least one glob, and none may be empty")
	}
	return m
}

// params reads nested names, which are joined by dots. A mapping is a matcher
// only if "any" is its sole key and holds a list.
func (r *reader) params(dst *[]NamedMatcher, n *yaml.Node, path, prefix string) {
	r.pairs(n, path, func(key string, _, v *yaml.Node) {
		name, at := prefix+key, join(path, key)
		c := resolve(v)
		isAny := c.Kind == yaml.MappingNode && len(c.Content) == 2 && c.Content[0].Value == "any" && resolve(c.Content[1]).Kind == yaml.SequenceNode
		if c.Kind == yaml.MappingNode && !isAny {
			r.params(dst, v, at, name+".")
			return
		}
		*dst = append(*dst, NamedMatcher{Name: name, Matcher: r.matcher(v, at)})
	})
}
