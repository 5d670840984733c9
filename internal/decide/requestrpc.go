package decide

import (
	"slices"

	"openshell.dev/openshell/internal/l7"
	"openshell.dev/openshell/internal/policy"
)

const (
	toolsCall   = "tools/call"
	initialize  = "initialize"
	maxMCPBatch = 64
)

// Bits of the revisions in which a method is a core method.
const (
	r0326 = 1 << iota
	r0618
	r1125
	r0728
	r2025 = r0326 | r0618 | r1125
	every = r2025 | r0728
)

var revisionBits = map[policy.MCPVersion]uint8{
	policy.MCP20250326: r0326, policy.MCP20250618: r0618, policy.MCP20251125: r1125, policy.MCP20260728: r0728,
}

// coreMethods are the methods the revisions define; every other one is an
// extension.
var coreMethods = map[string]uint8{
	"tools/list": every, toolsCall: every, "resources/list": every, "resources/templates/list": every,
	"resources/read": every, "prompts/list": every, "prompts/get": every, "completion/complete": every,

	initialize: r2025, "ping": r2025, "logging/setLevel": r2025, "resources/subscribe": r2025, "resources/unsubscribe": r2025,
	"notifications/initialized": r2025, "notifications/progress": r2025, "notifications/cancelled": r2025,
	"notifications/roots/list_changed": r2025,

	"tasks/get": r1125, "tasks/result": r1125, "tasks/list": r1125, "tasks/cancel": r1125, "notifications/tasks/status": r1125,

	"server/discover": r0728, "subscriptions/listen": r0728,
}

// precheckRPC finds what no json-rpc rule can allow.
func (a *asking) precheckRPC() Reason {
	rpc := a.facts.RPC
	if rpc == nil {
		return NoReason // not a POST with a body: no rule matches
	}
	if rpc.Malformed != "" || len(rpc.Messages) == 0 && !rpc.Receive {
		return RPCMalformed
	}
	for i := range rpc.Messages {
		switch rpc.Messages[i].Kind {
		case l7.Response:
			return RPCResponse
		case l7.Invalid:
			return RPCMalformed
		case l7.Call, l7.Notification:
		}
	}
	return NoReason
}

// precheckMCP checks the revision and the structure, in audit mode too.
func (a *asking) precheckMCP(in *inspection) Reason {
	rpc := a.facts.RPC
	if rpc == nil {
		rpc = &l7.RPC{Revisions: 0}
	}
	first := len(rpc.Messages) == 1 && !rpc.Batch && rpc.Malformed == "" && rpc.Messages[0].Kind == l7.Call && rpc.Messages[0].Method == initialize
	switch {
	case first && a.facts.Method == "POST":
		if !slices.ContainsFunc(in.revisions, func(v policy.MCPVersion) bool { return v != policy.MCP20260728 }) {
			return MCPRevisionNotAllowed
		}
		return NoReason
	case rpc.Revisions > 1, rpc.Revisions == 1 && rpc.Revision == "":
		return MCPRevisionUnknown
	case rpc.Revisions == 0:
		a.revision = policy.MCP20250326 // absence means the oldest, whatever the policy's default
	default:
		a.revision = policy.MCPVersion(rpc.Revision)
	}
	bit, known := revisionBits[a.revision]
	switch {
	case !known:
		return MCPRevisionUnknown
	case !slices.Contains(in.revisions, a.revision):
		return MCPRevisionNotAllowed
	case rpc.Malformed != "":
		return MCPInvalid
	case bit == r0728 && a.facts.Method != "POST":
		return MCPMethodNotAllowed
	case rpc.Batch && (bit != r0326 || len(rpc.Messages) > maxMCPBatch || len(rpc.Messages) == 0):
		return MCPInvalid
	}
	for i := range rpc.Messages {
		m := &rpc.Messages[i]
		core, isCore := coreMethods[m.Method]
		switch {
		case m.Kind == l7.Invalid,
			m.Kind == l7.Response && bit == r0728,
			m.Kind != l7.Response && isCore && core&bit == 0,
			m.Kind == l7.Notification && m.Method == toolsCall,
			m.Method == initialize && m.Kind != l7.Response && rpc.Batch,
			m.Method == toolsCall && m.Kind == l7.Call && in.strict && !safeToolName(m.Tool):
			return MCPInvalid
		}
	}
	return NoReason
}

// safeToolName is ^[A-Za-z0-9_.-]{1,128}$.
func safeToolName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// rpcHas reports whether a deny rule fires for some message.
func (a *asking) rpcHas(r *l7rule) bool {
	if a.facts.RPC == nil {
		return false
	}
	for i := range a.facts.RPC.Messages {
		m := &a.facts.RPC.Messages[i]
		if m.Kind != l7.Response && r.message(m) {
			return true
		}
	}
	return false
}

// message compares method and tool.
func (r *l7rule) message(m *l7.Message) bool {
	if r.method != m.Method && r.method != "*" && (r.family == nil || !r.family.Match(m.Method, '.')) {
		return false
	}
	return r.tools == nil || m.Method == toolsCall && matchAny(r.tools, m.Tool)
}

// rpcAllowed reports whether every message is allowed by some rule.
func (a *asking) rpcAllowed(in *inspection) bool {
	rpc, mcp := a.facts.RPC, in.protocol == policy.MCP
	if rpc == nil {
		return false
	}
	if mcp && rpc.Receive {
		return a.facts.Method == "GET" && len(rpc.Messages) == 0
	}
	if a.facts.Method != "POST" || len(rpc.Messages) == 0 {
		return false
	}
	for i := range rpc.Messages {
		m := &rpc.Messages[i]
		if mcp && m.Kind == l7.Response {
			continue
		}
		if !in.allowsMessage(m, mcp) {
			return false
		}
	}
	return true
}

func (in *inspection) allowsMessage(m *l7.Message, mcp bool) bool {
	_, core := coreMethods[m.Method]
	// Naming a tool anywhere takes tools/call out of the profile.
	broad := m.Method != toolsCall || !in.namesTool
	if mcp && in.core && core && broad {
		return true
	}
	for i := range in.allow {
		r := &in.allow[i]
		switch {
		case mcp && !core && r.method != m.Method:
			// An extension method is allowed only by its own name.
		case mcp && r.method == "*" && !broad:
		case r.message(m):
			return true
		}
	}
	return false
}
