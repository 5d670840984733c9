package decide_test

import (
	"fmt"
	"net/netip"
	"testing"

	"openshell.dev/openshell/internal/decide"
	"openshell.dev/openshell/internal/policy"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// sized makes a policy of n endpoints: most exact, one in ten a pattern.
func sized(tb testing.TB, n int) *decide.Index {
	tb.Helper()
	d := &policy.Document{}
	for i := range n {
		host := fmt.Sprintf("host%05d.zone%02d.example.com", i, i%37)
		if i%10 == 3 {
			host = fmt.Sprintf("*.host%05d.example.org", i)
		}
		d.Rules = append(d.Rules, policy.Rule{
			Key:       fmt.Sprintf("rule%05d", i),
			Endpoints: []policy.Endpoint{{Host: host, Ports: []uint16{443}}},
			Binaries:  []policy.Binary{{Path: "/usr/bin/curl"}, {Path: "/usr/lib/*/bin/node"}},
		})
	}
	ix, err := decide.Compile(d)
	if err != nil {
		tb.Fatal(err)
	}
	return ix
}

func BenchmarkConnect(b *testing.B) {
	for _, n := range []int{20, 1000, 10000} {
		ix := sized(b, n)
		last := n - n%10 - 10
		for _, c := range []struct {
			name string
			flow decide.Flow
		}{
			{"exact", flow(fmt.Sprintf("host%05d.zone%02d.example.com", last, last%37), 443, "/usr/lib/node24/bin/node", "/bin/bash", "/usr/bin/agent")},
			{"pattern", flow(fmt.Sprintf("api.host%05d.example.org", last+3), 443, "/usr/bin/curl", "/bin/bash")},
			{"miss", flow("unknown.example.net", 443, "/usr/bin/curl", "/bin/bash")},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				if v := ix.Connect(c.flow); v.Allow != (c.name != "miss") {
					b.Fatalf("%+v", v)
				}
				b.ReportAllocs()
				for b.Loop() {
					ix.Connect(c.flow)
				}
			})
		}
	}
}

func BenchmarkCheckAddress(b *testing.B) {
	rule := sized(b, 20).Connect(flow("host00000.zone00.example.com", 443, "/usr/bin/curl")).Address
	for _, s := range []string{"104.16.1.1", "2606:4700::1"} {
		a := addr(s)
		b.Run(s, func(b *testing.B) {
			for b.Loop() {
				if err := decide.CheckAddress(a, rule); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{20, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			doc := sized(b, n).Document()
			for b.Loop() {
				if _, err := decide.Compile(doc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkExplain is what a denial costs beside the decision; a sandbox can
// cause as many as it likes.
func BenchmarkExplain(b *testing.B) {
	for _, n := range []int{20, 10000} {
		ix := sized(b, n)
		f := flow("host00000.zone00.example.com", 443, "/bin/nc", "/bin/bash")
		v := ix.Connect(f)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				ix.Explain(f, v)
				ix.Change(f, v)
			}
		})
	}
}
