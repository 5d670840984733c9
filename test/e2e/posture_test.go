package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"openshell.dev/openshell/test/person"
)

// posture is what test/posture/look prints.
type posture struct {
	Status      map[string]string
	IDs         []int
	Groups      []int
	Session     string
	Umask       int
	Limits      map[string][2]uint64
	Descriptors []string
	Namespaces  map[string]string
	Mounts      []string
	Root, Dev   []string
	Processes   []string
	Environment []string
	Hostname    string
	Dir         string
	Interfaces  []string
	Routes      []string
	Terminal    string
	Securebits  int
	Dumpable    int
	DeathSignal int
	Personality string
	Cgroup      string
	SysNet      []string
	Priority    int
	OOM         string
}

// TestThePostureIsExactlyThis compares everything that a process inside can
// observe about itself with what is expected. What is not listed fails.
func TestThePostureIsExactlyThis(t *testing.T) {
	dir := t.TempDir()
	for at := dir; at != "/tmp" && at != "/"; at = filepath.Dir(at) {
		_ = os.Chmod(at, 0o755)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "look"), "../posture/look")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	person.Each(t, func(t *testing.T, p *person.Person) {
		// A descriptor that the caller left open must not get through.
		extra, err := os.Open("/etc/passwd")
		if err != nil {
			t.Fatal(err)
		}
		defer extra.Close()
		cmd := p.Command(t.Context(), "openshell", "run", "--ro", dir, "--", filepath.Join(dir, "look"))
		cmd.ExtraFiles = []*os.File{extra, extra}
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var got posture
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		checkPosture(t, p, got, dir)
	})
}

func checkPosture(t *testing.T, p *person.Person, got posture, shown string) {
	t.Helper()
	none := "0000000000000000"
	uid := p.Account.UID
	if uid < 0 {
		uid = os.Getuid()
	}
	if uid == 0 {
		uid = 1000 // nothing inside looks like root
	}
	for ns, id := range got.Namespaces {
		mine, err := os.Readlink("/proc/self/ns/" + strings.TrimSuffix(ns, "_for_children"))
		if err != nil || mine == id || id == "" {
			t.Errorf("namespace %s is the host's: %s, %v", ns, id, err)
		}
	}
	if len(got.Namespaces) != 10 {
		t.Errorf("namespaces: %v", got.Namespaces)
	}
	checkMounts(t, p, got.Mounts, shown)
	for name, l := range got.Limits {
		if name != "core" && name != "nofile" && l[1] < l[0] {
			t.Errorf("limit %s: %v", name, l)
		}
	}
	for _, group := range strings.Fields(got.Cgroup) {
		if !strings.HasSuffix(group, ":/") {
			t.Errorf("the cgroup tree of the host shows: %s", group)
		}
	}
	want := posture{
		Status: map[string]string{
			"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1",
			"Seccomp": "2", "Seccomp_filters": "1", "SigBlk": none, "SigIgn": none, "TracerPid": "0", "NStgid": got.Status["NStgid"],
		},
		IDs: []int{uid, uid, uid, uid}, Session: "leader", Umask: 0o022,
		Limits:      got.Limits,
		Descriptors: []string{"0", "1", "2"},
		Namespaces:  got.Namespaces, Mounts: got.Mounts,
		Root:        got.Root,
		Dev:         []string{"core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"},
		Environment: []string{"HOME", "LANG", "LOGNAME", "OPENSHELL_SANDBOX", "PATH", "SHELL", "TERM", "TMPDIR", "USER"},
		Hostname:    "run", Dir: p.Workspace,
		Interfaces: []string{
			"lo up|loopback|running [127.0.0.1/8 ::1/128]",
			"eth0 up|broadcast|multicast|running [10.200.0.2/24 fd00:200::2/64]",
		},
		Routes: got.Routes, Terminal: "none", Securebits: 239, Dumpable: 1, Personality: "00000000",
		Cgroup: got.Cgroup, Priority: 20, OOM: got.OOM,
	}
	if got.Limits["core"] != [2]uint64{} {
		t.Errorf("core files: %v", got.Limits["core"])
	}
	if n, _ := strconv.Atoi(got.Status["NStgid"]); n < 2 {
		t.Errorf("process id %q", got.Status["NStgid"])
	}
	for _, name := range got.Root {
		if !slices.Contains([]string{"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "nix", "gnu", "opt", "proc", "run", "sbin", "sys", "tmp", "usr", "var", "home", "root"}, name) {
			t.Errorf("/%s is visible", name)
		}
	}
	for _, r := range got.Routes {
		if f := strings.Fields(r); f[1] != "eth0" && f[1] != "lo" {
			t.Errorf("a route through %s", f[1])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("posture (-want +got):\n%s", diff)
	}
}

// checkMounts allows exactly these, and nothing writable that is not named.
func checkMounts(t *testing.T, p *person.Person, mounts []string, shown string) {
	t.Helper()
	exact := map[string]string{
		"/": "tmpfs ro", "/dev": "tmpfs ro", "/dev/pts": "devpts rw", "/dev/shm": "tmpfs rw", "/proc": "proc rw",
		"/run": "tmpfs rw", "/tmp": "tmpfs rw", p.Home: "tmpfs rw", p.Workspace: "* rw", shown: "* ro",
		"/sys/devices/system/cpu": "sysfs ro",
	}
	for _, device := range []string{"full", "null", "random", "tty", "urandom", "zero"} {
		exact["/dev/"+device] = "* rw"
	}
	// Below these only read-only mounts may stand: they take something away.
	shrinking := []string{"/proc", "/etc", "/usr", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/gnu", "/var/lib/ca-certificates", "/run/current-system", p.Workspace}
	for _, line := range mounts {
		f := strings.Fields(line)
		at, kind, options := f[0], f[1], strings.Split(f[2], ",")
		if len(f) > 3 {
			t.Errorf("%s is shared with the host: %v", at, f[3:])
		}
		if !slices.Contains(options, "nosuid") {
			t.Errorf("%s honours set-id files: %s", at, line)
		}
		if !slices.Contains(options, "nodev") && !strings.HasPrefix(at, "/dev/") {
			t.Errorf("%s honours devices: %s", at, line)
		}
		if want, ok := exact[at]; ok {
			wantKind, wantMode, _ := strings.Cut(want, " ")
			if wantKind != "*" && wantKind != kind || options[0] != wantMode {
				t.Errorf("%s: got %s, want %s", at, line, want)
			}
			continue
		}
		below := slices.ContainsFunc(shrinking, func(dir string) bool { return at == dir || strings.HasPrefix(at, dir+"/") })
		if !below || options[0] != "ro" {
			t.Errorf("not expected: %s", line)
		}
	}
}
