package decide_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/decide"
	"pgregory.net/rapid"
)

func words(list []decide.Difference) (out []string) {
	for _, d := range list {
		sign := "-"
		if d.Gained {
			sign = "+"
		}
		s := fmt.Sprintf("%s %s:%d %s", sign, d.Flow.Host, d.Flow.Port, d.Flow.Programs[0][0].Path)
		if d.Request != nil {
			s += " " + d.Request.Method + " " + d.Request.Path
			if d.Request.RPC != nil {
				s += " " + d.Request.RPC.Messages[0].Method + " " + d.Request.RPC.Messages[0].Tool
			}
			if d.Request.GraphQL != nil {
				s += " " + d.Request.GraphQL.Operations[0].Type
			}
		}
		out = append(out, strings.TrimSpace(s))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestDiff(t *testing.T) {
	rest := func(members string) string {
		return "a: {endpoints: [{host: a.example.com, port: 443, protocol: rest, enforcement: enforce, " + members + "}], binaries: [{path: /bin/c}]}"
	}
	mcpDoc := func(members string) string {
		return "a: {endpoints: [{host: a.example.com, port: 443, path: /mcp, protocol: mcp, enforcement: enforce, " + members + "}], binaries: [{path: /bin/c}]}"
	}
	for _, c := range []struct{ name, before, after, want string }{
		{"same", rest("access: full"), rest("access: full"), ""},
		{"spelled otherwise", rest("access: read-only"), rest("rules: [{allow: {method: GET, path: '/**'}}, {allow: {method: options, path: '**'}}]"), ""},
		{"port", "a: {endpoints: [{host: a.example.com, port: 443}], binaries: [{path: /bin/c}]}", "a: {endpoints: [{host: a.example.com, ports: [80, 443]}], binaries: [{path: /bin/c}]}", "+ a.example.com:80 /bin/c"},
		{"program", "a: {endpoints: [{host: a.example.com, port: 443}], binaries: [{path: /bin/c}]}", "a: {endpoints: [{host: a.example.com, port: 443}], binaries: [{path: '/bin/*'}]}", "+ a.example.com:443 /bin/any"},
		{"host", "a: {endpoints: [{host: '*.example.com', port: 443}], binaries: [{path: /bin/c}]}", "a: {endpoints: [{host: '**.example.com', port: 443}], binaries: [{path: /bin/c}]}", "+ deep.any.example.com:443 /bin/c"},
		{"preset", rest("access: read-only"), rest("access: read-write"), "+ a.example.com:443 /bin/c PATCH /any|+ a.example.com:443 /bin/c POST /any|+ a.example.com:443 /bin/c PUT /any"},
		{"deny", rest("access: read-only"), rest("access: read-only, deny_rules: [{method: GET, path: '/secret/**'}]"), "- a.example.com:443 /bin/c GET /secret/any"},
		{"no longer inspected", rest("access: read-only"), "a: {endpoints: [{host: a.example.com, port: 443}], binaries: [{path: /bin/c}]}", ""},
		{"tool", mcpDoc("rules: [{allow: {method: tools/call, tool: read}}]"), mcpDoc("rules: [{allow: {method: tools/call, tool: write}}]"), "+ a.example.com:443 /bin/c POST /mcp tools/call write|- a.example.com:443 /bin/c POST /mcp tools/call read"},
		{"operation", "a: {endpoints: [{host: a.example.com, port: 443, protocol: graphql, enforcement: enforce, access: read-only}], binaries: [{path: /bin/c}]}", "a: {endpoints: [{host: a.example.com, port: 443, protocol: graphql, enforcement: enforce, access: read-write}], binaries: [{path: /bin/c}]}", "+ a.example.com:443 /bin/c POST /any mutation"},
		{"all", "a: {}", "a: {endpoints: [{host: a.example.com, port: 443}], binaries: [{path: /bin/c}]}", "+ a.example.com:443 /bin/c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, after := compile(t, c.before), compile(t, c.after)
			got := strings.Join(words(decide.Diff(before, after, 100)), "|")
			if c.name == "no longer inspected" {
				if !strings.Contains(got, "+ a.example.com:443 /bin/c DELETE") {
					t.Errorf("Diff = %s", got)
				}
				return
			}
			if got != c.want {
				t.Errorf("Diff = %s\nwant   %s", got, c.want)
			}
			if n, m := len(decide.Diff(before, after, 100)), len(decide.Diff(after, before, 100)); n != m {
				t.Errorf("%d differences one way, %d the other", n, m)
			}
		})
	}
}

// TestDifferencesAreReal: both policies, asked again, give the two answers;
// and a policy does not differ from itself.
func TestDifferencesAreReal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one, two := drawDocument(t), drawDocument(t)
		before, err := decide.Compile(one)
		if err != nil {
			return
		}
		after, err := decide.Compile(two)
		if err != nil {
			return
		}
		for _, d := range decide.Diff(before, after, 50) {
			b, a := before.Connect(d.Flow).Allow, after.Connect(d.Flow).Allow
			if d.Request != nil {
				b, a = before.Request(d.Flow, d.Request).Allow, after.Request(d.Flow, d.Request).Allow
			}
			if b == a || d.Gained != a {
				t.Fatalf("%+v: before %v, after %v", d, b, a)
			}
		}
		if same := decide.Diff(before, before, 50); len(same) != 0 {
			t.Fatalf("differs from itself: %+v", same)
		}
	})
}
