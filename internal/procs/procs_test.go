package procs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func pids(list []Process) []int {
	var out []int
	for _, p := range list {
		out = append(out, p.PID)
	}
	slices.Sort(out)
	return out
}

func TestAllHoldersOfASocketAreFound(t *testing.T) {
	eachID(t, func(t *testing.T) {
		f, inode := socket(t)
		one := launch(t, "wait", f)
		other, _ := socket(t)
		launch(t, "wait", other)
		two := launch(t, "undumpable", f)
		three := launch(t, "wait", f)
		want := []int{one, two, three}
		slices.Sort(want)
		for name, hints := range map[string][]int{
			"no hint": nil, "right": {two}, "wrong": {other2(one, two, three)}, "nobody": {1 << 22}, "ourselves": {1}, "negative": {-1, 0}, "twice": {one, one},
		} {
			got, err := Holders(inode, hints)
			if err != nil || !slices.Equal(pids(got), want) {
				t.Errorf("%s: %v, %v, want %v", name, pids(got), err, want)
			}
		}
		got, err := Holders(inode, []int{two})
		if err != nil || got[0].PID != two {
			t.Errorf("the hinted process is not first: %v, %v", got, err)
		}
		for _, p := range got {
			if p.PPID != 1 || p.StartTime == 0 || p.Exe == "" || p.ExeInode == 0 {
				t.Errorf("holder = %+v", p)
			}
		}
	})
}

// other2 returns a number that is none of those given.
func other2(not ...int) int { return slices.Max(not) + 1000 }

func TestAThreadWithItsOwnTableIsFound(t *testing.T) {
	eachID(t, func(t *testing.T) {
		f, inode := socket(t)
		pid := launch(t, "ownTable", f)
		got, err := Holders(inode, nil)
		if err != nil || !slices.Equal(pids(got), []int{pid}) {
			t.Errorf("%v, %v, want %d", pids(got), err, pid)
		}
	})
}

func TestASocketOfNobody(t *testing.T) {
	asPid1(t, 0, func(t *testing.T) {
		f, inode := socket(t)
		launch(t, "wait")
		f.Close()
		for _, inode := range []uint64{0, inode} {
			if got, err := Holders(inode, nil); err != nil || len(got) != 0 {
				t.Errorf("holders of %d = %v, %v, want nobody", inode, got, err)
			}
		}
	})
}

func TestHoldersWhileProcessesComeAndGo(t *testing.T) {
	asPid1(t, 0, func(t *testing.T) {
		f, inode := socket(t)
		pid := launch(t, "wait", f)
		spin := child("spin")
		if err := spin.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { spin.Process.Kill(); spin.Wait() }()
		for range 50 {
			got, err := Holders(inode, nil)
			if err != nil || !slices.Equal(pids(got), []int{pid}) {
				t.Fatalf("%v, %v, want %d", pids(got), err, pid)
			}
		}
	})
}

func TestChainEndsBelowPid1(t *testing.T) {
	eachID(t, func(t *testing.T) {
		grandchild := launch(t, "parent")
		chain, err := Chain(grandchild)
		if err != nil {
			t.Fatal(err)
		}
		if len(chain) != 2 || chain[0].PID != grandchild || chain[0].PPID != chain[1].PID || chain[1].PPID != 1 {
			t.Fatalf("chain = %+v", chain)
		}
		var st unix.Stat_t
		if err := unix.Stat("/proc/self/exe", &st); err != nil {
			t.Fatal(err)
		}
		for _, p := range chain {
			if p.ExeInode != st.Ino || p.ExeDev != st.Dev || p.ExeSize != st.Size || p.ExeMtime != st.Mtim.Nano() || p.ExeCtime != st.Ctim.Nano() || p.Deleted {
				t.Errorf("executable = %+v, want %+v", p, st)
			}
			if p.Cmdline != "/proc/self/exe\x00" {
				t.Errorf("cmdline = %q", p.Cmdline)
			}
		}
		for _, pid := range []int{1, 0, -1, 1 << 22} {
			if got, err := Chain(pid); err == nil {
				t.Errorf("chain of %d = %v, want an error", pid, got)
			}
		}
	})
}

func TestOpenExeIsOfTheSameProcess(t *testing.T) {
	eachID(t, func(t *testing.T) {
		p, err := Read(launch(t, "undumpable"))
		if err != nil {
			t.Fatal(err)
		}
		fd, err := OpenExe(p.PID, p.StartTime)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Ino != p.ExeInode || st.Dev != p.ExeDev {
			t.Errorf("opened %d:%d, %v, want %d:%d", st.Dev, st.Ino, err, p.ExeDev, p.ExeInode)
		}
		if fd, err := OpenExe(p.PID, p.StartTime+1); !errors.Is(err, ErrGone) {
			t.Errorf("another start time: %d, %v, want ErrGone", fd, err)
		}
		if fd, err := OpenExe(1<<22, 1); !errors.Is(err, ErrGone) {
			t.Errorf("no such process: %d, %v, want ErrGone", fd, err)
		}
	})
}

func TestADeletedExecutableIsToldFromANamedOne(t *testing.T) {
	asPid1(t, 0, func(t *testing.T) {
		dir := t.TempDir()
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name   string
			remove bool
		}{{"gone", true}, {"named (deleted)", false}} {
			path := filepath.Join(dir, tt.name)
			if err := os.WriteFile(path, self, 0o755); err != nil {
				t.Fatal(err)
			}
			c := exec.Command(path)
			c.Env = append(os.Environ(), roleVar+"=wait")
			in, _ := c.StdinPipe()
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			if tt.remove {
				os.Remove(path)
			}
			p, err := Read(c.Process.Pid)
			if err != nil || p.Exe != path || p.Deleted != tt.remove {
				t.Errorf("%s: %+v, %v", tt.name, p, err)
			}
			in.Close()
			c.Wait()
		}
	})
}

func TestAZombieHasNoExecutable(t *testing.T) {
	asPid1(t, 0, func(t *testing.T) {
		c := child("end")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var p Process
		eventually(t, "a zombie", func() bool {
			var err error
			p, err = Read(c.Process.Pid)
			return err == nil && p.State == 'Z'
		})
		if p.Exe != "" || p.ExeInode != 0 || p.PPID != 1 {
			t.Errorf("zombie = %+v", p)
		}
		c.Wait()
		if _, err := Read(c.Process.Pid); !errors.Is(err, ErrGone) {
			t.Errorf("after the funeral: %v, want ErrGone", err)
		}
	})
}

func TestNamesAreNotTrusted(t *testing.T) {
	asPid1(t, 0, func(t *testing.T) {
		c := exec.Command("/proc/self/exe", strings.Repeat("long", 4000))
		c.Env = append(os.Environ(), roleVar+"=wait")
		in, _ := c.StdinPipe()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { in.Close(); c.Wait() }()
		const name = ") R 1 1\n(x) S 9"
		p, err := Read(c.Process.Pid)
		if err != nil || p.PPID != 1 || len(p.Cmdline) != maxCmdline {
			t.Errorf("%+v, %v", p, err)
		}
		// The kernel lets a process rename only itself.
		if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil {
			t.Fatal(err)
		}
		if p, err = Read(os.Getpid()); err != nil || p.Comm != name || p.PPID != 0 || p.PID != 1 {
			t.Errorf("%+v, %v", p, err)
		}
	})
}
