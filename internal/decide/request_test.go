package decide_test

import (
	"testing"

	"openshell.dev/openshell/internal/decide"
	"openshell.dev/openshell/internal/l7"
)

// The outcomes of the contract's examples.
const (
	pass    = "pass"           // reaches the upstream
	audited = "audited"        // forwarded although denied
	soft    = "denied"         // 403 policy_denied by a rule, enforced
	hard    = "denied, always" // audit would not soften it
)

func outcome(v decide.Ruling) string {
	switch {
	case v.Allow && v.Audited:
		return audited
	case v.Allow:
		return pass
	case v.Hard:
		return hard
	}
	return soft
}

type want struct {
	name    string
	program string // "" is /usr/bin/curl
	facts   l7.Facts
	want    string
	reason  decide.Reason // 0: any
}

func checkRequests(t *testing.T, ix *decide.Index, host string, cases []want) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			program := c.program
			if program == "" {
				program = "/usr/bin/curl"
			}
			f := flow(host, 443, program)
			v := ix.Request(f, &c.facts)
			if outcome(v) != c.want || c.reason != 0 && v.Reason != c.reason {
				t.Errorf("%s with reason %d, want %s with %d: %s", outcome(v), v.Reason, c.want, c.reason, ix.ExplainRequest(f, &c.facts, v))
			}
			if ix.ExplainRequest(f, &c.facts, v) == "" {
				t.Error("no explanation")
			}
			if n := testing.AllocsPerRun(10, func() { ix.Request(f, &c.facts) }); n != 0 {
				t.Errorf("Request allocates %v times", n)
			}
		})
	}
}

func http(method, path string, query ...l7.Param) l7.Facts {
	return l7.Facts{Method: method, Path: path, Query: query}
}

func TestRESTPreset(t *testing.T) { // X2, X5
	for mode, denied := range map[string]string{"enforce": soft, "audit": audited} {
		ix := compile(t, `gh: {endpoints: [{host: api.github.com, port: 443, protocol: rest, enforcement: `+mode+`, access: read-only}], binaries: [{path: /usr/bin/curl}]}`)
		upgrade := http("GET", "/x")
		upgrade.Upgrade = true
		slash := http("GET", "/a%2Fb")
		slash.EncodedSlash = true
		checkRequests(t, ix, "api.github.com", []want{
			{"get", "", http("GET", "/x"), pass, decide.Matched},
			{"head", "", http("HEAD", "/x"), pass, 0},
			{"options", "", http("OPTIONS", "/x"), pass, 0},
			{"lower case", "", http("get", "/x"), pass, 0},
			{"post", "", http("POST", "/x"), denied, decide.NoRule},
			{"delete", "", http("DELETE", "/x"), denied, 0},
			{"other program", "/usr/bin/wget", http("GET", "/x"), hard, decide.ProgramNotAllowed},
			{"upgrade", "", upgrade, hard, decide.UpgradeRefused},
			{"encoded slash", "", slash, hard, decide.EncodedSlash},
			{"no path", "", http("GET", ""), hard, decide.TargetNotCanonical},
			{"relative path", "", http("GET", "x"), hard, decide.TargetNotCanonical},
			{"nothing", "", l7.Facts{}, hard, 0},
		})
	}
}

func TestGlobsAndDeny(t *testing.T) { // X3
	ix := compile(t, `
api:
  endpoints:
    - {host: api.example.com, port: 443, protocol: rest, enforcement: enforce,
       rules: [{allow: {method: GET, path: /repos/**}}, {allow: {method: POST, path: "/repos/*/*/issues"}}, {allow: {method: GET, path: "/files/report**"}}],
       deny_rules: [{method: "*", path: "/repos/*/*/hooks/**"}]}
  binaries: [{path: /usr/bin/curl}]
`)
	checkRequests(t, ix, "api.example.com", []want{
		{"get", "", http("GET", "/repos/a/b"), pass, 0},
		{"get in lower case", "", http("get", "/repos/a/b"), pass, 0},
		{"head", "", http("HEAD", "/repos/a/b"), pass, 0},
		{"root", "", http("GET", "/repos"), soft, 0},
		{"root with slash", "", http("GET", "/repos/"), pass, 0},
		{"issue", "", http("POST", "/repos/a/b/issues"), pass, 0},
		{"too deep", "", http("POST", "/repos/a/b/c/issues"), soft, 0},
		{"hook", "", http("GET", "/repos/a/b/hooks/1"), soft, decide.RuleDenied},
		{"hook by head", "", http("HEAD", "/repos/a/b/hooks/1"), soft, decide.RuleDenied},
		{"hooks", "", http("GET", "/repos/a/b/hooks"), pass, 0},
		{"report", "", http("GET", "/files/report-2024"), pass, 0},
		{"report below", "", http("GET", "/files/report/2024"), soft, 0},
		{"elsewhere", "", http("GET", "/orgs"), soft, 0},
	})
}

