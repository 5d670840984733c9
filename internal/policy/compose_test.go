package policy_test

import (
	"strings"
	"testing"

	"openshell.dev/openshell/internal/policy"
)

func parse(t *testing.T, text string) *policy.Document {
	t.Helper()
	d, err := policy.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStaticEdits(t *testing.T) {
	const old = "version: 1\nfilesystem_policy: {read_only: [/usr], read_write: [/tmp]}\nlandlock: {compatibility: hard_requirement}\nprocess: {run_as_user: sandbox}\n"
	for _, c := range []struct{ name, was, now, want string }{
		{"same", old, old, ""},
		{"paths added", old, strings.Replace(old, "[/usr]", "[/usr, /opt]", 1), ""},
		{"network changed", old, old + "network_policies: {a: {}}", ""},
		{"sections added", "version: 1", old, ""},
		{"path removed", old, strings.Replace(old, "[/usr]", "[]", 1), "p.yaml:2:32: filesystem_policy.read_only: filesystem read_only path '/usr' cannot be removed on a live sandbox"},
		{"path made read-only", old, "version: 1\nfilesystem_policy: {read_only: [/usr, /tmp]}\nlandlock: {compatibility: hard_requirement}\nprocess: {run_as_user: sandbox}\n", "filesystem read_write path '/tmp' cannot be removed"},
		{"workdir", old, strings.Replace(old, "{read_only", "{include_workdir: true, read_only", 1), "filesystem include_workdir cannot be changed"},
		{"files dropped", old, "version: 1\nlandlock: {compatibility: hard_requirement}\nprocess: {run_as_user: sandbox}", "filesystem policy cannot be removed on a live sandbox"},
		{"landlock weakened", old, strings.Replace(old, "hard_requirement", "best_effort", 1), "landlock policy cannot be changed on a live sandbox (applied at startup)"},
		{"landlock dropped", old, strings.Replace(old, "landlock: {compatibility: hard_requirement}\n", "", 1), "landlock policy cannot be changed"},
		{"landlock spelled out", "version: 1\nlandlock: {}", "version: 1\nlandlock: {compatibility: best_effort}", ""},
		{"user", old, strings.Replace(old, "sandbox}", "\"7\"}", 1), "process policy cannot be changed on a live sandbox (applied at startup)"},
		{"user dropped", old, strings.Replace(old, "process: {run_as_user: sandbox}\n", "", 1), "process policy cannot be changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			next := parse(t, c.now)
			err := policy.NewError(next, policy.StaticEdits(parse(t, c.was), next))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestCompose(t *testing.T) {
	base := parse(t, endpointDoc("host: a.example.com, port: 443"))
	text := string(policy.Canonical(base))
	layer := policy.Layer{Endpoints: []policy.Endpoint{{Host: "b.example.com", Ports: []uint16{443}}}, Binaries: []policy.Binary{{Path: "/x"}}}
	var layers []policy.Layer
	for _, name := range []string{"My GitHub!", "my-github", "##", "empty"} {
		l := layer
		l.Provider = name
		if name == "empty" {
			l.Endpoints = nil
		}
		layers = append(layers, l)
	}
	d, err := policy.Compose(base, layers)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, r := range d.Rules {
		keys = append(keys, r.Key)
	}
	if got := strings.Join(keys, " "); got != "_provider_my_github _provider_my_github_2 _provider_unnamed api" {
		t.Errorf("keys %s", got)
	}
	if vs := append(policy.Validate(d), policy.Ambiguities(d)...); len(vs) != 0 {
		t.Error(vs)
	}
	roundTrip(t, d)
	if string(policy.Canonical(policy.Base(d))) != text || string(policy.Canonical(base)) != text {
		t.Error("the base is not what it was")
	}
	if _, err := policy.Compose(d, nil); err == nil {
		t.Error("a base with reserved keys is composed")
	}
}
