package policywire

import (
	"maps"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	pb "openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/policy"
)

var tlsTo = map[policy.TLSMode]pb.NetworkTlsMode{
	policy.TLSAuto: pb.NetworkTlsMode_NETWORK_TLS_MODE_UNSPECIFIED,
	policy.TLSSkip: pb.NetworkTlsMode_NETWORK_TLS_MODE_SKIP,
}

var enforcementTo = map[policy.Enforcement]pb.NetworkEnforcementMode{
	policy.EnforcementUnspecified: pb.NetworkEnforcementMode_NETWORK_ENFORCEMENT_MODE_UNSPECIFIED,
	policy.Audit:                  pb.NetworkEnforcementMode_NETWORK_ENFORCEMENT_MODE_AUDIT,
	policy.Enforce:                pb.NetworkEnforcementMode_NETWORK_ENFORCEMENT_MODE_ENFORCE,
}

var accessTo = map[policy.Access]pb.NetworkAccessPreset{
	policy.AccessNone: pb.NetworkAccessPreset_NETWORK_ACCESS_PRESET_UNSPECIFIED,
	policy.ReadOnly:   pb.NetworkAccessPreset_NETWORK_ACCESS_PRESET_READ_ONLY,
	policy.ReadWrite:  pb.NetworkAccessPreset_NETWORK_ACCESS_PRESET_READ_WRITE,
	policy.Full:       pb.NetworkAccessPreset_NETWORK_ACCESS_PRESET_FULL,
}

func endpointTo(e *policy.Endpoint) *pb.NetworkEndpoint {
	out := &pb.NetworkEndpoint{
		Host: e.Host, Path: e.Path, AllowedIps: slices.Clone(e.AllowedIPs),
		Protocol: e.Protocol.String(), Tls: tlsTo[e.TLS], Enforcement: enforcementTo[e.Enforcement], Access: accessTo[e.Access],
		AllowEncodedSlash: e.AllowEncodedSlash, PersistedQueries: e.PersistedQueries.String(), GraphqlMaxBodyBytes: e.GraphQLMaxBody,
		WebsocketCredentialRewrite: e.WebSocketRewrite, RequestBodyCredentialRewrite: e.RequestBodyRewrite,
		AdvisorProposed: e.AdvisorProposed, CredentialSigning: e.Signing.String(), SigningService: e.SigningService, SigningRegion: e.SigningRegion,
		JsonRpcMaxBodyBytes: e.JSONRPCMaxBody, AllowUninspectedCredentials: e.AllowUninspectedCredentials,
		ProviderCredentialed: e.ProviderCredentialed, TokenGrantOwner: e.TokenGrantOwner,
	}
	for _, p := range e.Ports {
		out.Ports = append(out.Ports, uint32(p))
	}
	for i := range e.Allow {
		r := &e.Allow[i]
		out.Rules = append(out.Rules, &pb.L7Rule{Allow: &pb.L7Allow{Method: r.Method, Path: r.Path, Command: r.Command, Query: matchersTo(r.Query),
			OperationType: r.OperationType, OperationName: r.OperationName, Fields: slices.Clone(r.Fields), Params: paramsTo(r)}})
	}
	for i := range e.Deny {
		r := &e.Deny[i]
		out.DenyRules = append(out.DenyRules, &pb.L7DenyRule{Method: r.Method, Path: r.Path, Command: r.Command, Query: matchersTo(r.Query),
			OperationType: r.OperationType, OperationName: r.OperationName, Fields: slices.Clone(r.Fields), Params: paramsTo(r)})
	}
	for _, q := range e.RegisteredQueries {
		if out.GraphqlPersistedQueries == nil {
			out.GraphqlPersistedQueries = map[string]*pb.GraphqlOperation{}
		}
		out.GraphqlPersistedQueries[q.ID] = &pb.GraphqlOperation{OperationType: q.OperationType, OperationName: q.OperationName, Fields: slices.Clone(q.Fields)}
	}
	if e.CredentialProvider != "" {
		out.CredentialBinding = &pb.NetworkCredentialBinding{Provider: e.CredentialProvider}
	}
	if e.Protocol == policy.MCP {
		out.Mcp = mcpTo(e)
		if e.MCP != nil && e.MCP.MaxBody != 0 {
			out.JsonRpcMaxBodyBytes = e.MCP.MaxBody // one field for both (contract)
		}
	}
	return out
}

func mcpTo(e *policy.Endpoint) *pb.McpOptions {
	out := &pb.McpOptions{}
	for _, v := range e.EffectiveMCPVersions() {
		out.Versions = append(out.Versions, string(v))
	}
	if e.MCP != nil {
		if e.MCP.LooseToolNames {
			out.StrictToolNames = proto.Bool(false)
		}
		if e.MCP.AllowCoreMethods {
			out.AllowAllKnownMcpMethods = proto.Bool(true)
		}
	}
	return out
}

func matchersTo(list []policy.NamedMatcher) map[string]*pb.L7QueryMatcher {
	if len(list) == 0 {
		return nil
	}
	out := map[string]*pb.L7QueryMatcher{}
	for _, m := range list {
		out[m.Name] = &pb.L7QueryMatcher{Glob: m.Glob, Any: slices.Clone(m.Any)}
	}
	return out
}

