package decide

import (
	"fmt"
	"strings"

	"openshell.dev/openshell/internal/l7"
	"openshell.dev/openshell/internal/policy"
)

// codes are the error words and HTTP statuses of the contract; every reason
// that is not here is policy_denied, 403.
var codes = map[Reason]struct {
	code   string
	status int
}{
	TargetNotCanonical:    {"invalid_request_target", 400},
	EncodedSlash:          {"invalid_request_target", 400},
	UpgradeRefused:        {"unsupported_l7_protocol", 403},
	MCPRevisionUnknown:    {"unsupported_mcp_protocol_version", 400},
	MCPRevisionNotAllowed: {"mcp_protocol_version_not_allowed", 403},
	MCPInvalid:            {"invalid_mcp_request", 400},
	MCPMethodNotAllowed:   {"invalid_mcp_request", 405},
}

// Code returns the error word and HTTP status by which clients know a denial.
func (r Reason) Code() (code string, status int) {
	if c, ok := codes[r]; ok {
		return c.code, c.status
	}
	return "policy_denied", 403
}

// ExplainRequest words the reason of a ruling that ix gave.
func (ix *Index) ExplainRequest(f Flow, r *l7.Facts, v Ruling) string {
	what := show(r.Method) + " " + show(r.Path)
	switch v.Reason {
	case RuleDenied:
		switch v.Protocol {
		case policy.GraphQL:
			return "GraphQL operation blocked by endpoint policy" + ix.place(v.Rule)
		case policy.MCP, policy.JSONRPC:
			return messages(r) + " blocked by deny rule" + ix.place(v.Rule)
		}
		return fmt.Sprintf("%s blocked by deny rule%s", what, ix.place(v.Rule))
	case NoRule:
		switch v.Protocol {
		case policy.GraphQL:
			return "GraphQL operation not permitted by policy" + ix.place(v.Rule)
		case policy.MCP, policy.JSONRPC:
			if r.RPC != nil && len(r.RPC.Messages) > 0 {
				return messages(r) + " not permitted by policy" + ix.place(v.Rule)
			}
		}
		return fmt.Sprintf("%s not permitted by policy%s", what, ix.place(v.Rule))
	case QueryNotRegistered:
		return "GraphQL persisted query is not registered"
	case NoRoute:
		return "no L7 endpoint path matched request"
	case TargetNotCanonical:
		return "request-target must be canonical"
	case EncodedSlash:
		return "request-target contains an encoded '/' (%2F) which is not allowed on this endpoint"
	case UpgradeRefused:
		return fmt.Sprintf("an Upgrade cannot be inspected on a %s endpoint", v.Protocol)
	case NotWebSocket:
		return "a websocket endpoint takes WebSocket upgrades only"
	case GraphQLMalformed:
		why := "no document"
		if r.GraphQL != nil && r.GraphQL.Malformed != "" {
			why = r.GraphQL.Malformed
		}
		return "GraphQL request rejected: " + show(why)
	case RPCMalformed, MCPInvalid:
		why := "not valid in this revision"
		if r.RPC != nil && r.RPC.Malformed != "" {
			why = r.RPC.Malformed
		}
		return "JSON-RPC request rejected: " + show(why)
	case RPCResponse:
		return "JSON-RPC response frames are not permitted from client to server"
	case MCPRevisionUnknown, MCPRevisionNotAllowed:
		return ix.revision(r, v)
	case MCPMethodNotAllowed:
		return "this MCP revision knows POST only"
	case Matched:
		if v.Audited {
			break
		}
		return fmt.Sprintf("%s is allowed by policy '%s'%s", what, show(v.Rule.Key), ix.place(v.Rule))
	}
	return ix.Explain(f, Verdict{Reason: v.Reason, Rule: v.Rule, Holder: v.Holder})
}

// revision says which revision a request was taken for, and which would do.
func (ix *Index) revision(r *l7.Facts, v Ruling) string {
	text := "MCP request without MCP-Protocol-Version is taken as " + string(policy.MCP20250326)
	if r.RPC != nil && r.RPC.Revisions > 1 {
		text = "MCP-Protocol-Version is sent more than once"
	} else if r.RPC != nil && r.RPC.Revisions == 1 {
		text = "MCP protocol version " + show(r.RPC.Revision)
	}
	if e := ix.endpoint(v.Rule); e != nil && v.Reason == MCPRevisionNotAllowed {
		words := make([]string, 0, 4)
		for _, m := range e.EffectiveMCPVersions() {
			words = append(words, string(m))
		}
		text += ", and the endpoint takes " + strings.Join(words, ", ") + " only"
	}
	return text
}

func messages(r *l7.Facts) string {
	if r.RPC == nil || len(r.RPC.Messages) == 0 {
		return show(r.Method)
	}
	m := r.RPC.Messages[0]
	text := show(m.Method)
	if m.Tool != "" {
		text += " " + show(m.Tool)
	}
	if n := len(r.RPC.Messages); n > 1 {
		text += fmt.Sprintf(" and %d more", n-1)
	}
	return text
}
