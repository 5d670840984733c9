package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"openshell.dev/openshell/internal/fault"
)

func TestQuantities(t *testing.T) {
	parse := map[string]func(string) (int64, error){"memory": ParseMemory, "cpu": ParseCPU, "pids": ParsePids}
	for _, c := range []struct {
		what, in string
		want     int64 // 0: refused
	}{
		{"memory", "4Gi", 4 << 30}, {"memory", "4GiB", 4 << 30}, {"memory", "512M", 512 << 20}, {"memory", "512m", 512 << 20},
		{"memory", "1.5g", 3 << 29}, {"memory", "16777216", 16 << 20}, {"memory", "16777216B", 16 << 20}, {"memory", "17000Ki", 17000 << 10},
		{"memory", "16777215", 0}, {"memory", "0", 0}, {"memory", "-1Gi", 0}, {"memory", "", 0}, {"memory", "Gi", 0}, {"memory", "4 Gi", 0},
		{"memory", "4gi", 0}, {"memory", "4GGi", 0}, {"memory", "0x10000000", 0}, {"memory", "1e9", 0}, {"memory", "1_000_000_000", 0},
		{"memory", "99999999999999999999Gi", 0}, {"memory", "1.2.3Gi", 0}, {"memory", ".5Gi", 0}, {"memory", "5.Gi", 0}, {"memory", "1/2Gi", 0},
		{"memory", "inf", 0}, {"memory", "1025Ti", 0}, {"memory", "1024Ti", 1 << 50},
		{"cpu", "2", 2000}, {"cpu", "1.5", 1500}, {"cpu", "500m", 500}, {"cpu", "0.01", 10}, {"cpu", "10m", 10},
		{"cpu", "9m", 0}, {"cpu", "0", 0}, {"cpu", "-1", 0}, {"cpu", "two", 0}, {"cpu", "1.5m5", 0}, {"cpu", "1e3", 0}, {"cpu", "9999999", 0},
		{"pids", "2048", 2048}, {"pids", "4", 4}, {"pids", "3", 0}, {"pids", "10.0", 0}, {"pids", "4194305", 0}, {"pids", "max", 0},
	} {
		got, err := parse[c.what](c.in)
		if got != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%s %q = %d, %v, want %d", c.what, c.in, got, err, c.want)
		}
		if err != nil && fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%s %q: kind %v", c.what, c.in, fault.KindOf(err))
		}
	}
}

// Property: what is accepted is within bounds and prints as an amount that
// does not grow when it is read again.
func FuzzParseMemory(f *testing.F) {
	for _, s := range []string{"4Gi", "512M", "1.5g", "99999999999", "1.1.1", "KiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseMemory(s)
		if err != nil {
			return
		}
		if n < minMemory || n > maxMemory {
			t.Fatalf("%q = %d", s, n)
		}
		if FormatMemory(n) == "" {
			t.Fatalf("%d has no words", n)
		}
	})
}

// hosts describes machines by the two files we read.
func TestOwnGroupsAreFound(t *testing.T) {
	for name, c := range map[string]struct{ mountinfo, cgroup, v2, memory string }{
		"unified":   {"30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/user.slice/x.scope\n", "/sys/fs/cgroup/user.slice/x.scope", ""},
		"in a leaf": {"30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/x.scope/openshell-outside\n", "/sys/fs/cgroup/x.scope", ""},
		"legacy":    {"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "4:memory:/job\n", "", "/sys/fs/cgroup/memory/job"},
		"hybrid":    {"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", "4:memory:/\n0::/\n", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"},
		"container": {"30 1 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup ro\n", "0::/docker/abc\n", "/sys/fs/cgroup", ""},
		"spaces":    {"30 1 0:26 / /sys/fs/cg\\040x rw - cgroup2 c rw\n", "0::/a\n", "/sys/fs/cg x/a", ""},
		"joined":    {"35 31 0:32 / /c/cpu,memory rw shared:9 - cgroup cgroup rw,cpu,memory\n", "4:cpu,memory:/j\n", "", "/c/cpu,memory/j"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "proc/self")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{"mountinfo": c.mountinfo, "cgroup": c.cgroup} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			h := newHost(root)
			if err := h.read(); err != nil {
				t.Fatal(err)
			}
			abs := func(p string) string {
				if p == "" {
					return ""
				}
				return filepath.Join(root, p)
			}
			if h.v2 != abs(c.v2) || h.v1["memory"] != abs(c.memory) {
				t.Errorf("v2 %q, memory %q", h.v2, h.v1["memory"])
			}
		})
	}
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	root := t.TempDir()
	own := filepath.Join(root, "sys/fs/cgroup/x.scope")
	for _, d := range []string{filepath.Join(root, "proc/self"), own} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{
		"proc/self/mountinfo":                          "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"proc/self/cgroup":                             "0::/x.scope\n",
		"sys/fs/cgroup/x.scope/cgroup.controllers":     "memory pids\n",
		"sys/fs/cgroup/x.scope/cgroup.subtree_control": "\n",
	} {
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := newHost(root).create("x", Limits{MilliCPU: 1000})
	want := `limits cannot be set: the controller "cpu", which --cpu needs, is not delegated to this session (cgroup ` + own + ` has: memory pids)`
	if err == nil || err.Error() != want || fault.HintOf(err) != delegateHint || fault.KindOf(err) != fault.Unsupported {
		t.Errorf("got %v (%s)\nwant %s", err, fault.HintOf(err), want)
	}
	if _, err := newHost(t.TempDir()).create("x", Limits{Pids: 10}); fault.KindOf(err) != fault.Unsupported {
		t.Errorf("without any /proc: %v", err)
	}
}
