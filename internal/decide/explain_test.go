package decide_test

import (
	"strings"
	"testing"

	"openshell.dev/openshell/internal/decide"
	"openshell.dev/openshell/internal/policy"
)

func TestExplain(t *testing.T) {
	ix := compile(t, corpus)
	for _, c := range []struct {
		flow                decide.Flow
		why, text, yaml, up string
	}{
		{
			flow("evil.example", 443, "/usr/bin/curl"),
			"endpoint evil.example:443 is not allowed by any policy",
			"add a policy that allows /usr/bin/curl to reach evil.example:443",
			"allow_evil_example_443:\n    endpoints:\n      - host: evil.example\n        port: 443",
			"openshell policy update NAME --add-endpoint evil.example:443 --binary /usr/bin/curl",
		},
		{
			flow("api.github.com", 80, "/usr/bin/curl"),
			"endpoint api.github.com:80 is not allowed by any policy; policy 'gh' allows api.github.com on port 443 only",
			"add port 80 to endpoint api.github.com of policy gh (p.yaml:3:20)",
			"ports: [443, 80]",
			"--add-endpoint api.github.com:80",
		},
		{
			flow("api.github.com", 443, "/usr/bin/wget", "/bin/sh"),
			"binary '/usr/bin/wget' not allowed in policy 'gh' (ancestors: [/bin/sh]); binary '/usr/bin/wget' not allowed in policy 'gh2' (ancestors: [/bin/sh])",
			"add the program /usr/bin/wget to policy gh (p.yaml:3:20)",
			"# below network_policies.gh.binaries\n- path: /usr/bin/wget\n",
			"--binary /usr/bin/wget",
		},
		{
			flow("a.deep.example.org", 443),
			"no process could be found behind the connection to a.deep.example.org:443", "", "", "",
		},
		{
			flow("fd00::9", 443, "/usr/bin/my curl"),
			"endpoint fd00::9:443 is not allowed by any policy",
			"add a policy that allows /usr/bin/my curl to reach [fd00::9]:443",
			`- host: "fd00::9"`, "",
		},
		{
			flow("api.github.com", 443, "/usr/bin/curl"),
			"api.github.com:443 is allowed by policy 'gh' (p.yaml:3:20)", "", "", "",
		},
		{
			flow("Nope", 443, "/usr/bin/curl"),
			"Nope:443 is not a host name or address in canonical form", "", "", "",
		},
	} {
		v := ix.Connect(c.flow)
		if got := ix.Explain(c.flow, v); got != c.why {
			t.Errorf("Explain = %s\nwant      %s", got, c.why)
		}
		got := ix.Change(c.flow, v)
		if got.Text != c.text || !strings.Contains(got.YAML, c.yaml) || !strings.Contains(got.Update, c.up) || (c.up == "" && got.Update != "") {
			t.Errorf("Change of %s = %+v\nwant %q\n%q\n%q", c.flow.Host, got, c.text, c.yaml, c.up)
		}
	}
}

