package runtimes

import (
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/openshell/test/fetched"
	"openshell.dev/openshell/test/person"
)

func TestAgentsPrintTheirVersion(t *testing.T) {
	node := fetched.NodeBin(t, 24)
	for _, agent := range fetched.Agents() {
		t.Run(agent, func(t *testing.T) {
			dir := fetched.Agent(t, agent)
			version := fetched.AgentVersion(agent)
			person.Each(t, func(t *testing.T, p *person.Person) {
				run := runDoor.open(t, p, node, dir)
				r := run("env", "PATH="+node+":/usr/local/bin:/usr/bin:/bin", filepath.Join(dir, "node_modules/.bin", agent), "--version")
				if r.Code != 0 || !strings.Contains(r.Stdout, version) {
					t.Errorf("want version %s: %v", version, r)
				}
			})
		})
	}
}

func TestCiaoAdvertisesAService(t *testing.T) {
	node := fetched.NodeBin(t, 24)
	dir := fetched.Ciao(t)
	eachDoor(t, func(t *testing.T, p *person.Person, d door) {
		script := source(t, p, "advertise.cjs")
		run := d.open(t, p, node, dir)
		for _, address := range []string{"10.200.0.2", "127.0.0.1"} {
			r := run("env", "NODE_PATH="+filepath.Join(dir, "node_modules"), filepath.Join(node, "node"), script, address)
			if want := "advertised 2\nanswered true\nended\n"; r.Code != 0 || r.Stdout != want {
				t.Errorf("asked at %s: want %q: %v", address, want, r)
			}
		}
	})
}
