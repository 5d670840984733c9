package privs

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.dev/openshell/internal/kerneltest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func threadStatus(t *testing.T) Status {
	t.Helper()
	s, err := ReadStatus("/proc/thread-self/status")
	must(t, err)
	return s
}

// output runs a program and returns what it printed.
func output(t *testing.T, argv ...string) string {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{Files: []uintptr{0, w.Fd(), w.Fd()}})
	must(t, err)
	w.Close()
	buf := make([]byte, 1<<16)
	n := 0
	for {
		m, err := r.Read(buf[n:])
		n += m
		if err != nil {
			break
		}
	}
	_, err = syscall.Wait4(pid, nil, 0, nil)
	must(t, err)
	return string(buf[:n])
}

func TestNoCapabilityIsLeft(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS)
	for _, id := range []int{0, 1000} {
		t.Run(map[int]string{0: "as id 0", 1000: "as another id"}[id], func(t *testing.T) {
			kerneltest.Child{Ordinary: true, Clone: unix.CLONE_NEWUSER, InsideID: id, Ambient: true}.Run(t, func(t *testing.T) {
				before := threadStatus(t)
				if before.CapEff == 0 || before.CapBnd == 0 || before.CapAmb == 0 || before.CapInh == 0 {
					t.Fatalf("the test begins without capabilities: %+v", before)
				}
				if VerifyNoCapabilities() == nil {
					t.Error("full sets were read as empty")
				}
				must(t, DropCapabilities())
				s := threadStatus(t)
				if s.CapInh|s.CapPrm|s.CapEff|s.CapBnd|s.CapAmb != 0 {
					t.Errorf("left: %+v", s)
				}
				if bits, err := Securebits(); err != nil || bits != secureLocked {
					t.Errorf("securebits %#x, %v", bits, err)
				}
				// No way back, not even for id 0 over execve and without
				// no_new_privs.
				child, err := ParseStatus([]byte(output(t, "/usr/bin/cat", "/proc/self/status")))
				must(t, err)
				if child.CapInh|child.CapPrm|child.CapEff|child.CapBnd|child.CapAmb != 0 {
					t.Errorf("a program has %+v", child)
				}
				if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN, 0, 0); err == nil {
					t.Error("an ambient capability came back")
				}
				must(t, DropCapabilities()) // twice is no error
				// The rest of the process keeps its powers.
				got := make(chan Status)
				go func() { s, _ := ReadStatus("/proc/thread-self/status"); got <- s }()
				if s := <-got; s.CapEff == 0 {
					t.Error("another thread lost its capabilities")
				}
			})
		})
	}
}

func TestABoundingSetThatCannotBeEmptiedIsAnError(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		s := threadStatus(t)
		if s.CapBnd == 0 {
			t.Skip("needs a bounding set that is not empty")
		}
		if err := DropCapabilities(); err == nil || !strings.Contains(err.Error(), "bounding set (takes CAP_SETPCAP)") {
			t.Errorf("error = %v", err)
		}
	})
}

func TestNoNewPrivs(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		if threadStatus(t).NoNewPrivs {
			t.Skip("needs a start without no_new_privs")
		}
		if VerifyNoNewPrivs() == nil {
			t.Error("unset was read as set")
		}
		must(t, NoNewPrivs())
		if !threadStatus(t).NoNewPrivs {
			t.Error("not set")
		}
	})
}

func TestLimits(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		var before unix.Rlimit
		must(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &before))
		must(t, SetLimits(DefaultLimits()))
		var core, files unix.Rlimit
		must(t, unix.Prlimit(0, unix.RLIMIT_CORE, nil, &core))
		must(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &files))
		if core.Cur != 0 || core.Max != 0 || files.Cur > 1<<16 || files.Max > before.Max || files.Max > 1<<19 {
			t.Errorf("core %+v, files %+v (before %+v)", core, files, before)
		}
		must(t, SetLimits([]Limit{{unix.RLIMIT_NOFILE, 100, 200}}))
		must(t, SetLimits([]Limit{{unix.RLIMIT_NOFILE, Unlimited, Unlimited}})) // lowered to what may be had
		must(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &files))
		if files.Max != 200 || files.Cur != 200 {
			t.Errorf("files %+v", files)
		}
		// The Go runtime gives a child its own idea of the soft limit unless it
		// knows of the change.
		if got := output(t, "/bin/sh", "-c", "ulimit -Hn; ulimit -Sn; ulimit -c"); got != "200\n200\n0\n" {
			t.Errorf("a program has %q", got)
		}
		if err := SetLimits([]Limit{{unix.RLIMIT_NOFILE, 2, 1}}); err == nil || !strings.Contains(err.Error(), "limit nofile: soft 2 is above hard 1") {
			t.Errorf("error = %v", err)
		}
		if err := SetLimits([]Limit{{99, 1, 1}}); err == nil || !strings.Contains(err.Error(), "limit 99") {
			t.Errorf("error = %v", err)
		}
	})
}

