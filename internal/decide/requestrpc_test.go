package decide_test

import (
	"strings"
	"testing"

	"openshell.dev/openshell/internal/decide"
	"openshell.dev/openshell/internal/l7"
)

// mcp makes the facts of a POST; version "-" is no header. A message is
// "method", "method tool", "!method" for a notification, "=" for a response.
func mcp(version string, messages ...string) l7.Facts {
	rpc := &l7.RPC{}
	if version != "-" {
		rpc.Revision, rpc.Revisions = version, 1
	}
	for _, s := range messages {
		m := l7.Message{Kind: l7.Call}
		switch {
		case s == "=":
			m.Kind = l7.Response
		case s == "?":
			m.Kind = l7.Invalid
		case s[0] == '!':
			m.Kind, m.Method = l7.Notification, s[1:]
		default:
			m.Method, m.Tool, _ = strings.Cut(s, " ")
		}
		rpc.Messages = append(rpc.Messages, m)
	}
	rpc.Batch = len(messages) > 1
	return l7.Facts{Method: "POST", Path: "/mcp", RPC: rpc}
}

func TestMCPDefaultRevision(t *testing.T) { // X10
	ix := compile(t, `
m: {endpoints: [{host: m.example.com, port: 443, path: /mcp, protocol: mcp, enforcement: enforce,
  rules: [{allow: {method: initialize}}, {allow: {method: notifications/initialized}}, {allow: {method: tools/list}}, {allow: {method: tools/call, tool: read_status}}, {allow: {method: vendor/y}}],
  deny_rules: [{method: tools/call, tool: delete_resource}]}], binaries: [{path: /usr/bin/curl}]}
`)
	const v = "2025-11-25"
	two := mcp(v, "tools/list")
	two.RPC.Revisions = 2
	malformed := mcp(v)
	malformed.RPC.Malformed = "duplicate key"
	sse := l7.Facts{Method: "GET", Path: "/mcp", RPC: &l7.RPC{Receive: true, Revision: v, Revisions: 1}}
	upgrade := mcp(v, "tools/list")
	upgrade.Upgrade = true
	elsewhere := mcp(v, "tools/list")
	elsewhere.Path = "/other"
	del := mcp(v)
	del.Method = "DELETE"
	checkRequests(t, ix, "m.example.com", []want{
		{"initialize without header", "", mcp("-", "initialize"), pass, 0},
		{"list", "", mcp(v, "tools/list"), pass, 0},
		{"list without header", "", mcp("-", "tools/list"), hard, decide.MCPRevisionNotAllowed},
		{"list of another revision", "", mcp("2025-06-18", "tools/list"), hard, decide.MCPRevisionNotAllowed},
		{"unknown revision", "", mcp("2024-11-05", "tools/list"), hard, decide.MCPRevisionUnknown},
		{"empty revision", "", mcp("", "tools/list"), hard, decide.MCPRevisionUnknown},
		{"two headers", "", two, hard, decide.MCPRevisionUnknown},
		{"tool", "", mcp(v, "tools/call read_status"), pass, 0},
		{"other tool", "", mcp(v, "tools/call other"), soft, decide.NoRule},
		{"denied tool", "", mcp(v, "tools/call delete_resource"), soft, decide.RuleDenied},
		{"resource", "", mcp(v, "resources/read"), soft, 0},
		{"vendor", "", mcp(v, "vendor/x"), soft, 0},
		{"vendor by name", "", mcp(v, "vendor/y"), pass, 0},
		{"foreign core method", "", mcp(v, "server/discover"), hard, decide.MCPInvalid},
		{"array", "", mcp(v, "tools/list", "tools/list"), hard, decide.MCPInvalid},
		{"malformed", "", malformed, hard, decide.MCPInvalid},
		{"tools/call without id", "", mcp(v, "!tools/call"), hard, decide.MCPInvalid},
		{"odd tool name", "", mcp(v, "tools/call a b"), hard, decide.MCPInvalid},
		{"no tool name", "", mcp(v, "tools/call"), hard, decide.MCPInvalid},
		{"stream", "", sse, pass, 0},
		{"response", "", mcp(v, "="), pass, 0},
		{"notification", "", mcp(v, "!notifications/initialized"), pass, 0},
		{"upgrade", "", upgrade, hard, decide.UpgradeRefused},
		{"other path", "", elsewhere, hard, decide.NoRoute},
		{"delete", "", del, soft, 0},
		{"no body", "", l7.Facts{Method: "POST", Path: "/mcp"}, hard, 0},
	})
}

