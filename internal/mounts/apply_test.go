package mounts

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/kerneltest"
)

// inNamespaces runs body as pid 1 of fresh namespaces, as an account without
// privileges. body may pivot: the process has nothing else to do.
func inNamespaces(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	kerneltest.Require(t, kerneltest.UserNS)
	kerneltest.Child{Ordinary: true, InsideID: 1000, Ambient: true,
		Clone: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC}.Run(t, func(t *testing.T) {
		// What the body leaves behind after a pivot goes with the namespace.
		if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777"); err != nil {
			t.Fatal(err)
		}
		body(t)
	})
}

func root(ops ...Op) Plan {
	return append(Plan{{Kind: Tmpfs, Target: "/", Size: 1 << 20, Mode: 0o755}}, ops...)
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestEveryOperationDoesWhatItSays(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		src := t.TempDir()
		mustWrite(t, src+"/ro/f", "f")
		mustWrite(t, src+"/rw/keep/f", "f")
		mustWrite(t, src+"/rw/secret", "s")
		mustWrite(t, src+"/one", "1")
		report, err := Apply(root(
			Op{Kind: Bind, Source: src + "/ro", Target: "/a/ro", Flags: ReadOnly},
			Op{Kind: Bind, Source: src + "/rw", Target: "/a/rw", Flags: NoFollow},
			Op{Kind: Bind, Source: src + "/one", Target: "/a/one", Flags: ReadOnly},
			Op{Kind: Bind, Source: src + "/none", Target: "/a/none", Flags: Optional},
			Op{Kind: Pin, Target: "/a/rw/keep", Flags: ReadOnly},
			Op{Kind: Mask, Target: "/a/rw/secret"},
			Op{Kind: Mask, Target: "/a/rw/absent", Flags: IfThere},
			Op{Kind: Dir, Target: "/d/e", Mode: 0o700},
			Op{Kind: File, Target: "/d/f", Mode: 0o640, Data: []byte("text")},
			Op{Kind: File, Target: "/a/ro/f", Flags: Cover, Mode: 0o644, Data: []byte("covered")},
			Op{Kind: Symlink, Source: "d/f", Target: "/l"},
			Op{Kind: Tmpfs, Target: "/t", Size: 64 << 10, Mode: 0o1777},
			Op{Kind: Proc, Target: "/proc"},
			Op{Kind: Tmpfs, Target: "/dev", Size: 64 << 10},
			Op{Kind: Bind, Source: "/dev/null", Target: "/dev/null", Flags: Device},
			Op{Kind: Devpts, Target: "/dev/pts"},
			Op{Kind: Seal, Target: "/dev"},
			Op{Kind: Seal, Target: "/"},
		), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Skipped) != 1 || !errors.Is(report.Skipped[0], unix.ENOENT) || report.Skipped[0].Op.Target != "/a/none" {
			t.Errorf("skipped %v", report.Skipped)
		}
		for path, want := range map[string]string{"/a/ro/f": "covered", "/a/rw/keep/f": "f", "/a/one": "1", "/d/f": "text", "/l": "text"} {
			if got, err := os.ReadFile(path); string(got) != want {
				t.Errorf("%s = %q, %v", path, got, err)
			}
		}
		rofs := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: %v, want EROFS", what, err)
			}
		}
		rofs("write to ro", os.WriteFile("/a/ro/g", nil, 0o600))
		rofs("write to kept", os.WriteFile("/a/rw/keep/f", nil, 0o600))
		rofs("write to the root", os.WriteFile("/x", nil, 0o600))
		rofs("write to dev", os.WriteFile("/dev/x", nil, 0o600))
		rofs("mode of what is read-only", os.Chmod("/a/one", 0o777))
		if err := os.WriteFile("/a/rw/new", []byte("n"), 0o600); err != nil {
			t.Error(err)
		}
		if err := os.Rename("/a/rw/keep", "/a/rw/k2"); !errors.Is(err, unix.EBUSY) {
			t.Errorf("rename of a mount point: %v", err)
		}
		if err := os.WriteFile("/dev/null", []byte("x"), 0); err != nil {
			t.Errorf("/dev/null: %v", err)
		}
		if err := os.WriteFile("/t/big", make([]byte, 128<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("the tmpfs is not bounded: %v", err)
		}
		if info, err := os.Stat("/d/e"); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("/d/e: %v %v", info, err)
		}
		if got, err := os.Readlink("/proc/self"); got != "1" {
			t.Errorf("/proc/self = %q %v", got, err)
		}
		if n, err := unix.Openat(unix.AT_FDCWD, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0); err != nil {
			t.Errorf("no terminal can be made: %v", err)
		} else {
			unix.Close(n)
		}
		var st unix.Stat_t
		if err := unix.Stat("/a/rw/secret", &st); err != nil || st.Size != 0 || st.Mode&0o777 != 0 {
			t.Errorf("hidden file: %v, size %d, mode %o", err, st.Size, st.Mode)
		}
		// The host has gone: every mount is one of the plan.
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(mounts)) {
			f := strings.Fields(line)
			switch f[4] {
			case "/", "/a/ro", "/a/rw", "/a/one", "/a/rw/keep", "/a/rw/secret", "/a/ro/f", "/t", "/proc", "/dev", "/dev/null", "/dev/pts":
			default:
				t.Errorf("unexpected mount %s", line)
			}
			if !strings.Contains(f[5], "nosuid") || strings.Contains(line, "shared:") || strings.Contains(line, "master:") {
				t.Errorf("weak mount %s", line)
			}
		}
		if fds, err := os.ReadDir("/proc/self/fd"); err != nil {
			t.Error(err)
		} else {
			for _, fd := range fds {
				if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(to, "/a/") || to == "/" {
					t.Errorf("descriptor %s is left open on %s", fd.Name(), to)
				}
			}
		}
	})
}

