package runtimes

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/openshell/test/person"
)

// door is a way into a sandbox.
type door struct {
	name string
	// open makes a sandbox that shows the person's workspace and the named
	// directories of the host, and returns how programs are run in it.
	open func(t *testing.T, p *person.Person, shown ...string) func(argv ...string) person.Result
}

var runDoor = door{"run", func(t *testing.T, p *person.Person, shown ...string) func(argv ...string) person.Result {
	var flags []string
	for _, dir := range shown {
		flags = append(flags, "--ro", dir)
	}
	return func(argv ...string) person.Result {
		t.Helper()
		return p.For(t).Run(append(append([]string{}, flags...), append([]string{"--"}, argv...)...)...)
	}
}}

// gatewayDoor: a gateway shows no directory of its host, so what is to be
// shown is copied in, and its paths are others inside.
var gatewayDoor = door{"gateway", func(t *testing.T, p *person.Person, shown ...string) func(argv ...string) person.Result {
	p = p.For(t)
	p.Gateway("0")
	if r := p.Do("openshell", "sandbox", "create", "--name", "box", "--detach", "--", "sleep", "infinity"); r.Code != 0 {
		t.Fatalf("sandbox create: %v", r)
	}
	var moved []string
	for i, dir := range append(shown, p.Workspace) {
		to := fmt.Sprintf("/tmp/shown/%d", i)
		send(t, p, dir, to)
		moved = append(moved, dir, to)
	}
	inside := strings.NewReplacer(moved...)
	return func(argv ...string) person.Result {
		t.Helper()
		all := []string{"sandbox", "exec", "-n", "box", "--"}
		for _, a := range argv {
			all = append(all, inside.Replace(a))
		}
		return p.For(t).Do("openshell", all...)
	}
}}

// send copies a directory into the sandbox.
func send(t *testing.T, p *person.Person, dir, to string) {
	t.Helper()
	tar := exec.Command("tar", "-c", "-C", dir, ".")
	from, err := tar.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tar.Start(); err != nil {
		t.Fatal(err)
	}
	cmd := p.Command(t.Context(), filepath.Join(p.Bin, "openshell"), "sandbox", "exec", "-n", "box", "--",
		"sh", "-c", "mkdir -p "+to+" && tar -x --no-same-owner -C "+to)
	cmd.Stdin = from
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copying %s: %v\n%s", dir, err, out)
	}
	if err := tar.Wait(); err != nil {
		t.Fatal(err)
	}
}

// eachDoor runs a test for every account and every door.
func eachDoor(t *testing.T, test func(t *testing.T, p *person.Person, d door)) {
	t.Helper()
	person.Each(t, func(t *testing.T, p *person.Person) {
		for _, d := range []door{runDoor, gatewayDoor} {
			t.Run(d.name, func(t *testing.T) { test(t, p.For(t), d) })
		}
	})
}