// TestTextsAreHarmless: what a sandbox chose reaches a terminal, a log line or
// a shell only in quotes.
func TestTextsAreHarmless(t *testing.T) {
	ix := compile(t, corpus)
	for _, evil := range []string{
		"/tmp/\x1b[2Jcurl", "/tmp/a\nb", "/tmp/'; rm -rf ~; '", "/tmp/$(id)", "/tmp/\u202egpj.exe", "/tmp/\xff", "/tmp/`id`", "/tmp/}], x: [{", `/tmp/"\`,
		"/tmp/# x", "/" + strings.Repeat("a", 100_000),
	} {
		f := flow("evil.example", 443, evil, "/bin/\x1b]0;x\x07")
		v := ix.Connect(f)
		c := ix.Change(f, v)
		for _, text := range []string{ix.Explain(f, v), c.Text, c.Line, c.Run, c.Update, ix.Explain(flow(evil, 443, evil), ix.Connect(flow(evil, 443, evil)))} {
			for i := range len(text) {
				if text[i] < ' ' || text[i] >= 0x7f {
					t.Errorf("%q holds %q", text, text[i])
				}
			}
		}
		if c.Line == "" {
			continue
		}
		d, err := policy.Parse("p", []byte("version: 1\nnetwork_policies:\n  "+c.Line))
		if err != nil && len(evil) < 4096 {
			t.Errorf("%s: %v", c.Line, err)
		}
		if err == nil && (len(d.Rules) != 1 || len(d.Rules[0].Binaries) != 1 || d.Rules[0].Binaries[0].Path != strings.ToValidUTF8(evil, "\ufffd")) {
			t.Errorf("%s is read as %+v", c.Line, d.Rules)
		}
	}
}

func TestAmbiguousPoliciesAreRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"address lists", `
a: {endpoints: [{host: api.example.com, port: 443}]}
b: {endpoints: [{host: "*.example.com", ports: [80, 443], allowed_ips: [10.0.0.0/8]}]}`, "overlap on port(s) 443 with conflicting metadata: allowed_ips=[] vs [10.0.0.0/8] (the other is at p.yaml:3:19)"},
		{"hostless", `
a: {endpoints: [{host: api.example.com, port: 443}]}
b: {endpoints: [{port: 443, allowed_ips: [10.0.0.0/8]}]}`, "allowed_ips"},
		{"tls", `
a: {endpoints: [{host: api.example.com, port: 443, tls: skip}, {host: API.example.com, port: 443}]}`, "tls=skip vs auto"},
		{"tcp", `
a: {endpoints: [{host: api.example.com, port: 443, protocol: tcp}, {host: api.example.com, port: 443}]}`, "transparent_tcp_eligible=true vs false"},
		{"protocols", `
a: {endpoints: [{host: api.example.com, port: 443, protocol: rest, access: full}, {host: api.example.com, port: 443, protocol: graphql, access: full}]}`, "protocol=rest vs graphql"},
		{"enforcement", `
a: {endpoints: [{host: api.example.com, port: 443, protocol: rest, access: full}, {host: api.example.com, port: 443, protocol: rest, access: full, enforcement: enforce}]}`, "enforcement=audit vs enforce"},
		{"mcp beside rest", `
a: {endpoints: [{host: api.example.com, port: 443, protocol: rest, access: full}, {host: api.example.com, port: 443, path: /mcp, protocol: mcp, mcp: {allow_all_known_mcp_methods: true}}]}`, "protocol=rest vs mcp"},
		{"mcp revisions", `
a: {endpoints: [{host: api.example.com, port: 443, path: /a, protocol: mcp, mcp: {allow_all_known_mcp_methods: true}}, {host: api.example.com, port: 443, path: /mcp, protocol: mcp, mcp: {versions: [2025-03-26], allow_all_known_mcp_methods: true}}]}`, "mcp.versions=[2025-11-25] vs [2025-03-26]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := policy.Parse("p.yaml", []byte("version: 1\nnetwork_policies:\n  "+strings.ReplaceAll(strings.TrimSpace(c.text), "\n", "\n  ")))
			if err != nil {
				t.Fatal(err)
			}
			ix, err := decide.Compile(d)
			if err == nil || ix != nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "p.yaml:") {
				t.Errorf("error %v\nlacks %s", err, c.want)
			}
		})
	}
	// These overlap and agree.
	compile(t, `
a: {endpoints: [{host: api.example.com, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /repos/**}}]}], binaries: [{path: /c}, {path: /w}]}
b: {endpoints: [{host: api.example.com, port: 443, protocol: rest, enforcement: enforce, access: read-only, deny_rules: [{method: GET, path: /repos/private/**}]}], binaries: [{path: /c}]}
c: {endpoints: [{host: api.example.com, port: 443}], binaries: [{path: /c}]}
d: {endpoints: [{host: api.example.com, port: 443, path: /graphql, protocol: graphql, enforcement: enforce, access: full}]}
e: {endpoints: [{host: other.example.com, port: 443, tls: skip}]}
`)
}