func TestAFailureNamesTheOperation(t *testing.T) {
	for _, c := range []struct {
		name string
		op   Op
		err  error
		text string
	}{
		{"missing_source", Op{Kind: Bind, Source: "/none/such", Target: "/a"}, unix.ENOENT, `bind "/a" from "/none/such"`},
		{"link_in_the_source", Op{Kind: Bind, Source: "/proc/self/root", Target: "/a"}, unix.ELOOP, `"/proc/self/root"`},
		{"device_not_asked_for", Op{Kind: Bind, Source: "/dev/null", Target: "/a"}, nil, "is a device"},
		{"not_a_device", Op{Kind: Bind, Source: "/usr", Target: "/a", Flags: Device}, nil, "is not a device"},
		{"missing_target", Op{Kind: Pin, Target: "/a"}, unix.ENOENT, `pin "/a"`},
		{"made_on_the_host", Op{Kind: Dir, Target: "/host/new"}, unix.ENOENT, "belongs to the host"},
		{"file_on_the_host", Op{Kind: File, Target: "/host/new"}, unix.ENOENT, "belongs to the host"},
		{"link_on_the_host", Op{Kind: Symlink, Source: "x", Target: "/host/new"}, unix.ENOENT, "belongs to the host"},
		{"target_through_a_link", Op{Kind: Pin, Target: "/link/d"}, unix.ELOOP, `"/link/d"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			inNamespaces(t, func(t *testing.T) {
				host := t.TempDir()
				if err := os.Mkdir(host+"/d", 0o755); err != nil {
					t.Fatal(err)
				}
				_, err := Apply(root(
					Op{Kind: Bind, Source: host, Target: "/host"},
					Op{Kind: Symlink, Source: "host", Target: "/link"},
					c.op), Options{})
				if err == nil {
					t.Fatal("accepted")
				}
				if c.err != nil && !errors.Is(err, c.err) {
					t.Errorf("%v is not %v", err, c.err)
				}
				if !strings.Contains(err.Error(), c.text) {
					t.Errorf("%q does not say %q", err, c.text)
				}
			})
		})
	}
}

func TestTheStageMayHoldTheSources(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		src := t.TempDir()
		mustWrite(t, src+"/f", "f")
		if _, err := Apply(root(Op{Kind: Bind, Source: src, Target: "/a"}), Options{Stage: src}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile("/a/f"); string(got) != "f" {
			t.Errorf("%q %v", got, err)
		}
	})
}
