package procs

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestFreezeStopsEverybodyUntilThaw(t *testing.T) {
	eachID(t, func(t *testing.T) {
		launch(t, "undumpable")
		waiting := launch(t, "wait")
		for range 4 {
			spin := child("spin")
			if err := spin.Start(); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			res, err := Freeze()
			if err != nil {
				t.Fatalf("%+v, %v", res, err)
			}
			before := times(t)
			if p, err := Read(waiting); err != nil || p.State != 'T' {
				t.Errorf("after Freeze: %+v, %v", p, err)
			}
			time.Sleep(10 * time.Millisecond) // long enough to run if anybody could
			if after := times(t); after != before {
				t.Errorf("somebody ran while frozen: %v, before %v", after, before)
			}
			if err := Thaw(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the waiting process runs again", func() bool {
				p, err := Read(waiting)
				return err == nil && p.State != 'T'
			})
		}
		if res, err := KillAll(); err != nil {
			t.Fatalf("%+v, %v", res, err)
		}
		if p, err := Read(waiting); err != nil || p.State != 'Z' {
			t.Errorf("after KillAll: %+v, %v", p, err)
		}
	})
}

// times is a digest of all other processes: their numbers, states and time on
// the processor.
func times(t *testing.T) string {
	t.Helper()
	var s search
	list, err := s.numbers(unix.AT_FDCWD, "/proc", maxProcesses)
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, pid := range list {
		if p, err := Read(pid); err == nil && pid != 1 {
			ran, _ := os.ReadFile("/proc/" + itoa(pid) + "/schedstat")
			out += itoa(pid) + string(p.State) + " " + string(ran)
		}
	}
	return out
}

func TestOnlyPid1MaySignalEverybody(t *testing.T) {
	if os.Getpid() == 1 {
		t.Fatal("the test runs as pid 1")
	}
	if _, err := Freeze(); err == nil {
		t.Error("Freeze outside a pid namespace was not refused")
	}
	if _, err := KillAll(); err == nil {
		t.Error("KillAll outside a pid namespace was not refused")
	}
	if err := Thaw(); err == nil {
		t.Error("Thaw outside a pid namespace was not refused")
	}
}

func TestTheReaperLosesNoStatus(t *testing.T) {
	asPid1(t, 0, func(t *testing.T) {
		r := NewReaper()
		exits := make(chan Exit, 100)
		done := make(chan error, 1)
		go func() {
			n := 0
			done <- r.Run(func(e Exit) bool { exits <- e; n++; return n < 20 })
		}()
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		start := func(role, path string) (int, error) {
			return r.Start(func() (int, error) {
				return syscall.ForkExec(path, []string{"x"}, &syscall.ProcAttr{
					Env: append(os.Environ(), roleVar+"="+role), Files: []uintptr{null.Fd(), null.Fd(), null.Fd()},
				})
			})
		}
		if _, err := start("end", "/nonexistent"); !errors.Is(err, unix.ENOENT) {
			t.Errorf("a program that is not there: %v", err)
		}
		want := map[int]int{}
		for i := range 20 {
			role, status := "fail", 7
			if i%2 == 0 {
				role, status = "parent", 0 // leaves nobody: its child ends with stdin
			}
			pid, err := start(role, "/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			want[pid] = status
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for range 20 {
			e := <-exits
			status, ok := want[e.PID]
			if !ok || !e.Status.Exited() || e.Status.ExitStatus() != status {
				t.Errorf("%d ended with %v, want %d (%v)", e.PID, e.Status, status, ok)
			}
			delete(want, e.PID)
		}
	})
}
