package egress

import (
	"fmt"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/decide"
	"openshell.dev/openshell/internal/policy"
)

func compile(t testing.TB, text string) Policy {
	t.Helper()
	d, err := policy.Parse("p.yaml", []byte("version: 1\nnetwork_policies:\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	ix, err := decide.Compile(d)
	if err != nil {
		t.Fatal(err)
	}
	return Compiled(ix, nil)
}

// X14 and X15 of the policy sheet, at the level of connections.
func TestCompiledPoliciesDecide(t *testing.T) {
	up := serve(t, echo)
	b := start(t, Options{Policy: compile(t, fmt.Sprintf(`
  named: {endpoints: [{host: svc.corp.example, port: %[1]s}], binaries: [{path: /usr/bin/curl}]}
  wild: {endpoints: [{host: "*.wild.example", port: %[1]s}], binaries: [{path: /bin/sh}]}
  other: {endpoints: [{host: psql.example, port: %[1]s, protocol: tcp}], binaries: [{path: /usr/bin/psql}]}
  read: {endpoints: [{host: rest.example, port: %[1]s, protocol: rest, enforcement: enforce, access: read-only}], binaries: [{path: /usr/bin/curl}]}
  literal: {endpoints: [{host: 127.0.0.1, port: %[1]s}, {host: 10.1.2.3, port: 6443}], binaries: [{path: /usr/bin/curl}]}
`, up.port))})
	for _, row := range []struct{ host, addr, port, want string }{
		{"svc.corp.example", "127.0.0.1", "", "blocked: internal address: loopback is never allowed"},
		{"svc.corp.example", "169.254.169.254", "", "blocked: internal address: metadata services are never allowed"},
		{"a.wild.example", "10.0.0.1", "", "blocked: internal address: private, and no endpoint names it"},
		{"127.0.0.1", "", "", "blocked: internal address: loopback is never allowed"},
		{"10.1.2.3", "", "6443", "blocked: control-plane port is never allowed"},
		{"psql.example", "127.0.0.1", "", "binary '/usr/bin/curl' not allowed in policy 'other'"},
		{"rest.example", "127.0.0.1", "", "requires requests to be inspected"},
		{"svc.corp.example", "127.0.0.1", "22", "endpoint svc.corp.example:22 is not allowed by any policy"},
		{"nowhere.example", "127.0.0.1", "", "endpoint nowhere.example:" + up.port + " is not allowed by any policy"},
	} {
		t.Run(row.host+row.addr+row.port, func(t *testing.T) {
			b.zone.mu.Lock()
			b.zone.names[row.host] = []string{row.addr}
			b.zone.mu.Unlock()
			if row.port == "" {
				row.port = up.port
			}
			got := exchange(t, b.explicit, "CONNECT "+row.host+":"+row.port+" HTTP/1.1\r\n\r\n")
			if !strings.Contains(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
	if up.hits.Load() != 0 {
		t.Error("a denied connection reached its target")
	}
	got := exchange(t, b.explicit, "CONNECT nowhere.example:443 HTTP/1.1\r\n\r\n")
	if !strings.Contains(got, `"narrowest_change":"`) || !strings.Contains(got, `nowhere.example`) {
		t.Errorf("no narrowest change in %q", got)
	}
	for host, want := range map[string]bool{"svc.corp.example": true, "x.wild.example": true, "a.b.wild.example": false, "nowhere.example": false} {
		if got := b.proxy.current.Load().policy.Names(host); got != want {
			t.Errorf("Names(%s) = %v", host, got)
		}
	}
}

func TestACompiledPolicyLetsAnExactHostBePrivate(t *testing.T) {
	p := compile(t, `
  named: {endpoints: [{host: svc.corp.example, port: 80}], binaries: [{path: /usr/bin/curl}]}`)
	f := Flow{Host: "svc.corp.example", Port: 80, Chain: []string{"/usr/bin/curl"}}
	v := p.Connect(f)
	if !v.Allow || p.Address(f, v, mustAddr("10.1.1.1")) != nil || p.Address(f, v, mustAddr("93.184.216.34")) != nil {
		t.Errorf("verdict %+v", v)
	}
	if p.Address(f, Verdict{Allow: true}, mustAddr("93.184.216.34")) == nil {
		t.Error("a verdict that is not the policy's own lets an address be dialled")
	}
	f.Chain = nil
	if p.Connect(f).Allow {
		t.Error("nobody is allowed")
	}
	if v := Compiled(nil, nil).Connect(f); v.Allow {
		t.Error("no index allows")
	}
}
