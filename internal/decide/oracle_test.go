package decide_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/decide"
	"openshell.dev/openshell/internal/policy"
	"pgregory.net/rapid"
)

// oracle decides as the contract words it: some single rule has an endpoint
// that matches host and port and a binary that matches the program or one of
// its ancestors; all holders of a socket must be allowed.
type oracle struct {
	allow    bool
	rule     string // smallest key that allows the first holder
	inspect  bool
	raw      bool
	listed   bool
	exact    bool // every holder has an endpoint that names the host
	reaching bool // some endpoint names host and port
}

func decideSlowly(d *policy.Document, f decide.Flow) oracle {
	out := oracle{allow: len(f.Programs) > 0, exact: true}
	holders := f.Programs
	if len(holders) == 0 {
		holders = [][]decide.Program{nil} // nobody, who is denied
	}
	for i, chain := range holders {
		found, exact := false, false
		for _, r := range d.Rules {
			program := slices.ContainsFunc(r.Binaries, func(b policy.Binary) bool { return runs(b.Path, chain) })
			for _, e := range r.Endpoints {
				if !slices.Contains(e.Ports, f.Port) || !covers(e.Host, f.Host) {
					continue
				}
				out.reaching = true
				if !program {
					continue
				}
				if !found && i == 0 {
					out.rule = r.Key
				}
				found = true
				out.inspect = out.inspect || e.Inspected()
				out.raw = out.raw || e.Protocol == policy.TCP || e.TLS == policy.TLSSkip
				out.listed = out.listed || len(e.AllowedIPs) > 0
				exact = exact || strings.EqualFold(e.Host, f.Host)
			}
		}
		out.allow = out.allow && found
		out.exact = out.exact && exact
	}
	return out
}

func covers(pattern, host string) bool {
	labels := strings.Split(strings.ToLower(pattern), ".")
	for i, l := range labels {
		switch {
		case pattern == "":
			return true
		case i == 0 && l == "**":
			labels[i] = `[^.]+(\.[^.]+)*`
		case l == "*":
			labels[i] = `[^.]+`
		default:
			labels[i] = strings.ReplaceAll(regexp.QuoteMeta(l), `\*`, `[^.]*`)
		}
	}
	return regexp.MustCompile("^" + strings.Join(labels, `\.`) + "$").MatchString(host)
}

func runs(pattern string, chain []decide.Program) bool {
	if len(chain) == 0 || chain[0].Path == "" {
		return false
	}
	expr := strings.NewReplacer(`/\*\*`, "/.*", `\*`, "[^/]*").Replace(regexp.QuoteMeta(pattern))
	re := regexp.MustCompile("^" + expr + "$")
	return slices.ContainsFunc(chain, func(p decide.Program) bool { return re.MatchString(p.Path) })
}

var (
	hosts    = []string{"a.b.c", "b.b.c", "x.a.b.c", "xa.b.c", "10.0.0.1", "10.1.0.1", "c.d", "a.c.c"}
	patterns = append([]string{"*.b.c", "**.b.c", "x*.b.c", "*.*.c", "**.c.c", "10.*.*.*", "A.b.C", ""}, hosts...)
	paths    = []string{"/bin/a", "/bin/b", "/usr/bin/a", "/bin/c/a"}
	binaries = append([]string{"/**", "/**", "/**", "/bin/*", "/*/bin/a", "/bin/*/a"}, paths...)
)

// drawDocument makes a valid policy without ambiguity.
func drawDocument(t *rapid.T) *policy.Document {
	d := &policy.Document{Source: "drawn"}
	for i := range rapid.IntRange(0, 5).Draw(t, "rules") {
		r := policy.Rule{Key: fmt.Sprintf("r%d", i)}
		for range rapid.IntRange(0, 3).Draw(t, "endpoints") {
			e := policy.Endpoint{Host: rapid.SampledFrom(patterns).Draw(t, "host")}
			e.Ports = rapid.SampledFrom([][]uint16{{1}, {2}, {1, 2}, {3, 1}, {2, 2}}).Draw(t, "ports")
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0, 1:
				e.Protocol, e.Access = policy.REST, policy.ReadOnly
			case 2:
				if e.Host != "" && !strings.HasPrefix(e.Host, "10.") {
					e.Protocol = policy.TCP
				}
			case 3:
				e.TLS = policy.TLSSkip
			case 4:
				e.AllowedIPs = []string{"10.0.0.0/8"}
			}
			if e.Host == "" {
				e.AllowedIPs = []string{"10.0.0.0/8"}
				e.Protocol, e.Access = policy.ProtocolNone, policy.AccessNone
			}
			r.Endpoints = append(r.Endpoints, e)
		}
		for range rapid.IntRange(0, 3).Draw(t, "binaries") {
			r.Binaries = append(r.Binaries, policy.Binary{Path: rapid.SampledFrom(binaries).Draw(t, "binary")})
		}
		d.Rules = append(d.Rules, r)
	}
	return d
}

