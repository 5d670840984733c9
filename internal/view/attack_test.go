package view

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/kerneltest"
)

// Somebody with write access to the workspace (another sandbox) swaps the
// protected directory with a link to a directory of the host, all the time,
// while a sandbox starts. It may fail to start; it must never protect, create
// or remove anything at the link's end, nor run with the path unprotected.
func TestALinkSwappedInDuringTheStart(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS)
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		work, state := place(t)
		victim := filepath.Dir(work) + "/victim"
		for _, d := range []string{work + "/.git/hooks", victim + "/hooks"} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		write(t, work+"/.git/config", "good")
		write(t, victim+"/config", "victim")
		if err := os.Symlink(victim, work+"/.git.link"); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rand.Int64N(int64(8 * time.Millisecond)))):
					unix.Renameat2(unix.AT_FDCWD, work+"/.git", unix.AT_FDCWD, work+"/.git.link", unix.RENAME_EXCHANGE)
				}
			}
		})
		started, refused := 0, 0
		for range 60 {
			v, err := Build(Spec{ID: "race", State: state, Workdir: work})
			if err != nil {
				refused++
				continue
			}
			cmd := agent(t, v, "/bin/sh", "-c", "for d in .git .git.link; do echo evil > $d/hooks/pre-commit; echo evil > $d/config; done; echo ran")
			out, _ := cmd.Output()
			if strings.Contains(string(out), "ran") {
				started++
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
			if got := tree(t, victim) + read(t, victim+"/config"); got != "config\nhooks\nvictim" {
				t.Fatalf("the link's end was touched: %q", got)
			}
		}
		close(stop)
		wg.Wait()
		t.Logf("started %d, refused %d", started, refused)
	})
}

// Handles name files past every mount on the way; the kernel must ask for more
// than the sandbox has.
func TestFileHandlesDoNotPassTheMount(t *testing.T) {
	if _, err := exec.LookPath("/usr/bin/python3"); err != nil {
		t.Skip("needs /usr/bin/python3")
	}
	const script = `
import ctypes, os
l = ctypes.CDLL(None, use_errno=True)
h = ctypes.create_string_buffer(136)
ctypes.c_uint.from_buffer(h).value = 128
m = ctypes.c_int()
if l.name_to_handle_at(-100, b".git/config", h, ctypes.byref(m), 0) != 0:
    print("no handle", ctypes.get_errno())
else:
    fd = l.open_by_handle_at(os.open(".", os.O_RDONLY), h, os.O_WRONLY)
    print("opened" if fd >= 0 else "refused")
    if fd >= 0: os.write(fd, b"evil")
`
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		repo(t, work)
		write(t, work+"/try.py", script)
		config := read(t, work+"/.git/config")
		v := build(t, Spec{State: state, Workdir: work})
		got := sh(t, v, "/usr/bin/python3 try.py; unshare -Urm /usr/bin/python3 try.py")
		if strings.Contains(got, "opened") || read(t, work+"/.git/config") != config {
			t.Errorf("%s", got)
		}
		if !strings.Contains(got, "refused") {
			t.Errorf("nothing was tried: %s", got)
		}
	})
}

// Whatever can be written in the view lies in one of the places meant for it.
func TestNothingElseIsWritable(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		repo(t, work)
		v := build(t, Spec{State: state, Workdir: work, Home: "/home/ann"})
		got := sh(t, v, `find / -maxdepth 4 \( -path '/proc/[0-9]*' -o -path /proc/self -o -path /proc/thread-self \) -prune -o -writable ! -type l -print 2>/dev/null; find /proc/sys /proc/irq /proc/bus /proc/fs /sys -writable ! -type l 2>/dev/null`)
		for line := range strings.Lines(got) {
			line = strings.TrimSuffix(line, "\n")
			ok := false
			for _, place := range []string{"/tmp", "/run", "/home/ann", "/dev/shm", "/dev/pts", work} {
				if _, in := below(place, line); in {
					ok = true
				}
			}
			switch line {
			case "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty":
				ok = true // devices do not mind a read-only mount
			}
			if !ok {
				t.Errorf("%s can be written", line)
			}
		}
		if !strings.Contains(got, "/home/ann\n") {
			t.Errorf("find found nothing: %s", got)
		}
	})
}

