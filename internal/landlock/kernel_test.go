package landlock

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/internal/privs"
)

// tree makes the files of a test, in a child that may then be restricted. The
// clean-up is the parent's: the child cannot any more.
//
//	d/ro/{file,tool} d/rw/{file,sub/} d/shut/file d/link -> shut
func tree(t *testing.T) string {
	t.Helper()
	d := os.Getenv("LANDLOCK_TEST_DIR")
	if d == "" {
		t.Fatal("no directory was given")
	}
	for _, dir := range []string{"ro", "rw", "rw/sub", "shut"} {
		must(t, os.Mkdir(d+"/"+dir, 0o755))
	}
	for _, f := range []string{"ro/file", "ro/tool", "rw/file", "shut/file"} {
		must(t, os.WriteFile(d+"/"+f, []byte("#!/bin/true\n"), 0o755))
	}
	must(t, os.Symlink("shut", d+"/link"))
	must(t, privs.NoNewPrivs())
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func inTree(t *testing.T, body func(t *testing.T, d string)) {
	t.Helper()
	kerneltest.Require(t, kerneltest.Landlock)
	d := os.Getenv("LANDLOCK_TEST_DIR")
	if d == "" {
		var err error
		d, err = os.MkdirTemp("", "landlock")
		must(t, err)
		defer os.RemoveAll(d)
		must(t, os.Chmod(d, 0o777))
	}
	kerneltest.Child{Ordinary: true, Env: []string{"LANDLOCK_TEST_DIR=" + d}}.Run(t, func(t *testing.T) { body(t, tree(t)) })
}

func open1(path string, flags int) func() error {
	return func() error {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

type try struct {
	name string
	do   func() error
	want error
}

func (x try) check(t *testing.T) {
	t.Helper()
	if err := x.do(); !errors.Is(err, x.want) {
		t.Errorf("%s = %v, want %v", x.name, err, x.want)
	}
}

func TestWhatARulesetAllows(t *testing.T) {
	inTree(t, func(t *testing.T, d string) {
		r, err := Restrict(Ruleset{Paths: []Rule{
			{Path: "/", Access: List},
			{Path: "/usr", Access: ReadExec},
			{Path: d + "/ro", Access: ReadOnly},
			{Path: d + "/rw", Access: ReadWrite},
			{Path: "/dev/null", Access: ReadWrite},
			{Path: "/dev/zero", Access: Read},
		}}, BestEffort)
		must(t, err)
		if !r.Files || r.Applied != 6 || len(r.Skipped) != 0 || r.ABI == 0 || r.Used > Highest {
			t.Fatalf("report %+v", r)
		}
		for _, x := range []try{
			{"list /", open1("/", unix.O_RDONLY|unix.O_DIRECTORY), nil},
			{"list a directory below", open1(d+"/shut", unix.O_RDONLY|unix.O_DIRECTORY), nil},
			{"read outside", open1(d+"/shut/file", unix.O_RDONLY), unix.EACCES},
			{"write outside", open1(d+"/shut/file", unix.O_WRONLY), unix.EACCES},
			{"read over a link", open1(d+"/link/file", unix.O_RDONLY), unix.EACCES},
			{"read over ..", open1(d+"/rw/../shut/file", unix.O_RDONLY), unix.EACCES},
			{"path only outside", open1(d+"/shut/file", unix.O_PATH), nil}, // an O_PATH descriptor gives nothing
			{"read", open1(d+"/ro/file", unix.O_RDONLY), nil},
			{"write read-only", open1(d+"/ro/file", unix.O_WRONLY), unix.EACCES},
			{"append read-only", open1(d+"/ro/file", unix.O_WRONLY|unix.O_APPEND), unix.EACCES},
			{"make in read-only", open1(d+"/ro/new", unix.O_WRONLY|unix.O_CREAT), unix.EACCES},
			{"remove in read-only", func() error { return unix.Unlink(d + "/ro/file") }, unix.EACCES},
			{"execute read-only", func() error { _, err := syscall.ForkExec(d+"/ro/tool", nil, nil); return err }, unix.EACCES},
			{"write", open1(d+"/rw/file", unix.O_RDWR), nil},
			{"make", open1(d+"/rw/new", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL), nil},
			{"a temporary file", open1(d+"/rw", unix.O_WRONLY|unix.O_TMPFILE), nil},
			{"make a directory", func() error { return unix.Mkdir(d+"/rw/dir", 0o700) }, nil},
			{"make a fifo", func() error { return unix.Mkfifo(d+"/rw/fifo", 0o600) }, nil},
			{"rename", func() error { return unix.Rename(d+"/rw/new", d+"/rw/newer") }, nil},
			{"remove", func() error { return unix.Unlink(d + "/rw/newer") }, nil},
			{"link a read-only file into the writable directory", func() error { return unix.Link(d+"/ro/file", d+"/rw/stolen") }, unix.EXDEV},
			{"rename out", func() error { return unix.Rename(d+"/rw/file", d+"/shut/file2") }, unix.EACCES},
			{"rename in", func() error { return unix.Rename(d+"/shut/file", d+"/rw/file2") }, unix.EACCES},
			{"a device", open1("/dev/null", unix.O_RDWR), nil},
			{"a device for reading", open1("/dev/zero", unix.O_RDONLY), nil},
			{"that device for writing", open1("/dev/zero", unix.O_RDWR), unix.EACCES},
			{"another device", open1("/dev/full", unix.O_RDONLY), unix.EACCES},
			{"over /proc/self/root", open1("/proc/self/root"+d+"/shut/file", unix.O_RDONLY), unix.EACCES},
		} {
			x.check(t)
		}
		if r.Used >= 2 {
			try{"rename between directories", func() error { return unix.Rename(d+"/rw/file", d+"/rw/sub/file") }, nil}.check(t)
		}
		if r.Used >= 3 {
			try{"truncate read-only", func() error { return unix.Truncate(d+"/ro/file", 0) }, unix.EACCES}.check(t)
		}
		// A child is bound alike, and may execute what it may.
		pid, err := syscall.ForkExec("/usr/bin/cat", []string{"cat", d + "/shut/file"}, nil)
		must(t, err)
		var ws syscall.WaitStatus
		_, err = syscall.Wait4(pid, &ws, 0, nil)
		must(t, err)
		if ws.ExitStatus() == 0 {
			t.Error("a child read outside")
		}
	})
}

// Each lower ABI must be accepted by this kernel, and deny what it can.
func TestEveryABIUpToTheKernels(t *testing.T) {
	kerneltest.Require(t, kerneltest.Landlock)
	have, err := Probe()
	must(t, err)
	for abi := 1; abi <= min(have, Highest); abi++ {
		t.Run(string(rune('0'+abi)), func(t *testing.T) {
			inTree(t, func(t *testing.T, d string) {
				rules := []Rule{{Path: d + "/ro", Access: ReadOnly}, {Path: d + "/rw", Access: ReadWrite}, {Path: d + "/shut/file", Access: Write}}
				if abi < MinHard {
					if _, err := restrictAs(Ruleset{Paths: rules}, HardRequirement, abi); !errors.Is(err, ErrTooOld) {
						t.Errorf("hard requirement = %v, want %v", err, ErrTooOld)
					}
				}
				r, err := restrictAs(Ruleset{Paths: rules}, BestEffort, abi)
				must(t, err)
				if !r.Files || r.Scopes != (abi >= 6) || r.Used != abi {
					t.Errorf("report %+v", r)
				}
				trunc, refer := error(nil), error(unix.EXDEV)
				if abi >= 3 {
					trunc = unix.EACCES
				}
				if abi >= 2 {
					refer = nil
				}
				for _, x := range []try{
					{"write read-only", open1(d+"/ro/file", unix.O_WRONLY), unix.EACCES},
					{"truncate read-only", func() error { return unix.Truncate(d+"/ro/file", 0) }, trunc},
					{"rename between directories", func() error { return unix.Rename(d+"/rw/file", d+"/rw/sub/file") }, refer},
					{"write one file", open1(d+"/shut/file", unix.O_WRONLY), nil},
					{"read that file", open1(d+"/shut/file", unix.O_RDONLY), unix.EACCES},
				} {
					x.check(t)
				}
			})
		})
	}
}

func TestPathsThatCannotBeOpened(t *testing.T) {
	inTree(t, func(t *testing.T, d string) {
		must(t, os.Mkdir(d+"/barred", 0))
		good := Rule{Path: d + "/ro", Access: ReadOnly}
		for _, tt := range []struct {
			name   string
			rule   Rule
			reason string
		}{
			{"missing", Rule{Path: d + "/none", Access: Read}, "path does not exist"},
			{"below a file", Rule{Path: d + "/ro/file/x", Access: Read}, "path component is not a directory"},
			{"a link", Rule{Path: d + "/link", Access: Read}, "is or leads over a symbolic link"},
			{"over a link", Rule{Path: d + "/link/file", Access: Read}, "is or leads over a symbolic link"},
			{"a magic link", Rule{Path: "/proc/self/root", Access: Read, Follow: true}, "is or leads over a symbolic link"},
			{"below a barred directory", Rule{Path: d + "/barred/x", Access: Read}, "permission denied"},
			{"too long", Rule{Path: "/" + strings.Repeat("x", 300), Access: Read}, "path name too long"},
			{"no right", Rule{Path: d + "/ro"}, errNoAccess.Error()},
			{"an unknown right", Rule{Path: d + "/ro", Access: 1 << 7}, errNoAccess.Error()},
			{"a right a file cannot have", Rule{Path: d + "/ro/file", Access: List}, errNoRight.Error()},
		} {
			r, err := Restrict(Ruleset{Paths: []Rule{tt.rule, good}}, HardRequirement)
			if !errors.Is(err, ErrPath) || !strings.Contains(err.Error(), tt.reason) || r.Files {
				t.Errorf("%s, hard: %v", tt.name, err)
			}
			// Nothing was enforced, so the same thread goes on.
			r, err = Restrict(Ruleset{Paths: []Rule{tt.rule}}, BestEffort)
			if !errors.Is(err, ErrNothing) || len(r.Skipped) != 1 || r.Skipped[0].Reason != tt.reason || !r.Missing(tt.rule.Path) || r.Files {
				t.Errorf("%s, alone: %+v, %v", tt.name, r, err)
			}
		}
		if _, err := Restrict(Ruleset{}, HardRequirement); !errors.Is(err, ErrNothing) {
			t.Errorf("no paths: %v", err)
		}
		try{"afterwards", open1(d+"/shut/file", unix.O_RDONLY), nil}.check(t)

		r, err := Restrict(Ruleset{Paths: []Rule{{Path: d + "/none", Access: Read}, {Path: d + "/link", Access: Read, Follow: true}}}, BestEffort)
		must(t, err)
		if !r.Files || r.Applied != 1 || !r.Missing(d+"/none") || r.Missing(d+"/link") {
			t.Errorf("report %+v", r)
		}
		try{"over a link that was to be followed", open1(d+"/link/file", unix.O_RDONLY), nil}.check(t)
		try{"beside", open1(d+"/ro/file", unix.O_RDONLY), unix.EACCES}.check(t)
	})
}

// A rule on an open descriptor follows the directory, not the name.
func TestARuleOnADescriptor(t *testing.T) {
	inTree(t, func(t *testing.T, d string) {
		f, err := os.OpenFile(d+"/ro", unix.O_PATH, 0)
		must(t, err)
		must(t, os.Rename(d+"/ro", d+"/moved"))
		must(t, os.Mkdir(d+"/ro", 0o755))
		must(t, os.WriteFile(d+"/ro/file", nil, 0o644))
		_, err = Restrict(Ruleset{Paths: []Rule{{Path: "the directory", File: f, Access: ReadOnly}}}, HardRequirement)
		must(t, err)
		try{"the directory", open1(d+"/moved/file", unix.O_RDONLY), nil}.check(t)
		try{"the name", open1(d+"/ro/file", unix.O_RDONLY), unix.EACCES}.check(t)
	})
}

func TestScopesAreSharedOnlyWhenAsked(t *testing.T) {
	kerneltest.Require(t, kerneltest.Landlock)
	if abi, _ := Probe(); abi < 6 {
		t.Skipf("needs Landlock ABI 6, has %d", abi)
	}
	for _, tt := range []struct {
		name             string
		sockets, signals bool
		socket, signal   error
	}{
		{"neither", false, false, unix.EPERM, unix.EPERM},
		{"sockets", true, false, nil, unix.EPERM},
		{"signals", false, true, unix.EPERM, nil},
		{"both", true, true, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inTree(t, func(t *testing.T, d string) {
				fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				must(t, err)
				must(t, unix.Bind(fd, &unix.SockaddrUnix{}))
				name, err := unix.Getsockname(fd)
				must(t, err)
				client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				must(t, err)
				pid, err := syscall.ForkExec("/usr/bin/sleep", []string{"sleep", "60"}, nil)
				must(t, err)
				// The program is outside the domain: it was started before.
				r, err := Restrict(Ruleset{Paths: []Rule{{Path: d + "/ro", Access: Read}}, AbstractSockets: tt.sockets, Signals: tt.signals}, HardRequirement)
				must(t, err)
				if !r.Scopes {
					t.Errorf("report %+v", r)
				}
				try{"connect", func() error { return unix.Connect(client, name) }, tt.socket}.check(t)
				try{"signal", func() error { return unix.Kill(pid, 0) }, tt.signal}.check(t)
				killed := make(chan error)
				go func() { killed <- unix.Kill(pid, unix.SIGKILL) }() // from a thread that is not restricted
				must(t, <-killed)
				_, err = syscall.Wait4(pid, nil, 0, nil)
				must(t, err)
			})
		})
	}
}

func TestNoNewPrivsComesFirst(t *testing.T) {
	kerneltest.Require(t, kerneltest.Landlock)
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		_, err := Restrict(Ruleset{Paths: []Rule{{Path: "/usr", Access: ReadExec}}}, BestEffort)
		if err == nil || !strings.Contains(err.Error(), "no_new_privs is not set") {
			t.Errorf("error = %v", err)
		}
	})
}

func TestWhereThereIsNoLandlock(t *testing.T) {
	r, err := restrictAs(Ruleset{Paths: []Rule{{Path: "/usr", Access: ReadExec}}}, HardRequirement, 0)
	if !errors.Is(err, ErrTooOld) || r.Files {
		t.Errorf("report %+v, error %v", r, err)
	}
}

func TestNoPathsUnderBestEffort(t *testing.T) {
	inTree(t, func(t *testing.T, d string) {
		r, err := Restrict(Ruleset{}, BestEffort)
		must(t, err)
		if r.Files || r.Scopes != (r.Used >= 6) {
			t.Errorf("report %+v", r)
		}
		try{"files", open1(d+"/shut/file", unix.O_RDONLY), nil}.check(t)
	})
}
