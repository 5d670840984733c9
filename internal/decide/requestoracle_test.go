package decide_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/decide"
	"openshell.dev/openshell/internal/l7"
	"openshell.dev/openshell/internal/policy"
	"pgregory.net/rapid"
)

// requestSlowly decides a REST request as the contract words it: allowed if
// some rule of a matching endpoint allows it and no deny rule of one fires.
func requestSlowly(d *policy.Document, f decide.Flow, r *l7.Facts) string {
	connects, inspected, routed, allowed, denied, enforced := false, false, false, false, false, false
	closest := -1
	for _, rule := range d.Rules {
		if !slices.ContainsFunc(rule.Binaries, func(b policy.Binary) bool { return runs(b.Path, f.Programs[0]) }) {
			continue
		}
		for _, e := range rule.Endpoints {
			if !slices.Contains(e.Ports, f.Port) || !covers(e.Host, f.Host) {
				continue
			}
			connects = true
			if e.Protocol != policy.REST {
				continue
			}
			inspected = true
			if !routes(e.Path, r.Path) {
				continue
			}
			routed = true
			if n := len(strings.ReplaceAll(e.Path, "*", "")); n >= closest {
				closest, enforced = n, e.Enforcement == policy.Enforce
			}
			allow := e.Allow
			for _, m := range strings.Fields(map[policy.Access]string{policy.ReadOnly: "GET HEAD OPTIONS", policy.ReadWrite: "GET HEAD OPTIONS POST PUT PATCH", policy.Full: "*"}[e.Access]) {
				allow = append(slices.Clone(allow), policy.L7Rule{Method: m, Path: "**"})
			}
			allowed = allowed || slices.ContainsFunc(allow, func(x policy.L7Rule) bool { return fires(x, r, true) })
			denied = denied || slices.ContainsFunc(e.Deny, func(x policy.L7Rule) bool { return fires(x, r, false) })
		}
	}
	switch {
	case !connects || inspected && !routed:
		return hard
	case !inspected || allowed && !denied:
		return pass
	case enforced:
		return soft
	}
	return audited
}

func routes(pattern, path string) bool {
	if pattern == "" || pattern == "**" || pattern == "/**" {
		return true
	}
	if head, ok := strings.CutSuffix(pattern, "/**"); ok && path == head {
		return true
	}
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString(path)
}

func fires(x policy.L7Rule, r *l7.Facts, all bool) bool {
	if x.Method != "*" && !strings.EqualFold(x.Method, r.Method) && !(x.Method == "GET" && r.Method == "HEAD") {
		return false
	}
	if g, err := policy.CompileGlob(x.Path, '/'); err != nil || !g.Match(r.Path, '/') {
		return false
	}
	for _, q := range x.Query {
		n, hits := 0, 0
		for _, p := range r.Query {
			if p.Name == q.Name {
				n++
				if p.Value == q.Glob {
					hits++
				}
			}
		}
		if hits == 0 || all && hits < n {
			return false
		}
	}
	return true
}

func drawRules(t *rapid.T, name string, least int) (out []policy.L7Rule) {
	for range rapid.IntRange(least, 2).Draw(t, name) {
		r := policy.L7Rule{
			Method: rapid.SampledFrom([]string{"GET", "POST", "*", "HEAD"}).Draw(t, "method"),
			Path:   rapid.SampledFrom([]string{"/**", "/a/*", "/a/**", "/a", "**", "/*/b"}).Draw(t, "path"),
		}
		if rapid.IntRange(0, 3).Draw(t, "query") == 0 {
			r.Query = []policy.NamedMatcher{{Name: "q", Matcher: policy.Matcher{Glob: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "value")}}}
		}
		out = append(out, r)
	}
	return out
}