func TestMCPProfile(t *testing.T) { // X11
	ix := compile(t, `
m: {endpoints: [{host: m.example.com, port: 443, path: /mcp, protocol: mcp, enforcement: enforce,
  mcp: {versions: ["2025-03-26","2025-11-25"], allow_all_known_mcp_methods: true},
  rules: [{allow: {tool: {any: [search_web, read_document]}}}]}], binaries: [{path: /usr/bin/curl}]}
all: {endpoints: [{host: all.example.com, port: 443, path: /mcp, protocol: mcp, enforcement: enforce,
  mcp: {allow_all_known_mcp_methods: true}, deny_rules: [{tool: "rm*"}]}], binaries: [{path: /usr/bin/curl}]}
`)
	const old, v = "2025-03-26", "2025-11-25"
	long := make([]string, 65)
	for i := range long {
		long[i] = "ping"
	}
	checkRequests(t, ix, "m.example.com", []want{
		{"ping", "", mcp(v, "ping"), pass, 0},
		{"read", "", mcp(old, "resources/read"), pass, 0},
		{"tasks", "", mcp(v, "tasks/get"), pass, 0},
		{"tasks without header", "", mcp("-", "tasks/get"), hard, decide.MCPInvalid},
		{"tool", "", mcp(v, "tools/call search_web"), pass, 0},
		{"other tool", "", mcp(v, "tools/call send_email"), soft, 0},
		{"vendor", "", mcp(v, "vendor/x"), soft, 0},
		{"batch", "", mcp("-", "ping", "tools/call search_web"), pass, 0},
		{"batch with one denied", "", mcp("-", "ping", "tools/call send_email"), soft, 0},
		{"long batch", "", mcp("-", long...), hard, decide.MCPInvalid},
	})
	checkRequests(t, ix, "all.example.com", []want{
		{"any tool", "", mcp(v, "tools/call anything"), pass, 0},
		{"denied tool", "", mcp(v, "tools/call rm_all"), soft, decide.RuleDenied},
	})
}

func TestMCPSessionless(t *testing.T) { // X12
	ix := compile(t, `
m: {endpoints: [{host: m.example.com, port: 443, path: /mcp, protocol: mcp, enforcement: audit, mcp: {versions: ["2026-07-28"]},
  rules: [{allow: {method: server/discover}}, {allow: {method: subscriptions/listen}}, {allow: {method: tools/call, tool: read_status}}]}], binaries: [{path: /usr/bin/curl}]}
`)
	const v = "2026-07-28"
	get := l7.Facts{Method: "GET", Path: "/mcp", RPC: &l7.RPC{Receive: true, Revision: v, Revisions: 1}}
	checkRequests(t, ix, "m.example.com", []want{
		{"discover", "", mcp(v, "server/discover"), pass, 0},
		{"tool", "", mcp(v, "tools/call read_status"), pass, 0},
		{"other tool, audited", "", mcp(v, "tools/call read_details"), audited, 0},
		{"no header", "", mcp("-", "server/discover"), hard, decide.MCPRevisionNotAllowed},
		{"initialize", "", mcp(v, "initialize"), hard, 0},
		{"response", "", mcp(v, "="), hard, decide.MCPInvalid},
		{"get", "", get, hard, decide.MCPMethodNotAllowed},
	})
}

func TestJSONRPC(t *testing.T) { // X13
	ix := compile(t, `
r: {endpoints: [{host: m.example.com, port: 443, path: /mcp, protocol: json-rpc, enforcement: enforce,
  rules: [{allow: {method: reports.search}}], deny_rules: [{method: reports.delete}]}], binaries: [{path: /usr/bin/curl}]}
all: {endpoints: [{host: all.example.com, port: 443, protocol: json-rpc, enforcement: enforce, rules: [{allow: {method: "*"}}]}], binaries: [{path: /usr/bin/curl}]}
`)
	malformed := mcp("-")
	malformed.RPC.Malformed = "duplicate key"
	get := mcp("-", "reports.search")
	get.Method = "GET"
	checkRequests(t, ix, "m.example.com", []want{
		{"search", "", mcp("-", "reports.search"), pass, 0},
		{"delete", "", mcp("-", "reports.delete"), soft, decide.RuleDenied},
		{"other", "", mcp("-", "reports.list"), soft, decide.NoRule},
		{"batch", "", mcp("-", "reports.search", "reports.delete"), soft, decide.RuleDenied},
		{"response", "", mcp("-", "="), hard, decide.RPCResponse},
		{"malformed", "", malformed, hard, decide.RPCMalformed},
		{"invalid message", "", mcp("-", "?"), hard, decide.RPCMalformed},
		{"by get", "", get, soft, 0},
		{"no body", "", http("POST", "/mcp"), soft, 0},
	})
	checkRequests(t, ix, "all.example.com", []want{
		{"anything", "", mcp("-", "vendor.anything"), pass, 0},
		{"notification", "", mcp("-", "!vendor.anything"), pass, 0},
	})
}
