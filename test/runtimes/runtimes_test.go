// Package runtimes runs other people's programs inside a sandbox, as they
// come from their package registries: language runtimes, agents, compilers
// and tools. The sandbox of others killed every Node agent at start, because
// listing the interfaces failed; here each runtime shows that it lists them.
//
// What is not on the machine is fetched beforehand by the program
// test/runtimes/fetch; a test that lacks something is skipped and names it.
package runtimes

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"openshell.dev/openshell/test/built"
	"openshell.dev/openshell/test/fetched"
	"openshell.dev/openshell/test/person"
)

func TestMain(m *testing.M) {
	code := m.Run()
	built.Clean()
	os.Exit(code)
}

// testdata is a file of this package, whole path.
func testdata(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// source copies a file of testdata into the workspace.
func source(t testing.TB, p *person.Person, name string) string {
	t.Helper()
	data, err := os.ReadFile(testdata(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return p.File(filepath.Base(name), string(data))
}

// tools is a directory, readable by everybody, of what a test compiles once.
func tools(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "openshell-tools-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// compile runs a compiler outside.
func compile(t testing.TB, compiler string, args ...string) {
	t.Helper()
	if out, err := exec.Command(fetched.Command(t, compiler), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", compiler, args, err, out)
	}
}

// compileGo builds a static program of testdata.
func compileGo(t testing.TB, out, dir string) {
	t.Helper()
	cmd := exec.Command(fetched.Command(t, "go"), "build", "-trimpath", "-o", out, "./testdata/"+dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", dir, err, text)
	}
}