// Of the host's /proc, only what is listed here can be read.
func TestProcShowsOnlyWhatProgramsNeed(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		_, state := place(t)
		v := build(t, Spec{State: state, Home: "/home/ann"})
		got := sh(t, v, `cd /proc; for f in *; do [ -f $f ] && [ ! -L $f ] && head -c 1 $f >/dev/null 2>&1 && echo $f; done; echo; cat keys kcore kallsyms kmsg timer_list cmdline config.gz 2>&1 | grep -v -e denied -e 'No such'; ls acpi scsi 2>/dev/null | grep -v : ; echo 1 > sysrq-trigger; echo x > sys/kernel/hostname; echo 1 > sys/vm/drop_caches`)
		files, rest, _ := strings.Cut(got, "\n\n")
		known := " buddyinfo cgroups consoles cpuinfo crypto devices diskstats dma execdomains fb filesystems interrupts loadavg mdstat meminfo misc partitions softirqs stat swaps uptime version version_signature vmstat zoneinfo mtrr allocinfo bootconfig schedstat lockdep "
		for _, f := range strings.Fields(files) {
			if !strings.Contains(known, " "+f+" ") {
				t.Errorf("/proc/%s can be read", f)
			}
		}
		for _, f := range []string{"cpuinfo", "meminfo", "stat", "loadavg", "uptime", "version", "filesystems"} {
			if !strings.Contains("\n"+files+"\n", "\n"+f+"\n") {
				t.Errorf("/proc/%s cannot be read", f)
			}
		}
		for line := range strings.Lines(rest) {
			if s := strings.TrimSpace(line); s != "" && !strings.HasPrefix(s, "/bin/sh: ") {
				t.Errorf("left open: %s", s)
			}
		}
	})
}

func TestWorktreesModulesAndConfiguredHooks(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		repo(t, work)
		for _, f := range []string{"HEAD", "config", "hooks/x"} {
			write(t, work+"/.git/modules/lib/a/"+f, "old")
		}
		write(t, work+"/.husky/_/pre-commit", "old")
		write(t, work+"/tree/.git", "gitdir: "+work+"/.git/worktrees/tree\n")
		config := exec.Command("sh", "-c", "git config core.hooksPath .husky/_; git config include.path ../team.conf; git config extensions.worktreeConfig true")
		config.Dir = work
		config.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
		if out, err := config.CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		write(t, work+"/team.conf", "old")
		v := build(t, Spec{State: state, Workdir: work})
		files := []string{".git/modules/lib/a/config", ".git/modules/lib/a/hooks/x", ".husky/_/pre-commit", "team.conf"}
		out := sh(t, v, "for f in "+strings.Join(files, " ")+" .git/config.worktree; do (echo evil > $f); mv $(dirname $f) q; rm -f $f; done; mv .git/modules m; mv .husky h; ls .git/config.worktree")
		for _, f := range files {
			if got := read(t, work+"/"+f); got != "old" {
				t.Errorf("%s = %q: %s", f, got, out)
			}
		}
		if got := read(t, work+"/.git/config.worktree"); got != "" {
			t.Errorf("config.worktree = %q", got)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		w := build(t, Spec{ID: "tree", State: state, Workdir: work + "/tree"})
		if len(w.Notes) != 1 || !strings.HasSuffix(w.Notes[0], "--rw "+work+"/.git") {
			t.Errorf("Notes = %q", w.Notes)
		}
		sh(t, w, "(echo evil > .git); rm .git; mv .git g")
		if got := read(t, work+"/tree/.git"); !strings.HasPrefix(got, "gitdir: ") {
			t.Errorf(".git = %q", got)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		// The repository named beside the worktree keeps its protections.
		x := build(t, Spec{ID: "both", State: state, Workdir: work + "/tree", ReadWrite: []string{work + "/.git"}})
		if len(x.Notes) != 0 {
			t.Errorf("Notes = %q", x.Notes)
		}
		before := read(t, work+"/.git/config")
		sh(t, x, "cd "+work+"/.git; (echo evil > config); (echo evil > hooks/pre-push); mv hooks h; touch ok")
		if got := read(t, work+"/.git/config"); got != before {
			t.Errorf("config = %q", got)
		}
		if _, err := os.Stat(work + "/.git/hooks/pre-push"); err == nil {
			t.Error("a hook was planted")
		}
		if _, err := os.Stat(work + "/.git/ok"); err != nil {
			t.Error("the repository is not writable")
		}
	})
}