func TestUmaskDumpableAndDescriptors(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		must(t, Umask(0o027))
		if s := threadStatus(t); s.Umask != 0o027 {
			t.Errorf("umask %o", s.Umask)
		}
		if Umask(0o1000) == nil {
			t.Error("a mask beyond file modes was taken")
		}
		open, err := unix.Open("/dev/null", unix.O_RDONLY, 0) // no O_CLOEXEC: what a shell leaves behind
		must(t, err)
		high, err := unix.FcntlInt(uintptr(open), unix.F_DUPFD, 251)
		must(t, err)
		must(t, SealDescriptors(3))
		if got := output(t, "/bin/ls", "/proc/self/fd"); got != "0\n1\n2\n3\n" { // 3 is the directory ls reads
			t.Errorf("a program has descriptors %q", got)
		}
		if _, err := unix.FcntlInt(uintptr(high), unix.F_GETFD, 0); err != nil {
			t.Errorf("the launcher lost its own: %v", err)
		}
		must(t, Undumpable())
		if os.Geteuid() != 0 {
			if _, err := os.ReadFile("/proc/self/environ"); err == nil {
				if fi, err := os.Stat("/proc/self/environ"); err == nil && fi.Sys().(*syscall.Stat_t).Uid != 0 {
					t.Error("the files in /proc are still ours")
				}
			}
		}
	})
}

func TestIgnoredSignalsDoNotReachPrograms(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		before := threadStatus(t)
		inherited, err := ShieldFromSignals()
		must(t, err)
		s := threadStatus(t)
		for _, sig := range fatalSignals {
			if s.SigIgn>>(sig-1)&1 == 0 {
				t.Errorf("%v is not ignored", sig)
			}
			must(t, unix.Kill(os.Getpid(), sig))
		}
		child, err := ParseStatus([]byte(output(t, "/usr/bin/cat", "/proc/self/status")))
		must(t, err)
		if child.SigIgn != before.SigIgn {
			t.Errorf("a program ignores %#x, we were started with %#x", child.SigIgn, before.SigIgn)
		}
		var mask uint64
		for _, sig := range inherited {
			mask |= 1 << (sig - 1)
		}
		if want := before.SigIgn & shieldMask(); mask != want {
			t.Errorf("inherited %#x, want %#x", mask, want)
		}
	})
}

func shieldMask() (m uint64) {
	for _, sig := range fatalSignals {
		m |= 1 << (sig - 1)
	}
	return m
}

func TestTheLauncherUnderNohupSaysSo(t *testing.T) {
	if os.Getenv("PRIVS_NOHUP") == "" {
		exe, err := filepath.EvalSymlinks("/proc/self/exe")
		must(t, err)
		cmd := output(t, "/bin/sh", "-c", "trap '' HUP; PRIVS_NOHUP=1 exec "+exe+" -test.run='^TestTheLauncherUnderNohupSaysSo$' -test.v")
		if !strings.Contains(cmd, "--- PASS") {
			t.Errorf("%s", cmd)
		}
		return
	}
	inherited, err := ShieldFromSignals()
	must(t, err)
	if len(inherited) != 1 || inherited[0] != unix.SIGHUP {
		t.Errorf("inherited %v, want only SIGHUP", inherited)
	}
}

func TestReadStatusOfNobody(t *testing.T) {
	if _, err := ReadStatus("/proc/none/status"); err == nil {
		t.Error("no error")
	}
}