func TestQuery(t *testing.T) { // X4
	ix := compile(t, `
api:
  endpoints:
    - {host: a.example.com, port: 443, protocol: rest, enforcement: enforce,
       rules: [{allow: {method: GET, path: /dl, query: {platform: {any: ["linux-*","darwin-*"]}, ver: "1.*"}}}],
       deny_rules: [{method: GET, path: /dl, query: {force: "true"}}]}
  binaries: [{path: /usr/bin/curl}]
`)
	p := func(kv ...string) l7.Facts {
		f := http("GET", "/dl")
		for i := 0; i < len(kv); i += 2 {
			f.Query = append(f.Query, l7.Param{Name: kv[i], Value: kv[i+1]})
		}
		return f
	}
	checkRequests(t, ix, "a.example.com", []want{
		{"fits", "", p("platform", "linux-x64", "ver", "1.2", "other", "x"), pass, 0},
		{"dot", "", p("platform", "linux-x64", "ver", "1.2.3"), soft, 0},
		{"missing", "", p("platform", "linux-x64"), soft, 0},
		{"one value of two", "", p("platform", "linux-x64", "platform", "win", "ver", "1.2"), soft, 0},
		{"both values", "", p("platform", "linux-x64", "platform", "darwin-arm", "ver", "1.2"), pass, 0},
		{"one value denies", "", p("platform", "linux-x64", "ver", "1.2", "force", "false", "force", "true"), soft, decide.RuleDenied},
		{"denying key is harmless", "", p("platform", "linux-x64", "ver", "1.2", "force", "false"), pass, 0},
	})
}

func TestOverlap(t *testing.T) { // X6
	ix := compile(t, `
a: {endpoints: [{host: api.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /repos/**}}]}], binaries: [{path: /usr/bin/curl}, {path: /usr/bin/wget}]}
b: {endpoints: [{host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: read-only, deny_rules: [{method: GET, path: /repos/private/**}]}], binaries: [{path: /usr/bin/curl}]}
c: {endpoints: [{host: api.example.com, port: 443}], binaries: [{path: /usr/bin/curl}, {path: /usr/bin/nc}]}
`)
	checkRequests(t, ix, "api.example.com", []want{
		{"via b", "", http("GET", "/orgs"), pass, 0},
		{"denied in b", "", http("GET", "/repos/private/x"), soft, decide.RuleDenied},
		{"wget is not b's", "/usr/bin/wget", http("GET", "/repos/private/x"), pass, 0},
		{"wget has a only", "/usr/bin/wget", http("GET", "/orgs"), soft, 0},
		{"c adds nothing", "", http("POST", "/x"), soft, 0},
		{"nc has c only", "/usr/bin/nc", http("POST", "/x"), pass, 0},
	})
	both := flow("api.example.com", 443, "/usr/bin/wget")
	both.Programs = append(both.Programs, chain("/usr/bin/curl"))
	facts := http("GET", "/orgs")
	if v := ix.Request(both, &facts); v.Allow {
		t.Errorf("a holder that may not was outvoted: %+v", v)
	}
	if v := ix.Request(decide.Flow{Host: "api.example.com", Port: 443}, &facts); v.Allow || !v.Hard {
		t.Errorf("nobody may: %+v", v)
	}
}

func graph(kind, name string, fields ...string) l7.Operation {
	return l7.Operation{Type: kind, Name: name, Fields: fields}
}

func gql(path string, ops ...l7.Operation) l7.Facts {
	return l7.Facts{Method: "POST", Path: path, GraphQL: &l7.GraphQL{Operations: ops}}
}

