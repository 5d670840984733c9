package policyproto_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"openshell.dev/openshell/api/gen/sandboxv1"
	"openshell.dev/openshell/internal/policy"
	"openshell.dev/openshell/internal/policyproto"
)

const whole = `
version: 1
filesystem_policy: {include_workdir: true, read_only: [/usr, /etc], read_write: [/tmp]}
landlock: {compatibility: hard_requirement}
process: {run_as_user: "1000"}
network_policies:
  api:
    name: the api
    endpoints:
      - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: read-only}
      - {host: two.example.com, ports: [80, 8080], protocol: rest, rules: [{allow: {method: GET, path: "/x/**", query: {q: "a*", r: {any: [b, c]}}}}], deny_rules: [{method: GET, path: /x/secret}]}
      - {host: raw.example.com, port: 22, tls: skip}
    binaries: [{path: /usr/bin/curl}]
  tools:
    endpoints:
      - {host: mcp.example.com, port: 443, path: /mcp, protocol: mcp, enforcement: enforce, mcp: {max_body_bytes: 1000, versions: ["2025-06-18"], strict_tool_names: true}, rules: [{allow: {method: tools/call, params: {name: "read_*"}}}]}
    binaries: [{path: "/usr/bin/*"}]
`

func TestADocumentComesBackFromTheWire(t *testing.T) {
	d, err := policy.Parse("p.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	wire, err := policyproto.Proto(d)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Marshal(wire)
	if err != nil {
		t.Fatal(err)
	}
	got := &sandboxv1.SandboxPolicy{}
	if err := proto.Unmarshal(raw, got); err != nil {
		t.Fatal(err)
	}
	back, err := policyproto.Document(got)
	if err != nil {
		t.Fatalf("%v\n%s", err, protojson.Format(got))
	}
	if string(policy.Canonical(back)) != string(policy.Canonical(d)) || policy.Hash(back) != policy.Hash(d) {
		t.Errorf("came back as\n%s\nwant\n%s", policy.Canonical(back), policy.Canonical(d))
	}
}

func TestAnAbsentPolicyStaysAbsent(t *testing.T) {
	if d, err := policyproto.Document(nil); d != nil || err != nil {
		t.Errorf("Document(nil) = %v, %v", d, err)
	}
	d, err := policyproto.Document(&sandboxv1.SandboxPolicy{})
	if err != nil || d == nil || d.Filesystem != nil {
		t.Errorf("an empty policy = %+v, %v", d, err)
	}
}

func TestWhatTheParserRefusesIsRefused(t *testing.T) {
	for name, p := range map[string]*sandboxv1.SandboxPolicy{
		"version": {Version: 7},
		"tls": {NetworkPolicies: map[string]*sandboxv1.NetworkPolicyRule{"a": {Endpoints: []*sandboxv1.NetworkEndpoint{
			{Host: "x.example.com", Port: 1, Tls: sandboxv1.NetworkTlsMode_NETWORK_TLS_MODE_TERMINATE}}}}},
		"unknown enum": {NetworkPolicies: map[string]*sandboxv1.NetworkPolicyRule{"a": {Endpoints: []*sandboxv1.NetworkEndpoint{
			{Host: "x.example.com", Port: 1, Access: 99}}}}},
		"port": {NetworkPolicies: map[string]*sandboxv1.NetworkPolicyRule{"a": {Endpoints: []*sandboxv1.NetworkEndpoint{
			{Host: "x.example.com", Port: 70000}}}}},
	} {
		if _, err := policyproto.Document(p); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
