package decide_test

import (
	"net/netip"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/decide"
	"openshell.dev/openshell/internal/policy"
)

func compile(t testing.TB, text string) *decide.Index {
	t.Helper()
	if !strings.Contains(text, "version:") {
		text = "version: 1\nnetwork_policies:\n" + "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
	}
	d, err := policy.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	ix, err := decide.Compile(d)
	if err != nil {
		t.Fatal(err)
	}
	return ix
}

func chain(paths ...string) []decide.Program {
	out := make([]decide.Program, len(paths))
	for i, p := range paths {
		out[i].Path = p
	}
	return out
}

func flow(host string, port uint16, paths ...string) decide.Flow {
	return decide.Flow{Host: host, Port: port, Programs: [][]decide.Program{chain(paths...)}}
}

const corpus = `
gh: {endpoints: [{host: api.github.com, port: 443}], binaries: [{path: /usr/bin/curl}, {path: /usr/bin/gh}]}
gh2: {endpoints: [{host: api.github.com, port: 443, protocol: rest, enforcement: enforce, access: read-only}], binaries: [{path: /usr/bin/gh}]}
wild: {endpoints: [{host: "*.example.com", ports: [80, 443]}], binaries: [{path: "/usr/lib/*/bin/java"}]}
deep: {endpoints: [{host: "**.deep.example.org", port: 443}], binaries: [{path: "/**"}]}
part: {endpoints: [{host: "*-api.google.com", port: 443}], binaries: [{path: "/**"}]}
s3: {endpoints: [{host: "*.s3.*.amazonaws.com", port: 443}], binaries: [{path: "/**"}]}
pg: {endpoints: [{host: db.internal.example, port: 5432, protocol: tcp}], binaries: [{path: "/usr/lib/postgresql/*/bin/psql"}]}
ips: {endpoints: [{port: 8080, allowed_ips: [10.0.0.0/8]}], binaries: [{path: "/**"}]}
lit: {endpoints: [{host: 10.1.2.3, port: 9000}], binaries: [{path: "/**"}]}
litw: {endpoints: [{host: "10.*.*.*", port: 9001}], binaries: [{path: "/**"}]}
skip: {endpoints: [{host: mtls.example.net, port: 443, tls: skip}], binaries: [{path: "/**"}]}
none: {endpoints: [{host: nobody.example.net, port: 443}], binaries: []}
six: {endpoints: [{host: "FD00::0001", port: 443}], binaries: [{path: "/**"}]}
`