func TestGraphQL(t *testing.T) { // X7, X8
	ix := compile(t, `
gh:
  endpoints:
    - {host: api.github.com, port: 443, protocol: rest, enforcement: enforce, access: read-only}
    - {host: api.github.com, port: 443, path: /graphql, protocol: graphql, enforcement: enforce,
       rules: [{allow: {operation_type: query}}, {allow: {operation_type: mutation, fields: [createIssue]}}], deny_rules: [{operation_type: mutation, fields: [deleteRepository]}]}
    - {host: api.github.com, port: 443, path: /registered, protocol: graphql, enforcement: enforce, persisted_queries: allow_registered,
       graphql_persisted_queries: {abc: {operation_type: query, fields: [viewer]}}, rules: [{allow: {operation_type: query, fields: [viewer]}}]}
  binaries: [{path: /usr/bin/curl}]
`)
	upgrade := gql("/graphql", graph("query", "", "viewer"))
	upgrade.Upgrade = true
	checkRequests(t, ix, "api.github.com", []want{
		{"query", "", gql("/graphql", graph("query", "", "viewer")), pass, 0},
		{"mutation", "", gql("/graphql", graph("mutation", "M", "createIssue")), pass, 0},
		{"both fields", "", gql("/graphql", graph("mutation", "M", "createIssue", "deleteRepository")), soft, decide.RuleDenied},
		{"other mutation", "", gql("/graphql", graph("mutation", "", "other")), soft, decide.NoRule},
		{"a field too many", "", gql("/graphql", graph("mutation", "", "createIssue", "other")), soft, 0},
		{"batch", "", gql("/graphql", graph("query", "", "x"), graph("mutation", "", "other")), soft, 0},
		{"hash only", "", gql("/graphql", l7.Operation{Persisted: "abc"}), soft, decide.QueryNotRegistered},
		{"malformed", "", l7.Facts{Method: "POST", Path: "/graphql", GraphQL: &l7.GraphQL{Malformed: "x"}}, hard, decide.GraphQLMalformed},
		{"no document", "", http("GET", "/graphql"), hard, decide.GraphQLMalformed},
		{"below the path", "", gql("/graphql/x", graph("query", "", "x")), soft, 0},
		{"post elsewhere", "", http("POST", "/repos/x"), soft, 0},
		{"get elsewhere", "", http("GET", "/zen"), pass, 0},
		{"upgrade", "", upgrade, hard, decide.UpgradeRefused},
		{"registered hash", "", gql("/registered", l7.Operation{Persisted: "abc"}), pass, 0},
		{"unknown hash", "", gql("/registered", l7.Operation{Persisted: "def"}), soft, decide.QueryNotRegistered},
		{"full text", "", gql("/registered", graph("query", "", "viewer")), pass, 0},
		{"other text", "", gql("/registered", graph("query", "", "user")), soft, 0},
	})
}

func TestWebSocket(t *testing.T) { // X9
	ix := compile(t, `
ws: {endpoints: [{host: a.example.com, port: 443, protocol: websocket, enforcement: enforce,
  rules: [{allow: {method: GET, path: /v1/realtime}}, {allow: {method: WEBSOCKET_TEXT, path: /v1/realtime}}], deny_rules: [{method: "*", path: /v1/admin/**}]}],
  binaries: [{path: /usr/bin/curl}]}
gql: {endpoints: [{host: g.example.com, port: 443, protocol: websocket, enforcement: enforce,
  rules: [{allow: {method: GET, path: /graphql}}, {allow: {operation_type: query}}]}], binaries: [{path: /usr/bin/curl}]}
ro: {endpoints: [{host: r.example.com, port: 443, protocol: websocket, enforcement: enforce, access: read-only}], binaries: [{path: /usr/bin/curl}]}
`)
	up := func(path string) l7.Facts { return l7.Facts{Method: "GET", Path: path, Upgrade: true, WebSocket: true} }
	h2c := up("/v1/realtime")
	h2c.WebSocket = false
	checkRequests(t, ix, "a.example.com", []want{
		{"upgrade", "", up("/v1/realtime"), pass, 0},
		{"text", "", http(l7.WebSocketText, "/v1/realtime"), pass, 0},
		{"admin", "", up("/v1/admin/x"), soft, decide.RuleDenied},
		{"other", "", up("/v2"), soft, 0},
		{"plain get", "", http("GET", "/v1/realtime"), hard, decide.NotWebSocket},
		{"other upgrade", "", h2c, hard, decide.NotWebSocket},
	})
	text := gql("/graphql", graph("query", "", "x"))
	text.Method = l7.WebSocketText
	bad := gql("/graphql", graph("mutation", "", "x"))
	bad.Method = l7.WebSocketText
	checkRequests(t, ix, "g.example.com", []want{
		{"graphql upgrade", "", up("/graphql"), pass, 0},
		{"query", "", text, pass, 0},
		{"mutation", "", bad, soft, 0},
		{"not graphql", "", http(l7.WebSocketText, "/graphql"), hard, decide.GraphQLMalformed},
	})
	checkRequests(t, ix, "r.example.com", []want{
		{"upgrade of a read-only one", "", up("/x"), pass, 0},
		{"text to a read-only one", "", http(l7.WebSocketText, "/x"), soft, 0},
	})
}
