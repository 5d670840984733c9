package confine

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/internal/landlock"
	"openshell.dev/openshell/internal/privs"
)

// launcher is a child in the place of the launcher: pid 1, all capabilities in
// its own namespaces, none outside.
func launcher(id int) kerneltest.Child {
	return kerneltest.Child{Ordinary: true, InsideID: id, Ambient: true,
		Clone: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
}

var needs = []kerneltest.Need{kerneltest.UserNS, kerneltest.NetAdmin, kerneltest.Landlock, kerneltest.Seccomp}

func mustWork(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// prepare does what a launcher does before Thread, and returns a specification
// with a writable directory, a shut one, and what programs need.
func prepare(t *testing.T) (spec Spec, work, shut string) {
	t.Helper()
	mustWork(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	mustWork(t, unix.Mount("proc", "/proc", "proc", 0, "hidepid=4"))
	mustWork(t, privs.Undumpable())
	_, err := privs.ShieldFromSignals()
	mustWork(t, err)
	mustWork(t, unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "mode=0777")) // of this namespace: nothing to clean up
	work, shut = "/tmp/work", "/tmp/shut"
	mustWork(t, os.Mkdir(work, 0o755))
	mustWork(t, os.Mkdir(shut, 0o755))
	mustWork(t, os.WriteFile(filepath.Join(shut, "secret"), []byte("s"), 0o644))
	spec.Landlock.Paths = []landlock.Rule{{Path: "/", Access: landlock.List}, {Path: work, Access: landlock.ReadWrite}}
	for _, p := range []string{"/usr", "/bin", "/lib", "/lib64", "/etc", "/proc"} {
		if _, err := os.Stat(p); err == nil {
			spec.Landlock.Paths = append(spec.Landlock.Paths, landlock.Rule{Path: p, Access: landlock.ReadExec, Follow: true})
		}
	}
	spec.Landlock.Paths = append(spec.Landlock.Paths, landlock.Rule{Path: "/dev/null", Access: landlock.ReadWrite})
	spec.Probes = []Probe{
		{Name: "the workspace", Act: OpenRead, Path: work},
		{Name: "a new file in the workspace", Act: Create, Path: filepath.Join(work, "new")},
		{Name: "a file outside", Act: OpenRead, Path: filepath.Join(shut, "secret"), Want: []syscall.Errno{unix.EACCES}},
		{Name: "a TCP connection out", Act: Connect, Address: &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 9}, Want: []syscall.Errno{unix.ENETUNREACH}},
		{Name: "a datagram out", Act: Send, Address: &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 9}, Want: []syscall.Errno{unix.ENETUNREACH}},
	}
	return spec, work, shut
}

// start runs a program as the launcher does: forked from the confined thread.
func start(t *testing.T, argv ...string) (string, syscall.WaitStatus) {
	t.Helper()
	r, w, err := os.Pipe()
	mustWork(t, err)
	defer r.Close()
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	mustWork(t, err)
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Env: []string{"PATH=/usr/bin:/bin"}, Files: []uintptr{uintptr(null), w.Fd(), w.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	mustWork(t, err)
	w.Close()
	var out strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			break
		}
	}
	var ws syscall.WaitStatus
	_, err = syscall.Wait4(pid, &ws, 0, nil)
	mustWork(t, err)
	return out.String(), ws
}

func TestAProgramStartsBehindAllWalls(t *testing.T) {
	kerneltest.Require(t, needs...)
	launcher(1000).Run(t, func(t *testing.T) {
		spec, work, shut := prepare(t)
		rep, err := Thread(spec)
		mustWork(t, err)
		if got, want := len(rep.Done), len(Steps()); got != want {
			t.Errorf("%d steps done, want %d", got, want)
		}
		for _, d := range rep.Done {
			t.Logf("%-20s %v", d.Name, d.Took)
		}
		for _, c := range rep.Checks {
			t.Logf("%-28s want %-16s got %s", c.Name, c.Want, c.Got)
		}
		out, ws := start(t, "/bin/cat", "/proc/self/status")
		if ws.ExitStatus() != 0 {
			t.Fatalf("cat: %d: %s", ws.ExitStatus(), out)
		}
		st, err := privs.ParseStatus([]byte(out))
		mustWork(t, err)
		if st.CapInh|st.CapPrm|st.CapEff|st.CapBnd|st.CapAmb != 0 || !st.NoNewPrivs || st.Seccomp != 2 || st.SigIgn != 0 || st.Umask != 0o022 {
			t.Errorf("the program has %+v", st)
		}
		if out, _ := start(t, "/bin/ls", "/proc/self/fd"); out != "0\n1\n2\n3\n" { // 3 is ls's own
			t.Errorf("descriptors of the program: %q", out)
		}
		if out, ws := start(t, "/bin/ls", "/"); ws.ExitStatus() != 0 || !strings.Contains(out, "usr") {
			t.Errorf("ls /: %d %q", ws.ExitStatus(), out)
		}
		if out, ws := start(t, "/bin/cat", shut+"/secret"); ws.ExitStatus() == 0 {
			t.Errorf("read a file outside: %q", out)
		}
		if out, ws := start(t, "/bin/sh", "-c", "echo x > "+work+"/f && cat "+work+"/f && sh -c 'sleep 9 & kill %1; kill $!' "); ws.ExitStatus() != 0 {
			t.Errorf("work in the workspace: %d %q", ws.ExitStatus(), out)
		}
	})
}