func TestConnect(t *testing.T) {
	ix := compile(t, corpus)
	for _, c := range []struct {
		name   string
		flow   decide.Flow
		kind   decide.Kind
		reason decide.Reason
		rule   string
	}{
		{"exact", flow("api.github.com", 443, "/usr/bin/curl"), decide.Relay, decide.Matched, "gh"},
		{"inspected beats relayed", flow("api.github.com", 443, "/usr/bin/gh"), decide.Inspect, decide.Matched, "gh"},
		{"by ancestor", flow("api.github.com", 443, "/bin/sh", "/usr/bin/curl"), decide.Relay, decide.Matched, "gh"},
		{"other port", flow("api.github.com", 80, "/usr/bin/curl"), decide.Denied, decide.PortNotAllowed, "gh"},
		{"other program", flow("api.github.com", 443, "/usr/bin/wget"), decide.Denied, decide.ProgramNotAllowed, "gh"},
		{"other host", flow("evil.example", 443, "/usr/bin/curl"), decide.Denied, decide.NoEndpoint, ""},
		{"upper case is not canonical", flow("API.github.com", 443, "/usr/bin/curl"), decide.Denied, decide.HostNotCanonical, ""},
		{"trailing dot is not canonical", flow("api.github.com.", 443, "/usr/bin/curl"), decide.Denied, decide.HostNotCanonical, ""},
		{"empty host", flow("", 8080, "/usr/bin/curl"), decide.Denied, decide.HostNotCanonical, ""},
		{"odd address", flow("127.1", 8080, "/usr/bin/curl"), decide.Denied, decide.HostNotCanonical, ""},
		{"hex address", flow("0x7f000001", 8080, "/usr/bin/curl"), decide.Denied, decide.HostNotCanonical, ""},
		{"star, one label", flow("a.example.com", 80, "/usr/lib/jvm/bin/java"), decide.Relay, decide.Matched, "wild"},
		{"star, two labels", flow("b.a.example.com", 80, "/usr/lib/jvm/bin/java"), decide.Denied, decide.NoEndpoint, ""},
		{"star, apex", flow("example.com", 80, "/usr/lib/jvm/bin/java"), decide.Denied, decide.NoEndpoint, ""},
		{"program glob stays in its segment", flow("a.example.com", 80, "/usr/lib/a/b/bin/java"), decide.Denied, decide.ProgramNotAllowed, "wild"},
		{"deep, one label", flow("a.deep.example.org", 443, "/x"), decide.Relay, decide.Matched, "deep"},
		{"deep, three labels", flow("a.b.c.deep.example.org", 443, "/x"), decide.Relay, decide.Matched, "deep"},
		{"deep, apex", flow("deep.example.org", 443, "/x"), decide.Denied, decide.NoEndpoint, ""},
		{"star inside a label", flow("maps-api.google.com", 443, "/x"), decide.Relay, decide.Matched, "part"},
		{"star inside a label, dot", flow("a.b-api.google.com", 443, "/x"), decide.Denied, decide.NoEndpoint, ""},
		{"later star", flow("bucket.s3.eu-west-1.amazonaws.com", 443, "/x"), decide.Relay, decide.Matched, "s3"},
		{"later star needs its label", flow("bucket.s3.amazonaws.com", 443, "/x"), decide.Denied, decide.NoEndpoint, ""},
		{"tcp", flow("db.internal.example", 5432, "/usr/lib/postgresql/16/bin/psql"), decide.Raw, decide.Matched, "pg"},
		{"tcp, other port", flow("db.internal.example", 5433, "/usr/lib/postgresql/16/bin/psql"), decide.Denied, decide.PortNotAllowed, "pg"},
		{"hostless, by name", flow("anything.example", 8080, "/x"), decide.Relay, decide.Matched, "ips"},
		{"hostless, by address", flow("10.9.9.9", 8080, "/x"), decide.Relay, decide.Matched, "ips"},
		{"literal", flow("10.1.2.3", 9000, "/x"), decide.Relay, decide.Matched, "lit"},
		{"literal by pattern", flow("10.1.2.3", 9001, "/x"), decide.Relay, decide.Matched, "litw"},
		{"tls skip", flow("mtls.example.net", 443, "/x"), decide.Raw, decide.Matched, "skip"},
		{"no binaries match nobody", flow("nobody.example.net", 443, "/x"), decide.Denied, decide.ProgramNotAllowed, "none"},
		{"IPv6 in another spelling", flow("fd00::1", 443, "/x"), decide.Relay, decide.Matched, "six"},
		{"unknown program", flow("deep.x.deep.example.org", 443, ""), decide.Denied, decide.ProgramUnknown, "deep"},
		{"unknown program with a known ancestor", flow("api.github.com", 443, "", "/usr/bin/curl"), decide.Denied, decide.ProgramUnknown, "gh"},
		{"no chain", flow("a.deep.example.org", 443), decide.Denied, decide.ProgramUnknown, "deep"},
		{"nobody", decide.Flow{Host: "a.deep.example.org", Port: 443}, decide.Denied, decide.ProgramUnknown, "deep"},
		{"relative program", flow("a.deep.example.org", 443, "curl"), decide.Denied, decide.ProgramNotAllowed, "deep"},
		{"two holders, both allowed", decide.Flow{Host: "api.github.com", Port: 443, Programs: [][]decide.Program{chain("/usr/bin/curl"), chain("/usr/bin/gh")}}, decide.Inspect, decide.Matched, "gh"},
		{"two holders, second denied", decide.Flow{Host: "api.github.com", Port: 443, Programs: [][]decide.Program{chain("/usr/bin/curl"), chain("/bin/nc")}}, decide.Denied, decide.ProgramNotAllowed, "gh"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := ix.Connect(c.flow)
			if v.Allow != (c.kind != decide.Denied) || v.Kind != c.kind || v.Reason != c.reason || v.Rule.Key != c.rule {
				t.Errorf("Connect = %+v, want kind %d reason %d rule %q", v, c.kind, c.reason, c.rule)
			}
			if (ix.Explain(c.flow, v) == "") || v.Allow && (ix.Change(c.flow, v) != decide.Change{}) {
				t.Error("an allowed flow has a change, or there is no explanation")
			}
		})
	}
}

func TestZeroValuesDeny(t *testing.T) {
	var ix *decide.Index
	f := flow("a.example.com", 443, "/x")
	if v := ix.Connect(f); v.Allow || v.Kind != decide.Denied {
		t.Errorf("a nil index allows: %+v", v)
	}
	if err := decide.CheckAddress(netip.MustParseAddr("8.8.8.8"), decide.Verdict{}.Address); err == nil {
		t.Error("the zero address rule lets a public address pass")
	}
	empty, err := decide.Compile(&policy.Document{})
	if err != nil {
		t.Fatal(err)
	}
	if v := empty.Connect(f); v.Allow {
		t.Errorf("an empty policy allows: %+v", v)
	}
}

func TestConnectDoesNotAllocate(t *testing.T) {
	ix := compile(t, corpus)
	for _, f := range []decide.Flow{
		flow("api.github.com", 443, "/usr/bin/gh", "/bin/bash"),
		flow("bucket.s3.eu-west-1.amazonaws.com", 443, "/x"),
		flow("a.example.com", 80, "/usr/lib/jvm/bin/java"),
		flow("10.9.9.9", 8080, "/x"),
		flow("fd00::1", 443, "/x"),
		flow("evil.example", 443, "/x"),
	} {
		if n := testing.AllocsPerRun(100, func() { ix.Connect(f) }); n != 0 {
			t.Errorf("Connect(%s) allocates %v times", f.Host, n)
		}
	}
}

func TestNames(t *testing.T) {
	ix := compile(t, corpus)
	want := "api.github.com db.internal.example mtls.example.net nobody.example.net"
	if got := strings.Join(ix.Names(), " "); got != want {
		t.Errorf("Names = %s, want %s", got, want)
	}
	for host, want := range map[string]bool{
		"api.github.com": true, "x.example.com": true, "a.b.deep.example.org": true, "maps-api.google.com": true,
		"evil.example": false, "example.com": false, "API.github.com": false, "": false, "x.y.example.com": false,
	} {
		if got := ix.MatchesHost(host); got != want {
			t.Errorf("MatchesHost(%q) = %v", host, got)
		}
	}
	if !ix.Hostless() || compile(t, "a: {}").Hostless() {
		t.Error("Hostless is wrong")
	}
}