func checkRequestOracle(t *rapid.T) {
	d := &policy.Document{}
	for i := range rapid.SampledFrom([]int{1, 2, 3, 4, 9}).Draw(t, "rules") {
		r := policy.Rule{Key: fmt.Sprintf("r%d", i)}
		for range rapid.IntRange(1, 2).Draw(t, "endpoints") {
			e := policy.Endpoint{Host: rapid.SampledFrom([]string{"a.b.c", "*.b.c"}).Draw(t, "host"), Ports: []uint16{443}}
			if rapid.IntRange(0, 4).Draw(t, "plain") > 0 {
				e.Protocol, e.Enforcement = policy.REST, policy.Enforce
				e.Path = rapid.SampledFrom([]string{"", "/a/**", "/a/b"}).Draw(t, "route")
				if e.Path == "/a/b" {
					e.Enforcement = policy.Audit
				}
				if e.Access = rapid.SampledFrom([]policy.Access{policy.AccessNone, policy.ReadOnly, policy.ReadWrite, policy.Full}).Draw(t, "access"); e.Access == policy.AccessNone {
					e.Allow = drawRules(t, "allow", 1)
				}
				e.Deny = drawRules(t, "deny", 0)
			}
			r.Endpoints = append(r.Endpoints, e)
		}
		r.Binaries = []policy.Binary{{Path: rapid.SampledFrom([]string{"/**", "/bin/a"}).Draw(t, "binary")}}
		d.Rules = append(d.Rules, r)
	}
	ix, err := decide.Compile(d)
	if err != nil {
		t.Fatalf("%v\n%s", err, policy.Canonical(d))
	}
	for range 8 {
		f := flow("a.b.c", 443, rapid.SampledFrom([]string{"/bin/a", "/bin/b"}).Draw(t, "program"))
		r := &l7.Facts{
			Method: rapid.SampledFrom([]string{"GET", "HEAD", "POST", "PUT", "DELETE"}).Draw(t, "verb"),
			Path:   rapid.SampledFrom([]string{"/", "/a", "/a/", "/a/b", "/a/b/c", "/c/b", "/ab"}).Draw(t, "target"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "params") {
			r.Query = append(r.Query, l7.Param{Name: "q", Value: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "param")})
		}
		v := ix.Request(f, r)
		if want := requestSlowly(d, f, r); outcome(v) != want {
			t.Fatalf("%+v %+v: %s, the oracle says %s\n%s", f, r, outcome(v), want, policy.Canonical(d))
		}
		matched := [2]bool{} // allow, deny
		for _, s := range ix.TraceRequest(f, r).Rules {
			if s.Why == decide.RuleMatches {
				matched[map[bool]int{true: 1}[s.Denies]] = true
			}
		}
		if v.Index >= 0 && !matched[map[bool]int{true: 1}[v.Denies]] || v.Reason == decide.NoRule && matched[0] || v.Reason == decide.NoRule && matched[1] {
			t.Fatalf("%+v %+v: %+v, the trace says %v\n%s", f, r, v, matched, policy.Canonical(d))
		}
	}
}

func TestRequestAgreesWithTheOracle(t *testing.T) { rapid.Check(t, checkRequestOracle) }

func FuzzRequest(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkRequestOracle)) }

func BenchmarkRequest(b *testing.B) {
	for _, n := range []int{20, 1000, 10000} {
		d := &policy.Document{}
		for i := range n {
			d.Rules = append(d.Rules, policy.Rule{
				Key: fmt.Sprintf("rule%05d", i),
				Endpoints: []policy.Endpoint{{
					Host: fmt.Sprintf("host%05d.example.com", i/4), Ports: []uint16{443}, Protocol: policy.REST, Enforcement: policy.Enforce,
					Allow: []policy.L7Rule{{Method: "GET", Path: "/repos/**"}, {Method: "POST", Path: fmt.Sprintf("/repos/*/*/issues%d", i)}},
					Deny:  []policy.L7Rule{{Method: "*", Path: "/repos/*/*/hooks/**"}},
				}},
				Binaries: []policy.Binary{{Path: "/usr/bin/curl"}},
			})
		}
		ix, err := decide.Compile(d)
		if err != nil {
			b.Fatal(err)
		}
		f := flow(fmt.Sprintf("host%05d.example.com", (n-4)/4), 443, "/usr/bin/curl", "/bin/bash")
		r := &l7.Facts{Method: "POST", Path: fmt.Sprintf("/repos/example/project/issues%d", n-1)}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			if v := ix.Request(f, r); !v.Allow {
				b.Fatalf("%+v", v)
			}
			b.ReportAllocs()
			for b.Loop() {
				ix.Request(f, r)
			}
		})
	}
}
