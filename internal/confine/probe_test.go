package confine

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/internal/landlock"
	"openshell.dev/openshell/internal/privs"
	"openshell.dev/openshell/internal/seccomp"
)

// loopback brings up lo in the child's own namespace.
func loopback(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	mustWork(t, err)
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	mustWork(t, err)
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	mustWork(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr))
}

// listener returns the address of a TCP listener with the shortest queue.
func listener(t *testing.T) *unix.SockaddrInet4 {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	mustWork(t, err)
	mustWork(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	mustWork(t, unix.Listen(fd, 0))
	sa, err := unix.Getsockname(fd)
	mustWork(t, err)
	return sa.(*unix.SockaddrInet4)
}

func TestProbes(t *testing.T) {
	kerneltest.Require(t, needs...)
	launcher(1000).Run(t, func(t *testing.T) {
		loopback(t)
		open, deaf := listener(t), listener(t)
		for range 2 { // fill the queue: the next one gets no answer
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			mustWork(t, err)
			if err := unix.Connect(fd, deaf); err != nil && err != unix.EINPROGRESS {
				t.Fatal(err)
			}
		}
		shut := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 1}
		mustWork(t, unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "mode=0777"))
		mustWork(t, unix.Mkfifo("/tmp/fifo", 0o600))
		for _, tt := range []struct {
			name string
			p    Probe
			want error
		}{
			{"an open port", Probe{Act: Connect, Address: open}, nil},
			{"a shut port", Probe{Act: Connect, Address: shut}, unix.ECONNREFUSED},
			{"a silent port", Probe{Act: Connect, Address: deaf, Patience: 5 * time.Millisecond}, ErrSilence},
			{"no route", Probe{Act: Connect, Address: &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 1}}, unix.ENETUNREACH},
			{"no route for IPv6", Probe{Act: Send, Address: &unix.SockaddrInet6{Addr: [16]byte{0x20, 1, 0xd, 0xb8, 15: 1}, Port: 1}}, unix.ENETUNREACH},
			{"a datagram", Probe{Act: Send, Address: shut}, nil},
			{"a file", Probe{Act: Create, Path: "/tmp/x"}, nil},
			{"the file is gone", Probe{Act: OpenRead, Path: "/tmp/x"}, unix.ENOENT},
			{"a fifo without writer", Probe{Act: OpenRead, Path: "/tmp/fifo"}, nil},
			{"a fifo without reader", Probe{Act: OpenWrite, Path: "/tmp/fifo"}, unix.ENXIO},
		} {
			if err := tt.p.try(); !errors.Is(err, tt.want) {
				t.Errorf("%s = %v, want %v", tt.name, err, tt.want)
			}
		}
		for _, p := range []Probe{{Name: "nothing"}, {Act: Connect}, {Act: Send}} {
			var s state
			if s.add("x", nil, p.try()); s.report.Checks[0].OK {
				t.Errorf("%+v passed", p)
			}
			if s.add("x", []syscall.Errno{unix.EPERM, unix.EACCES}, p.try()); s.report.Checks[1].OK {
				t.Errorf("%+v passed for a refusal", p)
			}
		}
	})
}

func TestAStepThatCannotBeTakenStops(t *testing.T) {
	kerneltest.Require(t, needs...)
	bad := 0o7777
	for name, tt := range map[string]struct {
		step   string
		change func(*Spec)
		text   string
	}{
		"a path is missing": {"landlock", func(s *Spec) {
			s.Landlock.Paths = append(s.Landlock.Paths, landlock.Rule{Path: "/nowhere", Access: landlock.Read})
		}, "/nowhere (path does not exist)"},
		"no path":        {"landlock", func(s *Spec) { s.Landlock.Paths = nil }, "no path"},
		"a wrong umask":  {"umask", func(s *Spec) { s.Umask = &bad }, "umask"},
		"a wrong limit":  {"limits", func(s *Spec) { s.Limits = []privs.Limit{{Resource: 99}} }, "limit 99"},
		"a wrong filter": {"seccomp", func(s *Spec) { s.Filter.Rules = []seccomp.Rule{{Call: "read"}} }, "assemble"},
		"an empty filter": {"confirmation", func(s *Spec) {
			s.Filter = seccomp.Default()
			s.Filter.Rules = s.Filter.Rules[:1]
		}, "the wall does not hold"},
	} {
		t.Run(name, func(t *testing.T) {
			launcher(1000).Run(t, func(t *testing.T) {
				spec, _, _ := prepare(t)
				tt.change(&spec)
				rep, err := Thread(spec)
				step, ok := errors.AsType[*StepError](err)
				if !ok || step.Step != tt.step || !strings.Contains(err.Error(), tt.text) {
					t.Fatalf("error = %v", err)
				}
				for i, d := range rep.Done {
					if d.Name != steps[i].Name || d.Name == tt.step {
						t.Errorf("done: %+v", rep.Done)
					}
				}
			})
		})
	}
}