// drawFlow makes a flow, mostly one that some rule of d speaks of.
func drawFlow(t *rapid.T, d *policy.Document) decide.Flow {
	f := decide.Flow{Host: rapid.SampledFrom(hosts).Draw(t, "dest"), Port: rapid.Uint16Range(1, 3).Draw(t, "port")}
	if len(d.Rules) > 0 && rapid.IntRange(0, 3).Draw(t, "aim") > 0 {
		r := rapid.SampledFrom(d.Rules).Draw(t, "rule")
		if len(r.Endpoints) > 0 {
			e := rapid.SampledFrom(r.Endpoints).Draw(t, "endpoint")
			f.Port = rapid.SampledFrom(e.Ports).Draw(t, "port")
			fits := slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return !covers(e.Host, h) })
			f.Host = rapid.SampledFrom(append(fits, hosts[0])).Draw(t, "fit")
		}
	}
	for range rapid.SampledFrom([]int{0, 1, 1, 1, 1, 1, 2}).Draw(t, "holders") {
		var c []decide.Program
		for range rapid.SampledFrom([]int{0, 1, 1, 2, 3}).Draw(t, "chain") {
			c = append(c, decide.Program{Path: rapid.SampledFrom(append(append([]string{""}, paths...), paths...)).Draw(t, "path")})
		}
		f.Programs = append(f.Programs, c)
	}
	return f
}

func checkOracle(t *rapid.T) {
	d := drawDocument(t)
	ix, err := decide.Compile(d)
	if err != nil {
		if vs := policy.Validate(d); len(vs) != 0 {
			t.Fatalf("drew an invalid document: %v", vs)
		}
		return // ambiguous
	}
	for range 8 {
		f := drawFlow(t, d)
		v, want := ix.Connect(f), decideSlowly(d, f)
		if v.Allow != want.allow || v.Allow && v.Rule.Key != want.rule {
			t.Fatalf("%+v: %+v, the oracle says %+v\n%s", f, v, want, policy.Canonical(d))
		}
		if !v.Allow {
			if v.Kind != decide.Denied || want.reaching == (v.Reason == decide.NoEndpoint || v.Reason == decide.PortNotAllowed) {
				t.Fatalf("%+v: denied as %+v, the oracle says %+v\n%s", f, v, want, policy.Canonical(d))
			}
			checkChange(t, d, ix, f, v)
			continue
		}
		kind := decide.Relay
		switch {
		case want.inspect:
			kind = decide.Inspect
		case want.raw:
			kind = decide.Raw
		}
		private, public := addr("192.168.0.1"), addr("8.8.8.8")
		if v.Kind != kind ||
			(decide.CheckAddress(private, v.Address) == nil) != (want.exact && !want.listed) ||
			(decide.CheckAddress(public, v.Address) == nil) != !want.listed ||
			(decide.CheckAddress(addr("10.9.9.9"), v.Address) == nil) != (want.exact || want.listed) {
			t.Fatalf("%+v: %+v, the oracle says %+v\n%s", f, v, want, policy.Canonical(d))
		}
	}
	checkTrace(t, d, ix)
}

// checkChange applies the proposed rule, which must be enough for a single
// holder, and for the flow only.
func checkChange(t *rapid.T, d *policy.Document, ix *decide.Index, f decide.Flow, v decide.Verdict) {
	if len(f.Programs) != 1 {
		return
	}
	c := ix.Change(f, v)
	if c == (decide.Change{}) {
		if len(f.Programs[0]) > 0 && f.Programs[0][0].Path != "" {
			t.Fatalf("%+v: no change would allow it", f)
		}
		return
	}
	added, err := policy.Parse("change", []byte("version: 1\nnetwork_policies:\n  "+c.Line))
	if err != nil {
		t.Fatalf("the proposed rule is refused: %v", err)
	}
	both := &policy.Document{Rules: append(slices.Clone(added.Rules), d.Rules...)}
	after, err := decide.Compile(both)
	if err != nil {
		return // an address list or tls: skip on the same host: no plain rule can help
	}
	if w := after.Connect(f); !w.Allow {
		t.Fatalf("%+v: still denied with %s: %+v", f, c.Line, w)
	}
	other := f
	other.Port++
	if after.Connect(other).Allow != ix.Connect(other).Allow {
		t.Fatalf("%s allows another port", c.Line)
	}
}

// checkTrace compares the explaining walk with the verdict.
func checkTrace(t *rapid.T, d *policy.Document, ix *decide.Index) {
	f := drawFlow(t, d)
	tr := ix.Trace(f)
	ok := make([]bool, len(f.Programs))
	for _, s := range tr.Endpoints {
		if s.Why == decide.Matched {
			ok[s.Holder] = true
		}
	}
	if want := len(ok) > 0 && !slices.Contains(ok, false); want != tr.Verdict.Allow {
		t.Fatalf("%+v: the trace says %v: %+v", f, want, tr)
	}
}

func TestConnectAgreesWithTheOracle(t *testing.T) { rapid.Check(t, checkOracle) }

func FuzzConnect(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkOracle)) }

// TestAmbiguityIsPairwise: a document is ambiguous if and only if two of its
// endpoints are on their own.
func TestAmbiguityIsPairwise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDocument(t)
		var all []policy.Rule
		for _, r := range d.Rules {
			for _, e := range r.Endpoints {
				all = append(all, policy.Rule{Key: fmt.Sprintf("k%03d", len(all)), Endpoints: []policy.Endpoint{e}})
			}
		}
		pairs := 0
		for i := range all {
			for j := range i {
				if len(policy.Ambiguities(&policy.Document{Rules: []policy.Rule{all[j], all[i]}})) > 0 {
					pairs++
				}
			}
		}
		if got := len(policy.Ambiguities(d)); got != pairs {
			t.Fatalf("%d ambiguities, %d by pairs\n%s", got, pairs, policy.Canonical(d))
		}
	})
}
