package policy_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/policy"
)

// FuzzParse holds the reader to two properties: it never panics, and the
// canonical form of what it accepts is accepted and is its own canonical form.
func FuzzParse(f *testing.F) {
	for _, text := range documents {
		f.Add([]byte(text))
	}
	f.Add([]byte("version: 1\nx: &a [*a]"))
	f.Add([]byte(`{"version": 1, "process": {"run_as_user": "\u0031"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := policy.Parse("f.yaml", data)
		if err != nil {
			if d != nil || !strings.HasPrefix(err.Error(), "f.yaml") {
				t.Fatalf("a document beside an error, or no place: %v", err)
			}
			return
		}
		roundTrip(t, d)
		if vs := policy.Validate(d); len(vs) != 0 {
			t.Fatalf("accepted and not valid: %v", vs)
		}
		if text := policy.JSON(d); !json.Valid(text) {
			t.Fatalf("not JSON: %s", text)
		}
		if bytes.ContainsAny(policy.Canonical(d), "\x00\x1b\r") {
			t.Fatal("a control character in the canonical form")
		}
		policy.Ambiguities(d)
		policy.Unenforced(d)
	})
}

// documents are valid documents that together use every member.
var documents = map[string]string{
	"rest": endpointDoc("host: api.github.com, port: 443, protocol: rest, enforcement: enforce, access: read-only"),
	"globs": endpointDoc(`host: api.example.com, port: 443, protocol: rest, enforcement: enforce,
       rules: [{allow: {method: GET, path: /repos/**}}, {allow: {method: POST, path: "/repos/*/*/issues"}}],
       deny_rules: [{method: "*", path: "/repos/*/*/hooks/**"}], allow_encoded_slash: true`),
	"query": endpointDoc(`host: a.example.com, ports: [443, 8443], protocol: rest, path: /v1/**,
       rules: [{allow: {method: GET, path: /dl, query: {platform: {any: ["linux-*","darwin-*"]}, ver: "1.*"}}}],
       deny_rules: [{method: GET, path: /dl, query: {force: "true"}}]`),
	"graphql": endpointDoc(`host: a.example.com, port: 443, path: /graphql, protocol: graphql, enforcement: audit, graphql_max_body_bytes: 1000,
       persisted_queries: allow_registered, graphql_persisted_queries: {abc: {operation_type: query, operation_name: Q, fields: [viewer]}},
       rules: [{allow: {operation_type: query}}, {allow: {operation_type: mutation, operation_name: "c*", fields: [createIssue]}}],
       deny_rules: [{operation_type: mutation, fields: [deleteRepository]}]`),
	"websocket": endpointDoc(`host: a.example.com, port: 443, protocol: websocket, enforcement: enforce, websocket_credential_rewrite: true,
       rules: [{allow: {method: GET, path: /v1/realtime}}, {allow: {method: WEBSOCKET_TEXT, path: /v1/realtime}}], deny_rules: [{method: "*", path: /v1/admin/**}]`),
	"mcp": endpointDoc(`host: a.example.com, port: 443, path: /mcp, protocol: mcp, enforcement: enforce,
       mcp: {versions: ["2026-07-28", "2025-03-26"], max_body_bytes: 5, allow_all_known_mcp_methods: true},
       rules: [{allow: {tool: {any: [search_web, "read_*"]}}}], deny_rules: [{method: tools/call, params: {name: x}}]`),
	"json-rpc": endpointDoc(`host: a.example.com, port: 443, protocol: json-rpc, json_rpc: {max_body_bytes: 7}, rules: [{allow: {method: reports.search}}], deny_rules: [{method: "*"}]`),
	"tcp":      endpointDoc("host: db.internal.example, port: 5432, protocol: tcp, allowed_ips: [10.0.0.0/8, 'fd00::/8']"),
	"secrets": endpointDoc(`host: s3.eu.amazonaws.com, port: 443, protocol: rest, access: full, credential_binding: {provider: aws},
       credential_signing: "sigv4:body", signing_service: s3, signing_region: eu, allow_uninspected_credentials: true`),
	"static": "version: 1\nfilesystem_policy: {include_workdir: true, read_only: [/usr, \"/a b\"], read_write: [/tmp]}\nlandlock: {compatibility: hard_requirement}\nprocess: {run_as_user: sandbox, run_as_group: 1000}\n",
	"middleware": endpointDoc("host: a.example.com, port: 443, protocol: rest, access: full, request_body_credential_rewrite: true") +
		"network_middlewares:\n  m: {name: M, middleware: openshell/regex, order: -3, config: {mode: redact, n: [1, 2.5, null, {}, []]}, on_error: fail_open, on_uninspectable: deny, endpoints: {include: [\"**\"], exclude: [\"*.b.c\"]}}\n",
	"odd words": "version: 1\nnetwork_policies:\n  \"yes\": {name: \"2025-01-01\", binaries: [{path: \"1\"}]}\n  \"a.b\\e[1m\": {}\n  \"\\U0001F600\": {}\n",
}

func TestDocumentsRoundTrip(t *testing.T) {
	for name, text := range documents {
		t.Run(name, func(t *testing.T) {
			d, err := policy.Parse("p.yaml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, d)
			if vs := policy.Ambiguities(d); len(vs) != 0 {
				t.Error(vs)
			}
		})
	}
}

func TestHashSeesEveryMember(t *testing.T) {
	seen := map[string]string{}
	for name, text := range documents {
		d, err := policy.Parse("p.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		h := policy.Hash(d)
		if other := seen[h]; other != "" || len(h) != 64 {
			t.Errorf("%s and %s have the hash %s", name, other, h)
		}
		seen[h] = name
		if len(d.Rules) > 0 && len(d.Rules[0].Endpoints) > 0 {
			d.Rules[0].Endpoints[0].AdvisorProposed = true
			if policy.Hash(d) == h {
				t.Error("the hash does not see provenance")
			}
		}
	}
}

func TestUnenforcedNamesEachFeature(t *testing.T) {
	for name, want := range map[string]string{
		"rest": "network_policies.api.endpoints[0].protocol", "secrets": "credential_binding", "middleware": "network_middlewares.m",
		"tcp": "", "static": "",
	} {
		d, err := policy.Parse("p.yaml", []byte(documents[name]))
		if err != nil {
			t.Fatal(err)
		}
		err = policy.NewError(d, policy.Unenforced(d))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "p.yaml:")) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}