// paramsTo puts the tool where the wire has it: params.name.
func paramsTo(r *policy.L7Rule) map[string]*pb.L7QueryMatcher {
	out := matchersTo(r.Params)
	if r.Tool != nil {
		if out == nil {
			out = map[string]*pb.L7QueryMatcher{}
		}
		out["name"] = &pb.L7QueryMatcher{Glob: r.Tool.Glob, Any: slices.Clone(r.Tool.Any)}
	}
	return out
}

func endpointFrom(path string, m *pb.NetworkEndpoint) (policy.Endpoint, error) {
	e := policy.Endpoint{
		Host: m.GetHost(), Path: m.GetPath(), AllowedIPs: slices.Clone(m.GetAllowedIps()), AllowEncodedSlash: m.GetAllowEncodedSlash(),
		CredentialProvider: m.GetCredentialBinding().GetProvider(), RequestBodyRewrite: m.GetRequestBodyCredentialRewrite(),
		WebSocketRewrite: m.GetWebsocketCredentialRewrite(), AllowUninspectedCredentials: m.GetAllowUninspectedCredentials(),
		SigningService: m.GetSigningService(), SigningRegion: m.GetSigningRegion(), GraphQLMaxBody: m.GetGraphqlMaxBodyBytes(),
		AdvisorProposed: m.GetAdvisorProposed(), ProviderCredentialed: m.GetProviderCredentialed(), TokenGrantOwner: m.GetTokenGrantOwner(),
	}
	ports := m.GetPorts()
	if len(ports) == 0 && m.GetPort() != 0 {
		ports = []uint32{m.GetPort()}
	}
	for i, n := range ports {
		p, err := port(field(path+".ports", i), n)
		if err != nil {
			return e, err
		}
		e.Ports = append(e.Ports, p)
	}
	var err error
	if e.Protocol, err = word(path+".protocol", m.GetProtocol(), policy.MCP); err != nil {
		return e, err
	}
	if e.PersistedQueries, err = word(path+".persisted_queries", m.GetPersistedQueries(), policy.PersistedRegistered); err != nil {
		return e, err
	}
	if e.Signing, err = word(path+".credential_signing", m.GetCredentialSigning(), policy.SigV4NoBody); err != nil {
		return e, err
	}
	if e.TLS, err = back(path+".tls", m.GetTls(), tlsTo); err != nil {
		return e, err
	}
	if e.Enforcement, err = back(path+".enforcement", m.GetEnforcement(), enforcementTo); err != nil {
		return e, err
	}
	if e.Access, err = back(path+".access", m.GetAccess(), accessTo); err != nil {
		return e, err
	}
	for i, r := range m.GetRules() {
		if r.GetAllow() == nil {
			return e, bad(field(path+".rules", i), "an empty rule")
		}
		e.Allow = append(e.Allow, rule(r.GetAllow()))
	}
	for _, r := range m.GetDenyRules() {
		e.Deny = append(e.Deny, rule(r))
	}
	for _, id := range slices.Sorted(maps.Keys(m.GetGraphqlPersistedQueries())) {
		q := m.GetGraphqlPersistedQueries()[id]
		e.RegisteredQueries = append(e.RegisteredQueries, policy.RegisteredQuery{ID: id, OperationType: q.GetOperationType(), OperationName: q.GetOperationName(), Fields: slices.Clone(q.GetFields())})
	}
	mcpFrom(&e, m)
	return e, nil
}

func mcpFrom(e *policy.Endpoint, m *pb.NetworkEndpoint) {
	if m.GetMcp() == nil {
		e.JSONRPCMaxBody = m.GetJsonRpcMaxBodyBytes()
		return
	}
	e.MCP = &policy.MCPOptions{MaxBody: m.GetJsonRpcMaxBodyBytes(), AllowCoreMethods: m.GetMcp().GetAllowAllKnownMcpMethods(),
		LooseToolNames: m.GetMcp().StrictToolNames != nil && !m.GetMcp().GetStrictToolNames()}
	for _, v := range m.GetMcp().GetVersions() {
		e.MCP.Versions = append(e.MCP.Versions, policy.MCPVersion(v))
	}
}

// wireRule is what an allow and a deny rule have in common.
type wireRule interface {
	GetMethod() string
	GetPath() string
	GetCommand() string
	GetOperationType() string
	GetOperationName() string
	GetFields() []string
	GetQuery() map[string]*pb.L7QueryMatcher
	GetParams() map[string]*pb.L7QueryMatcher
}

func rule(m wireRule) policy.L7Rule {
	r := policy.L7Rule{Method: m.GetMethod(), Path: m.GetPath(), Command: m.GetCommand(), OperationType: m.GetOperationType(),
		OperationName: m.GetOperationName(), Fields: slices.Clone(m.GetFields()), Query: matchersFrom(m.GetQuery())}
	for _, p := range matchersFrom(m.GetParams()) {
		if p.Name == "name" {
			tool := p.Matcher
			r.Tool = &tool
			continue
		}
		r.Params = append(r.Params, p)
	}
	return r
}

func matchersFrom(m map[string]*pb.L7QueryMatcher) []policy.NamedMatcher {
	var out []policy.NamedMatcher
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, policy.NamedMatcher{Name: name, Matcher: policy.Matcher{Glob: m[name].GetGlob(), Any: slices.Clone(m[name].GetAny())}})
	}
	return out
}

// back finds the word of a wire number.
func back[K comparable, V interface {
	comparable
	String() string
}](path string, v V, table map[K]V) (K, error) {
	for k, w := range table {
		if w == v {
			return k, nil
		}
	}
	var zero K
	return zero, bad(path, "%s is not accepted in a policy", v.String())
}

func field(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
