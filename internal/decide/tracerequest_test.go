package decide_test

import (
	"slices"
	"testing"

	"openshell.dev/openshell/internal/decide"
	"openshell.dev/openshell/internal/l7"
)

func TestTraceRequest(t *testing.T) {
	ix := compile(t, `
api:
  endpoints:
    - {host: a.example.com, port: 443, protocol: rest, enforcement: enforce,
       rules: [{allow: {method: POST, path: /x}}, {allow: {method: GET, path: /y}}, {allow: {method: GET, path: /x, query: {q: "1"}}}, {allow: {method: GET, path: /x}}],
       deny_rules: [{method: GET, path: /x, query: {q: "2"}}]}
    - {host: a.example.com, port: 443, path: /g, protocol: graphql, enforcement: enforce, access: read-only}
    - {host: b.example.com, port: 443, protocol: rest, access: full}
  binaries: [{path: /usr/bin/curl}]
m: {endpoints: [{host: m.example.com, port: 443, path: /mcp, protocol: mcp, rules: [{allow: {method: tools/list}}, {allow: {method: tools/call, tool: a}}]}], binaries: [{path: /usr/bin/curl}]}
`)
	for _, c := range []struct {
		name  string
		host  string
		facts l7.Facts
		want  []decide.RuleWhy
	}{
		{"rest", "a.example.com", http("GET", "/x", l7.Param{Name: "q", Value: "3"}),
			[]decide.RuleWhy{decide.OtherQuery, decide.OtherMethod, decide.OtherPath, decide.OtherQuery, decide.RuleMatches, decide.OtherRoute}},
		{"graphql", "a.example.com", gql("/g", graph("query", "", "x")),
			[]decide.RuleWhy{decide.OtherMethod, decide.OtherProtocol, decide.OtherProtocol, decide.OtherProtocol, decide.OtherProtocol, decide.RuleMatches}},
		{"mcp", "m.example.com", mcp("2025-11-25", "tools/call b"), []decide.RuleWhy{decide.OtherMethod, decide.OtherTool}},
	} {
		tr := ix.TraceRequest(flow(c.host, 443, "/usr/bin/curl"), &c.facts)
		var got []decide.RuleWhy
		for _, s := range tr.Rules {
			got = append(got, s.Why)
			if !s.Pos.Known() || s.Why.String() == "unknown" {
				t.Errorf("%s: %+v has no place or no words", c.name, s)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if tr.Ruling != ix.Request(flow(c.host, 443, "/usr/bin/curl"), &c.facts) {
			t.Errorf("%s: the trace decides otherwise", c.name)
		}
	}
}
