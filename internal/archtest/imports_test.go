package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "openshell.dev/openshell"

type pkg struct {
	ImportPath  string
	Dir         string
	GoFiles     []string
	Imports     []string
	TestImports []string
	Deps        []string
	Standard    bool
	Doc         string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,GoFiles,Imports,TestImports,Deps,Standard,Doc"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// name is the path below the module: internal/policy, cmd/openshell.
func name(importPath string) string {
	return strings.TrimPrefix(importPath, module+"/")
}

func under(path string, trees ...string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool {
		return path == tree || strings.HasPrefix(path, tree+"/")
	})
}

// levels are the floors of the building: a package imports lower floors and
// its own. A package that stands nowhere fails the test.
var levels = [][]string{
	{"internal/brand", "internal/fault", "internal/secret", "internal/model"},
	{"internal/policy", "internal/l7", "internal/event", "internal/pki", "internal/landlock", "internal/seccomp", "internal/privs",
		"internal/netlink", "internal/netns", "internal/sockdiag", "internal/mounts", "internal/procs", "internal/cgroup",
		"internal/relay", "internal/identity", "internal/sibling", "internal/health", "api", "internal/trim"},
	{"internal/decide", "internal/confine", "internal/view"},
	{"internal/launch", "internal/egress", "internal/session", "internal/store", "internal/authn", "internal/image",
		"internal/config", "internal/compute", "internal/gateways", "internal/policyproto"},
	{"internal/supervisor", "internal/uplink", "internal/gateway", "internal/client", "internal/runcmd", "internal/doctor"},
	{"internal/cli"},
	{"cmd"},
}

// besides are packages only tests import.
var besides = []string{"internal/kerneltest", "internal/archtest", "internal/compute/computetest", "test", "bench", "demo"}

func TestEveryPackageStandsOnAFloorAndImportsDownwards(t *testing.T) {
	floor := func(p string) int {
		return slices.IndexFunc(levels, func(l []string) bool { return under(p, l...) })
	}
	for _, p := range list(t, "./...") {
		at := name(p.ImportPath)
		if under(at, besides...) {
			continue
		}
		mine := floor(at)
		if mine < 0 {
			t.Errorf("%s stands on no floor: add it to levels, where ARCHITECTURE.md would look for it", at)
			continue
		}
		for _, dep := range p.Imports {
			if !strings.HasPrefix(dep, module+"/") {
				continue
			}
			if theirs := floor(name(dep)); theirs > mine {
				t.Errorf("%s imports %s, which stands above it", at, name(dep))
			}
		}
	}
}

// fences say which packages may import a tree at all.
var fences = []struct {
	tree    string
	allowed []string
	why     string
}{
	{"database/sql", []string{"internal/store"}, "SQL stays behind one seam"},
	{"modernc.org/sqlite", []string{"internal/store"}, "SQL drivers stay behind one seam"},
	{"github.com/google/go-containerregistry", []string{"internal/image", "test"}, "only image speaks to registries"},
	{"github.com/spf13/cobra", []string{"internal/cli", "cmd"}, "the command tree is a surface; the run path must not pay for it"},
	{"golang.org/x/crypto/ssh", []string{"internal/session", "internal/uplink", "internal/cli", "internal/client"}, "SSH is one of the sandbox's doors"},
	{"unsafe", nil, "unsafe only in *_unsafe.go of the kernel leaves"},
	{"os/exec", []string{"internal/sibling", "internal/supervisor", "internal/compute", "internal/cli", "internal/client", "internal/doctor", "internal/session", "internal/uplink", "internal/image", "internal/runcmd"}, "only where a process is the product, and for credential helpers"},
	{module + "/api", []string{"internal/gateway", "internal/client", "internal/cli", "internal/uplink", "internal/compute", "internal/health", "internal/authn", "internal/policyproto", "api", "cmd"}, "generated wire types stay at the edges"},
	{module + "/internal/launch", []string{"internal/launch", "internal/supervisor", "internal/runcmd", "cmd/openshell-sandbox"}, "the launcher is driven by the outside half only"},
	{module + "/internal/gateway", []string{"internal/gateway", "cmd/openshell-gateway"}, "control and enforcement never import each other"},
	{module + "/internal/store", []string{"internal/store", "internal/gateway", "internal/compute", "cmd/openshell-gateway"}, "control and enforcement never import each other"},
	{module + "/internal/egress", []string{"internal/egress", "internal/supervisor"}, "control and enforcement never import each other"},
}

func TestFencesHold(t *testing.T) {
	for _, p := range list(t, "./...") {
		at := name(p.ImportPath)
		if under(at, besides...) || under(at, "api/gen") {
			continue
		}
		for _, dep := range p.Imports {
			for _, f := range fences {
				if !under(dep, f.tree) || f.tree == "unsafe" {
					continue
				}
				if !under(at, f.allowed...) {
					t.Errorf("%s imports %s: %s", at, dep, f.why)
				}
			}
		}
	}
}

// pure packages decide and do nothing else.
var pure = []string{"internal/policy", "internal/l7", "internal/decide"}

func TestDecidersArePure(t *testing.T) {
	forbidden := []string{"net", "net/http", "os", "os/exec", "time", "syscall", "golang.org/x/sys"}
	for _, p := range list(t, "./internal/policy/...", "./internal/decide/...") {
		for _, dep := range p.Imports {
			if slices.Contains(forbidden, dep) || strings.HasPrefix(dep, "golang.org/x/sys/") {
				t.Errorf("%s imports %s: a verdict may depend on nothing but policy and question", name(p.ImportPath), dep)
			}
		}
	}
	_ = pure
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range list(t, "./...") {
		if len(p.GoFiles) > 0 && p.Doc == "" && !under(name(p.ImportPath), "api/gen") {
			t.Errorf("%s has no package comment", name(p.ImportPath))
		}
	}
}
