package policy_test

import (
	"regexp"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/policy"
	"pgregory.net/rapid"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		sep      byte
		yes, nos []string
	}{
		{"/repos/**", '/', []string{"/repos/", "/repos/a", "/repos/a/b"}, []string{"/repos", "/repo/a", "/repos2/a"}},
		{"/files/report**", '/', []string{"/files/report-2024", "/files/report"}, []string{"/files/report/2024"}},
		{"/repos/*/*/issues", '/', []string{"/repos/a/b/issues", "/repos///issues"}, []string{"/repos/a/b/c/issues"}},
		{"/a/**/b", '/', []string{"/a/b", "/a/x/b", "/a/x/y/b", "/a//b"}, []string{"/ab", "/a/b/c", "/axb"}},
		{"**/b", '/', []string{"b", "/b", "a/b", "/a/c/b"}, []string{"ab", "b/c"}},
		{"**", '/', []string{"", "/", "/a/b"}, nil},
		{"/**", '/', []string{"/", "/a/b"}, []string{"", "a"}},
		{"/usr/lib/postgresql/*/bin/psql", '/', []string{"/usr/lib/postgresql/16/bin/psql"}, []string{"/usr/lib/postgresql/16/x/bin/psql", "/usr/lib/postgresql/bin/psql"}},
		{"/a?c", '/', []string{"/abc"}, []string{"/a/c", "/ac"}},
		{"/a[bc]d", '/', []string{"/abd", "/acd"}, []string{"/aed", "/ad"}},
		{"/a[!x]d", '/', []string{"/abd", "/a/d"}, []string{"/axd"}},
		{"/a[a-c]", '/', []string{"/ab"}, []string{"/ad"}},
		{"/[]a]", '/', []string{"/]", "/a"}, []string{"/b"}},
		{"/{a,b/c}/d", '/', []string{"/a/d", "/b/c/d"}, []string{"/b/d"}},
		{"/{a,{b,c}}", '/', []string{"/a", "/b", "/c"}, []string{"/{b"}},
		{`/\*`, '/', []string{"/*"}, []string{"/a"}},
		{"/***", '/', []string{"/a"}, []string{"/a/b"}},
		{"1.*", '.', []string{"1.2", "1."}, []string{"1.2.3", "1"}},
		{"linux-*", '.', []string{"linux-x64", "linux-a/b"}, []string{"linux-x.y"}},
		{"**", '.', []string{"", "a.b"}, nil},
		{"a.**", '.', []string{"a.", "a.b.c"}, []string{"a", "b.a"}},
		{"a.**.b", '.', []string{"a.x.b", "a.x.y.b", "a..b"}, []string{"a.b"}},
		{"tools/*", '.', []string{"tools/call", "tools/a/b"}, []string{"tools"}},
		{"search*", '.', []string{"search_web"}, []string{"search.code"}},
		{"*[!x]*b", '/', []string{"a/b", "/b"}, []string{"xb"}},
	} {
		g, err := policy.CompileGlob(c.pattern, c.sep)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for _, s := range c.yes {
			if !g.Match(s, c.sep) {
				t.Errorf("%q does not match %q", c.pattern, s)
			}
		}
		for _, s := range c.nos {
			if g.Match(s, c.sep) {
				t.Errorf("%q matches %q", c.pattern, s)
			}
		}
	}
	for _, bad := range []string{"/[a", "/a]", "/{a", "/a}", `/a\`, "/[z-a]", "/\x00", strings.Repeat("{a,b}", 7), strings.Repeat("*a", 600), strings.Repeat("{a}", 100_000)} {
		if _, err := policy.CompileGlob(bad, '/'); err == nil {
			t.Errorf("%q compiles", bad)
		}
	}
	var none *policy.Glob
	if none.Match("", '/') || (&policy.Glob{}).Match("", '/') {
		t.Error("the zero glob matches")
	}
}

// globRegexp is the slow meaning of a glob without braces, classes and
// backslashes: the rules of the contract, written as regular expressions.
func globRegexp(pattern string, sep byte) *regexp.Regexp {
	if pattern == "**" {
		return regexp.MustCompile(`(?s)^.*$`)
	}
	s := regexp.QuoteMeta(string(sep))
	var b strings.Builder
	parts := strings.Split(pattern, string(sep))
	for i, part := range parts {
		switch {
		case part == "**" && sep == '/' && i < len(parts)-1:
			b.WriteString(`(?:.*/)?`)
			continue
		case part == "**":
			b.WriteString(`.*`)
		default:
			for _, c := range part {
				switch c {
				case '*':
					b.WriteString("[^" + s + "]*")
				case '?':
					b.WriteString("[^" + s + "]")
				default:
					b.WriteString(regexp.QuoteMeta(string(c)))
				}
			}
		}
		if i < len(parts)-1 {
			b.WriteString(s)
		}
	}
	return regexp.MustCompile("(?s)^" + b.String() + "$")
}

func checkGlob(t rapid.TB, pattern, s string, sep byte) {
	g, err := policy.CompileGlob(pattern, sep)
	if err != nil {
		t.Fatalf("%q: %v", pattern, err)
	}
	if got, want := g.Match(s, sep), globRegexp(pattern, sep).MatchString(s); got != want {
		t.Fatalf("glob %q on %q: %v, the oracle says %v", pattern, s, got, want)
	}
}

func TestGlobAgreesWithTheOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sep := rapid.SampledFrom([]byte{'/', '.'}).Draw(t, "sep")
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab*?/.*")), 0, 12, -1).Draw(t, "pattern")
		s := rapid.StringOfN(rapid.SampledFrom([]rune("ab/.")), 0, 12, -1).Draw(t, "subject")
		checkGlob(t, pattern, s, sep)
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("/repos/**/x*", "/repos/a/xy", true)
	f.Add("a.**.b?", "a.x.bc", false)
	f.Fuzz(func(t *testing.T, pattern, s string, slash bool) {
		sep := byte('.')
		if slash {
			sep = '/'
		}
		g, err := policy.CompileGlob(pattern, sep)
		if err != nil {
			return
		}
		g.Match(s, sep)
		for i := range len(pattern + s) { // the oracle speaks of ASCII without classes
			if c := (pattern + s)[i]; c >= 0x80 || strings.IndexByte(`[]{}\`, c) >= 0 {
				return
			}
		}
		if len(pattern) < 200 {
			checkGlob(t, pattern, s, sep)
		}
	})
}

func BenchmarkGlob(b *testing.B) {
	g, err := policy.CompileGlob("/repos/*/*/issues/**", '/')
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		g.Match("/repos/example/project/issues/1234/comments", '/')
	}
}
