package policyproto

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
)

// Proto writes a document as a wire policy. A nil document is a nil policy.
func Proto(d *policy.Document) (*sandboxv1.SandboxPolicy, error) {
	if d == nil {
		return nil, nil
	}
	if d.UI != nil {
		return nil, fault.New(fault.Unsupported, "the ui section cannot be sent to a gateway").On("policy.ui")
	}
	p := &sandboxv1.SandboxPolicy{Version: policy.Version}
	if f := d.Filesystem; f != nil {
		p.Filesystem = &sandboxv1.FilesystemPolicy{IncludeWorkdir: f.IncludeWorkdir, ReadOnly: f.ReadOnly, ReadWrite: f.ReadWrite}
	}
	if d.Landlock != nil {
		p.Landlock = &sandboxv1.LandlockPolicy{Compatibility: d.Landlock.Compatibility.String()}
	}
	if d.Process != nil {
		p.Process = &sandboxv1.ProcessPolicy{RunAsUser: d.Process.RunAsUser, RunAsGroup: d.Process.RunAsGroup}
	}
	for _, r := range d.Rules {
		if p.NetworkPolicies == nil {
			p.NetworkPolicies = map[string]*sandboxv1.NetworkPolicyRule{}
		}
		rule := &sandboxv1.NetworkPolicyRule{Name: r.Name}
		for _, b := range r.Binaries {
			rule.Binaries = append(rule.Binaries, &sandboxv1.NetworkBinary{Path: b.Path})
		}
		for i := range r.Endpoints {
			rule.Endpoints = append(rule.Endpoints, wireEndpoint(&r.Endpoints[i]))
		}
		p.NetworkPolicies[r.Key] = rule
	}
	for _, m := range d.Middlewares {
		if p.NetworkMiddlewares == nil {
			p.NetworkMiddlewares = map[string]*sandboxv1.NetworkMiddlewareConfig{}
		}
		if m.OnUninspectable != 0 {
			return nil, fault.New(fault.Unsupported, "on_uninspectable cannot be sent to a gateway").On("policy.network_middlewares." + m.Key)
		}
		config, err := structpb.NewStruct(m.Config)
		if err != nil {
			return nil, err
		}
		wire := &sandboxv1.NetworkMiddlewareConfig{Name: m.Name, Middleware: m.Middleware, Config: config, OnError: m.OnError.String(), Order: m.Order}
		if len(m.Include)+len(m.Exclude) > 0 {
			wire.Endpoints = &sandboxv1.MiddlewareEndpointSelector{Include: m.Include, Exclude: m.Exclude}
		}
		p.NetworkMiddlewares[m.Key] = wire
	}
	return p, nil
}

func wireEndpoint(e *policy.Endpoint) *sandboxv1.NetworkEndpoint {
	w := &sandboxv1.NetworkEndpoint{
		Host: e.Host, Path: e.Path, AllowedIps: e.AllowedIPs, Protocol: e.Protocol.String(),
		AllowEncodedSlash: e.AllowEncodedSlash, WebsocketCredentialRewrite: e.WebSocketRewrite, RequestBodyCredentialRewrite: e.RequestBodyRewrite,
		AllowUninspectedCredentials: e.AllowUninspectedCredentials, CredentialSigning: e.Signing.String(),
		SigningService: e.SigningService, SigningRegion: e.SigningRegion, PersistedQueries: e.PersistedQueries.String(),
		GraphqlMaxBodyBytes: e.GraphQLMaxBody, JsonRpcMaxBodyBytes: e.JSONRPCMaxBody,
	}
	if len(e.Ports) == 1 {
		w.Port = uint32(e.Ports[0])
	} else {
		for _, p := range e.Ports {
			w.Ports = append(w.Ports, uint32(p))
		}
	}
	w.Tls = enum[sandboxv1.NetworkTlsMode](e.TLS.String())
	w.Enforcement = enum[sandboxv1.NetworkEnforcementMode](e.Enforcement.String())
	w.Access = enum[sandboxv1.NetworkAccessPreset](e.Access.String())
	for _, r := range e.Allow {
		w.Rules = append(w.Rules, &sandboxv1.L7Rule{Allow: &sandboxv1.L7Allow{Method: r.Method, Path: r.Path, Command: r.Command,
			Query: matchers(r.Query), OperationType: r.OperationType, OperationName: r.OperationName, Fields: r.Fields, Params: params(r)}})
	}
	for _, r := range e.Deny {
		w.DenyRules = append(w.DenyRules, &sandboxv1.L7DenyRule{Method: r.Method, Path: r.Path, Command: r.Command,
			Query: matchers(r.Query), OperationType: r.OperationType, OperationName: r.OperationName, Fields: r.Fields, Params: params(r)})
	}
	for _, q := range e.RegisteredQueries {
		if w.GraphqlPersistedQueries == nil {
			w.GraphqlPersistedQueries = map[string]*sandboxv1.GraphqlOperation{}
		}
		w.GraphqlPersistedQueries[q.ID] = &sandboxv1.GraphqlOperation{OperationType: q.OperationType, OperationName: q.OperationName, Fields: q.Fields}
	}
	if e.CredentialProvider != "" {
		w.CredentialBinding = &sandboxv1.NetworkCredentialBinding{Provider: e.CredentialProvider}
	}
	if m := e.MCP; m != nil {
		w.Mcp = &sandboxv1.McpOptions{StrictToolNames: proto.Bool(!m.LooseToolNames), AllowAllKnownMcpMethods: proto.Bool(m.AllowCoreMethods)}
		for _, v := range m.Versions {
			w.Mcp.Versions = append(w.Mcp.Versions, string(v))
		}
		if m.MaxBody != 0 {
			w.JsonRpcMaxBodyBytes = m.MaxBody
		}
	}
	return w
}

func matchers(list []policy.NamedMatcher) map[string]*sandboxv1.L7QueryMatcher {
	if len(list) == 0 {
		return nil
	}
	out := map[string]*sandboxv1.L7QueryMatcher{}
	for _, m := range list {
		out[m.Name] = &sandboxv1.L7QueryMatcher{Glob: m.Matcher.Glob, Any: m.Matcher.Any}
	}
	return out
}

// params are the matchers of a rule with its tool, which is params.name.
func params(r policy.L7Rule) map[string]*sandboxv1.L7QueryMatcher {
	list := r.Params
	if r.Tool != nil {
		list = append(slices.Clone(list), policy.NamedMatcher{Name: "name", Matcher: *r.Tool})
	}
	return matchers(list)
}

// enum finds the value that the document spells word. The parser knows only
// words that have one.
func enum[E interface {
	~int32
	protoreflect.Enum
}](word string) E {
	var zero E
	values := zero.Descriptor().Values()
	for i := range values.Len() {
		if v := values.Get(i); v.Number() != 0 && enumWord(zero.Descriptor(), v) == word {
			return E(v.Number())
		}
	}
	return zero
}