// The launcher must survive what its programs can send it, above all while it
// forks: then Go blocks signals on the forking thread, and the kernel looks for
// another thread to kill.
func TestProgramsCannotEndTheLauncher(t *testing.T) {
	kerneltest.Require(t, needs...)
	for _, tt := range []struct {
		name    string
		filter  bool // with the guard of the filter
		signals string
	}{
		{"all walls", true, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 64"},
		// Only those that the shield is for: a storm of others, above all of
		// queued real-time signals, keeps all threads of a Go process in their
		// handlers for good. That is what the filter's guard is for.
		{"without the filter", false, "1 2 3 4 5 6 7 8 11 15 16 31"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			launcher(1000).Run(t, func(t *testing.T) {
				spec, _, _ := prepare(t)
				if tt.filter {
					_, err := Thread(spec)
					mustWork(t, err)
				}
				// The confined thread is in the programs' own Landlock domain, so
				// it is the softest target: it is tried by its own id too.
				script := "echo go; while :; do for n in " + tt.signals + "; do kill -$n 1; kill -$n " + strconv.Itoa(unix.Gettid()) + "; done; done 2>/dev/null"
				r, w, err := os.Pipe()
				mustWork(t, err)
				pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{
					Env: []string{"PATH=/usr/bin:/bin"}, Files: []uintptr{0, w.Fd(), w.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true}})
				mustWork(t, err)
				_, err = r.Read(make([]byte, 1)) // it runs
				mustWork(t, err)
				for range 300 {
					if out, ws := start(t, "/bin/echo", "alive"); ws.ExitStatus() != 0 || out != "alive\n" {
						t.Fatalf("under attack: %d %q", ws.ExitStatus(), out)
					}
				}
				var ws syscall.WaitStatus
				if got, _ := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil); got != 0 {
					t.Fatalf("the attacker ended itself: %v", ws)
				}
				mustWork(t, unix.Kill(pid, unix.SIGKILL))
			})
		})
	}
}

func TestProgramsOfOneThreadMaySignalEachOther(t *testing.T) {
	kerneltest.Require(t, needs...)
	launcher(0).Run(t, func(t *testing.T) {
		spec, _, _ := prepare(t)
		_, err := Thread(spec)
		mustWork(t, err)
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "60"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
		mustWork(t, err)
		if out, ws := start(t, "/bin/sh", "-c", "kill -TERM "+strconv.Itoa(pid)); ws.ExitStatus() != 0 {
			t.Errorf("kill a sibling: %d %q", ws.ExitStatus(), out)
			mustWork(t, unix.Kill(pid, unix.SIGKILL))
		}
		var ws syscall.WaitStatus
		_, err = syscall.Wait4(pid, &ws, 0, nil)
		mustWork(t, err)
	})
}

func TestAFailedProbeStopsByName(t *testing.T) {
	kerneltest.Require(t, needs...)
	launcher(1000).Run(t, func(t *testing.T) {
		spec, work, _ := prepare(t)
		spec.Probes = append(spec.Probes, Probe{Name: "must be shut", Act: OpenRead, Path: work, Want: []syscall.Errno{unix.EACCES}})
		rep, err := Thread(spec)
		step, ok := errors.AsType[*StepError](err)
		if !ok || step.Step != "confirmation" || !errors.Is(err, ErrCheck) || !strings.Contains(err.Error(), `"must be shut": want EACCES, got allowed`) {
			t.Errorf("error = %v", err)
		}
		if f := rep.Failed(); len(f) != 1 || f[0].Name != "must be shut" {
			t.Errorf("failed checks = %+v", f)
		}
	})
}

func TestEveryStepSaysWhy(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Steps() {
		if s.Name == "" || s.Why == "" || s.Reach == "" || seen[s.Name] {
			t.Errorf("step %+v", s)
		}
		seen[s.Name] = true
	}
}
