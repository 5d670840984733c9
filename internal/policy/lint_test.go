package policy_test

import (
	"strings"
	"testing"

	"openshell.dev/openshell/internal/policy"
)

func TestLint(t *testing.T) {
	rest := "host: a.example.com, port: 443, protocol: rest, enforcement: enforce"
	for _, c := range []struct{ name, text, want string }{
		{"no binaries", "version: 1\nnetwork_policies: {a: {endpoints: [{host: a.example.com, port: 443}]}}", "matches no program"},
		{"no endpoints", "version: 1\nnetwork_policies: {a: {}}", "grants nothing"},
		{"audit by omission", endpointDoc("host: a.example.com, port: 443, protocol: rest, access: full"), "only logged (audit)"},
		{"access without protocol", endpointDoc("host: a.example.com, port: 443, access: read-only"), "no effect without protocol"},
		{"rules without protocol", endpointDoc("host: a.example.com, port: 443, rules: [{allow: {method: GET, path: /x}}]"), "rules have no effect"},
		{"path without protocol", endpointDoc("host: a.example.com, port: 443, path: /v1"), "only narrows"},
		{"skip with protocol", endpointDoc(rest + ", access: full, tls: skip"), "relays the connection unread"},
		{"both ports", endpointDoc("host: a.example.com, port: 80, ports: [443]"), "p.yaml:5:37: network_policies.api.endpoints[0].port: port and ports are both written"},
		{"loopback list", endpointDoc("host: a.example.com, port: 443, allowed_ips: [127.0.0.0/8]"), "every connection to this endpoint fails"},
		{"everything list", endpointDoc("host: a.example.com, port: 443, allowed_ips: [0.0.0.0/0]"), "every connection to this endpoint fails"},
		{"wide list", endpointDoc("host: a.example.com, port: 443, allowed_ips: [64.0.0.0/3]"), "large part of the Internet"},
		{"localhost", endpointDoc("host: localhost, port: 443"), "can never be reached"},
		{"metadata", endpointDoc("host: 169.254.169.254, port: 80"), "can never be reached"},
		{"one label", endpointDoc("host: intranet, port: 443"), "no search domain"},
		{"any top-level domain", endpointDoc(`host: "api.example.*", port: 443`), "every top-level domain"},
		{"deep", endpointDoc(`host: "**.example.com", port: 443`), "every depth below example.com"},
		{"control port", endpointDoc("host: a.example.com, port: 6443"), "control plane"},
		{"any program", "version: 1\nnetwork_policies: {a: {endpoints: [{host: a.example.com, port: 443}], binaries: [{path: /**}]}}", "every program may use this rule"},
		{"relative program", "version: 1\nnetwork_policies: {a: {endpoints: [{host: a.example.com, port: 443}], binaries: [{path: curl}]}}", "can never match"},
		{"not a pattern", "version: 1\nnetwork_policies: {a: {endpoints: [{host: a.example.com, port: 443}], binaries: [{path: \"/bin/c?rl\"}]}}", "taken literally"},
		{"writable program", "version: 1\nnetwork_policies: {a: {endpoints: [{host: a.example.com, port: 443}], binaries: [{path: /tmp/x}]}}", "put another program there"},
		{"unknown method", endpointDoc(rest + ", rules: [{allow: {method: GTE, path: /x}}]"), `"GTE" is not a method`},
		{"full", endpointDoc(rest + ", rules: [{allow: {method: '*', path: /**}}]"), "allows every request"},
		{"shadowed rule", endpointDoc(rest + ", rules: [{allow: {method: GET, path: /**}}, {allow: {method: GET, path: /x}}]"), "rules[1]: rules[0] already allows all of this"},
		{"denies everything", endpointDoc(rest + ", access: full, deny_rules: [{method: '*', path: '**'}]"), "denies every request"},
		{"root left out", endpointDoc(rest + ", rules: [{allow: {method: GET, path: /x/**}}]"), `"/x/**" does not cover "/x" itself`},
		{"glued stars", endpointDoc(rest + ", rules: [{allow: {method: GET, path: /x**}}]"), "is the same as *"},
		{"dot in query", endpointDoc(rest + ", rules: [{allow: {method: GET, path: /x, query: {q: \"a*\"}}}]"), "does not cross a dot"},
		{"default revision", endpointDoc("host: a.example.com, port: 443, protocol: mcp, enforcement: enforce, rules: [{allow: {method: ping}}]"), "without mcp.versions"},
		{"shadowed endpoint", "version: 1\nnetwork_policies: {a: {endpoints: [{host: a.example.com, ports: [80, 443]}], binaries: [{path: /x}]}, b: {endpoints: [{host: A.example.com, port: 443}], binaries: [{path: /x}]}}", "network_policies.a.endpoints[0] already grants all of this"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := policy.Parse("p.yaml", []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if err := policy.NewError(d, policy.Lint(d)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got\n%v\nwithout: %s", err, c.want)
			}
		})
	}
	clean, err := policy.Parse("p.yaml", []byte(endpointDoc(rest+`, rules: [{allow: {method: GET, path: /x}}, {allow: {method: GET, path: /x/**}}], deny_rules: [{method: "*", path: /x/secret}]`)))
	if err != nil {
		t.Fatal(err)
	}
	if vs := policy.Lint(clean); len(vs) != 0 {
		t.Errorf("a clean document: %v", vs)
	}
}
