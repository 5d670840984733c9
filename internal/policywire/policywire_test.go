package policywire_test

import (
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/policy"
	"openshell.dev/openshell/internal/policywire"
)

const full = `
version: 1
filesystem_policy:
  include_workdir: true
  read_only: [/usr, /lib]
  read_write: [/tmp]
landlock: {compatibility: hard_requirement}
process: {run_as_user: "1000", run_as_group: "1000"}
network_policies:
  api:
    name: The API
    endpoints:
      - host: api.example.com
        ports: [443, 8443]
        protocol: rest
        enforcement: enforce
        rules:
          - allow: {method: GET, path: "/v1/**", query: {page: "*", kind: {any: [a, b]}}}
        deny_rules:
          - {method: GET, path: "/v1/secret"}
      - host: db.example.com
        port: 5432
        tls: skip
        allowed_ips: [10.0.0.0/8]
    binaries: [{path: /usr/bin/curl}]
  tools:
    endpoints:
      - host: mcp.example.com
        port: 443
        protocol: mcp
        enforcement: enforce
        mcp: {versions: ["2025-06-18"], strict_tool_names: false, max_body_bytes: 1000}
        rules:
          - allow: {method: tools/call, tool: "read_file"}
    binaries: [{path: "/usr/bin/*"}]
`

func TestADocumentSurvivesTheWire(t *testing.T) {
	doc, err := policy.Parse("full.yaml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	m, err := policywire.To(doc)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got pb.SandboxPolicy
	if err := proto.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	back, err := policywire.From(&got)
	if err != nil {
		t.Fatal(err)
	}
	if v := policy.Validate(back); len(v) > 0 {
		t.Fatalf("invalid after the wire: %v", v)
	}
	if a, b := string(policy.Canonical(doc)), string(policy.Canonical(back)); a != b {
		t.Errorf("changed on the wire:\n%s\n---\n%s", a, b)
	}
}

// Every field of the messages must be read and written: a field that the
// translation forgets would silently widen or narrow a policy.
func TestEveryEndpointFieldIsTranslated(t *testing.T) {
	e := &pb.NetworkEndpoint{
		Host: "h", Protocol: "rest", Tls: pb.NetworkTlsMode_NETWORK_TLS_MODE_SKIP, Enforcement: pb.NetworkEnforcementMode_NETWORK_ENFORCEMENT_MODE_AUDIT,
		Access: pb.NetworkAccessPreset_NETWORK_ACCESS_PRESET_FULL, AllowedIps: []string{"10.0.0.1"}, Ports: []uint32{1},
		Rules:             []*pb.L7Rule{{Allow: &pb.L7Allow{Method: "m", Path: "p", Command: "c", OperationType: "t", OperationName: "n", Fields: []string{"f"}, Query: map[string]*pb.L7QueryMatcher{"q": {Glob: "*"}}, Params: map[string]*pb.L7QueryMatcher{"x": {Any: []string{"y"}}, "name": {Glob: "z"}}}}},
		DenyRules:         []*pb.L7DenyRule{{Method: "m", Path: "p", Command: "c", OperationType: "t", OperationName: "n", Fields: []string{"f"}, Query: map[string]*pb.L7QueryMatcher{"q": {Glob: "*"}}, Params: map[string]*pb.L7QueryMatcher{"x": {Any: []string{"y"}}}}},
		AllowEncodedSlash: true, PersistedQueries: "deny", GraphqlPersistedQueries: map[string]*pb.GraphqlOperation{"i": {OperationType: "t", OperationName: "n", Fields: []string{"f"}}},
		GraphqlMaxBodyBytes: 1, Path: "p", WebsocketCredentialRewrite: true, RequestBodyCredentialRewrite: true, AdvisorProposed: true,
		CredentialSigning: "sigv4", SigningService: "s", SigningRegion: "r", JsonRpcMaxBodyBytes: 2, CredentialBinding: &pb.NetworkCredentialBinding{Provider: "p"},
		AllowUninspectedCredentials: true, ProviderCredentialed: true, TokenGrantOwner: "o",
	}

	fields := e.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if name := string(f.Name()); name != "port" && name != "mcp" && !e.ProtoReflect().Has(f) {
			t.Errorf("the test does not set %s", name)
		}
	}
	in := &pb.SandboxPolicy{Version: 1, NetworkPolicies: map[string]*pb.NetworkPolicyRule{"k": {Name: "title", Endpoints: []*pb.NetworkEndpoint{e}, Binaries: []*pb.NetworkBinary{{Path: "/b"}}}}}
	doc, err := policywire.From(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := policywire.To(doc)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(in, out) {
		t.Errorf("not the same:\n%v\n%v", in, out)
	}
}

func TestWhatTheWireCannotSayIsAnError(t *testing.T) {
	for name, doc := range map[string]*policy.Document{
		"ui":               {UI: &policy.UI{}},
		"on_uninspectable": {Middlewares: []policy.Middleware{{Key: "m", OnUninspectable: policy.UninspectableDeny}}},
	} {
		if _, err := policywire.To(doc); fault.KindOf(err) != fault.Unsupported || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatADocumentCannotSayIsAnError(t *testing.T) {
	endpoint := func(e *pb.NetworkEndpoint) *pb.SandboxPolicy {
		return &pb.SandboxPolicy{NetworkPolicies: map[string]*pb.NetworkPolicyRule{"r": {Endpoints: []*pb.NetworkEndpoint{e}}}}
	}
	for name, m := range map[string]*pb.SandboxPolicy{
		"compatibility": {Landlock: &pb.LandlockPolicy{Compatibility: "maybe"}},
		"version":       {Version: 9},
		"tls":           endpoint(&pb.NetworkEndpoint{Tls: pb.NetworkTlsMode_NETWORK_TLS_MODE_TERMINATE}),
		"protocol":      endpoint(&pb.NetworkEndpoint{Protocol: "gopher"}),
		"ports[0]":      endpoint(&pb.NetworkEndpoint{Ports: []uint32{70000}}),
		"access":        endpoint(&pb.NetworkEndpoint{Access: 77}),
	} {
		_, err := policywire.From(m)
		if fault.KindOf(err) != fault.InvalidArgument || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if doc, err := policywire.From(nil); doc != nil || err != nil || !reflect.DeepEqual(doc, (*policy.Document)(nil)) {
		t.Errorf("nil: %v, %v", doc, err)
	}
}
