// Package sdk runs the published Python client of the 0.1.x line, unchanged,
// against a private gateway that our command line started and registered.
package sdk

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"openshell.dev/openshell/test/built"
	"openshell.dev/openshell/test/fetched"
	"openshell.dev/openshell/test/person"
)

func TestMain(m *testing.M) {
	code := m.Run()
	built.Clean()
	os.Exit(code)
}

const script = `
from openshell import SandboxClient
c = SandboxClient.from_active_cluster(timeout=60)
assert c.health().version
s = c.create(workspace='default', name='stock')
c.wait_ready('stock', workspace='default')
r = c.exec('stock', ['sh', '-c', 'echo out; echo err >&2; exit 4'], workspace='default')
assert (r.exit_code, r.stdout, r.stderr) == (4, 'out\n', 'err\n'), r
assert c.exec('stock', ['cat'], workspace='default', stdin=b'hello').stdout == 'hello'
assert c.exec('stock', ['sh', '-c', 'echo $A'], workspace='default', env={'A': 'b'}).stdout == 'b\n'
assert c.exec('stock', ['sleep', '30'], workspace='default', timeout_seconds=1).exit_code == 124
chunks = [x.data for x in c.exec_stream('stock', ['sh', '-c', 'for i in 1 2 3; do echo $i; sleep 0.1; done'], workspace='default') if hasattr(x, 'data')]
assert b''.join(chunks) == b'1\n2\n3\n', chunks
try:
    c.create(workspace='default', name='stock')
    raise SystemExit('a name was given twice')
except Exception as e:
    assert 'ALREADY_EXISTS' in str(e), e
c.stop('stock', workspace='default'); c.wait_stopped('stock', workspace='default')
c.start('stock', workspace='default'); c.wait_ready('stock', workspace='default')
d = c.delete('stock', workspace='default')
c.wait_deleted('stock', workspace='default', expected_sandbox_id=d.sandbox_id)
print('all good')
`

func TestTheStockPythonClient(t *testing.T) {
	at := fetched.SDK(t)
	person.Each(t, func(t *testing.T, p *person.Person) {
		t.Cleanup(func() { endGateway(t, p) })
		// The first sandbox of the command line starts and registers the gateway.
		if r := p.Do("openshell", "sandbox", "create", "--name", "first", "--no-keep", "--", "true"); r.Code != 0 {
			t.Fatal(r)
		}
		file := p.File("stock.py", script)
		cmd := p.Command(t.Context(), "openshell")
		cmd.Path, cmd.Args = fetched.SystemPython, []string{"python3", file}
		cmd.Env = append(cmd.Env, "PYTHONPATH="+at, "PYTHONDONTWRITEBYTECODE=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "all good") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// endGateway ends the private gateway of the person, found by its state
// directory, and waits until it is gone.
func endGateway(t *testing.T, p *person.Person) {
	t.Helper()
	for range 200 {
		left := false
		dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, d := range dirs {
			line, _ := os.ReadFile(d)
			if !strings.Contains(string(line), p.Home) || !strings.Contains(string(line), "openshell-gateway") {
				continue
			}
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(d))); err == nil {
				left = true
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
		}
		if !left {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the gateway does not end")
}