// The other doors: id 0 inside, and real root without a user namespace.
func TestTheSameWallsForEveryID(t *testing.T) {
	kerneltest.Require(t, needs...)
	t.Run("id 0 inside", func(t *testing.T) { launcher(0).Run(t, wallsHold) })
	t.Run("root without a user namespace", func(t *testing.T) {
		kerneltest.Require(t, kerneltest.Root)
		kerneltest.Child{Clone: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC}.Run(t, wallsHold)
	})
}

func wallsHold(t *testing.T) {
	spec, work, _ := prepare(t)
	rep, err := Thread(spec)
	mustWork(t, err)
	if rep.Instructions == 0 || !rep.Landlock.Files || len(rep.Failed()) != 0 || len(rep.Checks) < len(attempts) {
		t.Errorf("report %+v", rep)
	}
	out, ws := start(t, "/bin/cat", "/proc/self/status")
	st, err := privs.ParseStatus([]byte(out))
	if err != nil || ws.ExitStatus() != 0 {
		t.Fatalf("cat: %v %v %q", ws, err, out)
	}
	if st.CapInh|st.CapPrm|st.CapEff|st.CapBnd|st.CapAmb != 0 || !st.NoNewPrivs || st.Seccomp != 2 || st.SigIgn != 0 || st.SigBlk != 0 || len(st.Groups) != len(ownGroups(t)) {
		t.Errorf("the program has %+v", st)
	}
	for name, script := range map[string]string{
		"write to the system":        "! touch /usr/x",
		"write in the workspace":     "touch " + work + "/x",
		"read the launcher's memory": "! cat /proc/1/mem",
		"see the launcher":           "! cat /proc/1/environ",
	} {
		if out, ws := start(t, "/bin/sh", "-c", script); ws.ExitStatus() != 0 {
			t.Errorf("%s: %d %q", name, ws.ExitStatus(), out)
		}
	}
}

// ownGroups are the groups that this process has: the walls change no ids.
func ownGroups(t *testing.T) []int {
	t.Helper()
	g, err := os.Getgroups()
	mustWork(t, err)
	return g
}

// A program with a terminal of its own is started the same way.
func TestAProgramWithATerminal(t *testing.T) {
	kerneltest.Require(t, needs...)
	launcher(1000).Run(t, func(t *testing.T) {
		spec, _, _ := prepare(t)
		mustWork(t, os.Mkdir("/tmp/pts", 0o755))
		mustWork(t, unix.Mount("devpts", "/tmp/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620"))
		spec.Landlock.Paths = append(spec.Landlock.Paths, landlock.Rule{Path: "/tmp/pts", Access: landlock.List | landlock.Read | landlock.Write | landlock.Device})
		_, err := Thread(spec)
		mustWork(t, err)
		master, err := unix.Open("/tmp/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		mustWork(t, err)
		mustWork(t, unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0))
		slave, err := unix.Open("/tmp/pts/0", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		mustWork(t, err)
		mustWork(t, unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: 5, Col: 6}))
		pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "stty size; set -m; sleep 0 & wait; exit 9"}, &syscall.ProcAttr{
			Dir: "/tmp/work", Env: []string{"PATH=/usr/bin:/bin"}, Files: []uintptr{uintptr(slave), uintptr(slave), uintptr(slave)},
			Sys: &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}})
		mustWork(t, err)
		var ws syscall.WaitStatus
		_, err = syscall.Wait4(pid, &ws, 0, nil)
		mustWork(t, err)
		buf := make([]byte, 4096)
		n, err := unix.Read(master, buf)
		if err != nil || ws.ExitStatus() != 9 || !strings.Contains(string(buf[:n]), "5 6") {
			t.Errorf("the program ended with %d and said %q (%v)", ws.ExitStatus(), buf[:max(n, 0)], err)
		}
		// Typing into a real terminal, not only a wrong descriptor.
		for _, request := range []uint{unix.TIOCSTI, unix.TIOCSTI | 1<<32, unix.TIOCLINUX | 1<<63} {
			if err := unix.IoctlSetPointerInt(slave, request, 'x'); err != unix.EPERM {
				t.Errorf("ioctl %#x = %v, want EPERM", request, err)
			}
		}
	})
}
