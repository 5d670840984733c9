package policy_test

import (
	"regexp"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/policy"
	"pgregory.net/rapid"
)

func TestCanonicalHost(t *testing.T) {
	for in, want := range map[string]string{
		"API.Example.com":    "api.example.com",
		"api.example.com.":   "api.example.com",
		"10.0.0.1":           "10.0.0.1",
		"[FD00::0001]":       "fd00::1",
		"FD00:0::1":          "fd00::1",
		"localhost":          "localhost",
		"_dmarc.example.com": "_dmarc.example.com",
		"1e100.net":          "1e100.net",
		"0x.example":         "0x.example",
	} {
		if got, err := policy.CanonicalHost(in); err != nil || got != want {
			t.Errorf("%q is %q (%v), want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{
		"", ".", "a..b", ".a", "a b", "a/b", "a@b", "a:80", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "1.2.3.4.5",
		"1.2.3.256", "a.0x1", "*.example.com", "münchen.de", "[10.0.0.1]", "[::1", "fe80::1%eth0", "[fe80::1%eth0]", "a\x00b", "a\nb",
		strings.Repeat("a.", 127) + "aa", strings.Repeat("a", 64) + ".com", "127.0.0.1..", "x.1",
	} {
		if got, err := policy.CanonicalHost(bad); err == nil {
			t.Errorf("%q is taken as %q", bad, got)
		}
	}
}

func TestHostPattern(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		yes, nos []string
	}{
		{"api.example.com", []string{"api.example.com"}, []string{"xapi.example.com", "api.example.com.evil"}},
		{"API.Example.COM", []string{"api.example.com"}, nil},
		{"*.example.com", []string{"a.example.com", "xn--a.example.com"}, []string{"example.com", "a.b.example.com", ".example.com", "aexample.com"}},
		{"**.example.com", []string{"a.example.com", "a.b.c.example.com"}, []string{"example.com", ".example.com", "a..example.com"}},
		{"*-aiplatform.googleapis.com", []string{"eu-aiplatform.googleapis.com", "-aiplatform.googleapis.com"}, []string{"a.b-aiplatform.googleapis.com", "aiplatform.googleapis.com"}},
		{"*.s3.*.amazonaws.com", []string{"b.s3.eu.amazonaws.com"}, []string{"b.s3.amazonaws.com", "b.s3.a.b.amazonaws.com"}},
		{"10.*.*.*", []string{"10.1.2.3"}, []string{"10.1.2", "11.1.2.3"}},
		{"api.example.*", []string{"api.example.org"}, []string{"api.example.co.uk"}},
		{"a*b*c.example.com", []string{"abc.example.com", "axbxc.example.com", "abbcc.example.com"}, []string{"ab.example.com"}},
	} {
		p, err := policy.ParseHost(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for _, h := range c.yes {
			if !p.Match(h) {
				t.Errorf("%s does not cover %s", c.pattern, h)
			}
		}
		for _, h := range c.nos {
			if p.Match(h) {
				t.Errorf("%s covers %s", c.pattern, h)
			}
		}
	}
	if (policy.HostPattern{}).Match("") {
		t.Error("the zero pattern covers the empty host")
	}
}

// hostRegexp is the slow meaning of a pattern.
func hostRegexp(pattern string) *regexp.Regexp {
	labels := strings.Split(pattern, ".")
	for i, l := range labels {
		switch {
		case i == 0 && l == "**":
			labels[i] = `[^.]+(?:\.[^.]+)*`
		case l == "*":
			labels[i] = `[^.]+`
		default:
			labels[i] = strings.ReplaceAll(regexp.QuoteMeta(l), `\*`, `[^.]*`)
		}
	}
	return regexp.MustCompile("^" + strings.Join(labels, `\.`) + "$")
}

func drawPattern(t *rapid.T, name string) policy.HostPattern {
	first := rapid.SampledFrom([]string{"*", "**", "a*", "*b", "a*b", "a", "b", "*a*"}).Draw(t, name+"0")
	labels := []string{first}
	for i := range rapid.IntRange(2, 4).Draw(t, name+"n") {
		labels = append(labels, rapid.SampledFrom([]string{"a", "b", "*", "ab"}).Draw(t, name+string(rune('1'+i))))
	}
	p, err := policy.ParseHost(strings.Join(labels, "."))
	if err != nil {
		t.Fatalf("%v: %v", labels, err)
	}
	return p
}

func drawHost(t *rapid.T) string {
	n := rapid.IntRange(1, 6).Draw(t, "labels")
	labels := make([]string, n)
	for i := range labels {
		labels[i] = rapid.SampledFrom([]string{"a", "b", "ab", "aab", "xb"}).Draw(t, "label")
	}
	return strings.Join(labels, ".")
}

func TestHostPatternAgreesWithTheOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, q, h := drawPattern(t, "p"), drawPattern(t, "q"), drawHost(t)
		if got, want := p.Match(h), hostRegexp(p.String()).MatchString(h); got != want {
			t.Fatalf("%s on %s: %v, the oracle says %v", p, h, got, want)
		}
		if p.Match(h) && q.Match(h) && !p.Overlaps(q) {
			t.Fatalf("%s and %s both cover %s and do not overlap", p, q, h)
		}
		if p.Overlaps(q) != q.Overlaps(p) {
			t.Fatalf("%s and %s overlap one way only", p, q)
		}
	})
}

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"*.example.com", "a.example.com", true},
		{"*.example.com", "*.example.org", false},
		{"**.example.com", "*.b.example.com", true},
		{"**.b.example.com", "*.example.com", false},
		{"**.example.com", "**.x.example.com", true},
		{"a*.example.com", "*b.example.com", true},
		{"a*.example.com", "b*.example.com", false},
		{"*.a.*.com", "*.*.b.com", true},
		{"*.a.*.com", "*.b.*.com", false},
		{"**.a.b", "*.a.b", true},
		{"api.example.com", "api.example.com", true},
		{"api.example.com", "b.example.com", false},
	} {
		p, _ := policy.ParseHost(c.a)
		q, _ := policy.ParseHost(c.b)
		if p.Overlaps(q) != c.want || q.Overlaps(p) != c.want {
			t.Errorf("%s and %s: overlap is not %v", c.a, c.b, c.want)
		}
	}
}

func FuzzHost(f *testing.F) {
	for _, s := range []string{"api.example.com", "*.a.b", "[::1]", "0x7f.1", "**.x.y", "a*b.c.d"} {
		f.Add(s, "a.x.y")
	}
	f.Fuzz(func(t *testing.T, pattern, host string) {
		canonical, err := policy.CanonicalHost(host)
		if err == nil {
			again, err := policy.CanonicalHost(canonical)
			if err != nil || again != canonical {
				t.Fatalf("%q is not canonical: %q, %v", canonical, again, err)
			}
		}
		p, perr := policy.ParseHost(pattern)
		if perr != nil || err != nil {
			return
		}
		want := hostRegexp(p.String()).MatchString(canonical)
		if p.Exact() {
			want = p.String() == canonical
		}
		if p.Match(canonical) != want {
			t.Fatalf("%s on %s: %v", p, canonical, !want)
		}
	})
}
