package cgroup

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/kerneltest"
)

func create(t *testing.T, limits Limits) *Group {
	t.Helper()
	g, err := Create(t.Name(), limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
		for _, d := range g.directories() {
			if exists(d) {
				t.Errorf("%s is left", d)
			}
		}
	})
	return g
}

// inGroup starts a shell that waits for the line that Add was done, as the
// launcher waits for its plan.
func inGroup(t *testing.T, g *Group, script string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read go; "+script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if fd, ok := g.FD(); ok {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, fd
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !g.V2() {
		if err := g.Add(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	in.Write([]byte("go\n"))
	return cmd, &out
}

func TestTheMemoryLimitKillsAndIsSaid(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.CgroupMemory)
	g := create(t, Limits{Memory: 32 << 20})
	// tail keeps the one endless line it is fed.
	cmd, out := inGroup(t, g, "head -c 200000000 /dev/zero | tail >/dev/null; echo survived $?")
	cmd.Wait()
	u := g.Usage()
	if u.OOMKills == 0 || u.PeakMemory < 16<<20 || u.PeakMemory > 33<<20 {
		t.Errorf("usage %+v, output %s", u, out)
	}
	at := time.Date(2026, 11, 22, 14, 3, 0, 0, time.UTC)
	if got, want := g.Explain(u, at), "killed by its memory limit of 32 MiB at 14:03; raise it with --memory"; got != want {
		t.Errorf("Explain = %q, want %q", got, want)
	}
}

func TestTheLimitOfProcessesIsKept(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.CgroupPids)
	g := create(t, Limits{Pids: 5})
	cmd, out := inGroup(t, g, "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 >/dev/null 2>&1 & done; echo all")
	cmd.Wait()
	u := g.Usage()
	if u.PidsFull == 0 || strings.Contains(out.String(), "all") {
		t.Errorf("usage %+v, output %s", u, out)
	}
	if got := g.Explain(u, time.Now()); !strings.Contains(got, "beyond its limit of 5; raise it with --pids") {
		t.Errorf("Explain = %q", got)
	}
	if pids, err := g.Pids(); err != nil || len(pids) == 0 {
		t.Errorf("no sleeper is left to be killed: %v %v", pids, err)
	}
}

func TestTheProcessorLimitIsWritten(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	g := create(t, Limits{MilliCPU: 1500})
	file, want := "cpu.cfs_quota_us", "150000"
	if g.V2() {
		file, want = "cpu.max", "150000 100000"
	}
	if got, err := get(g.dirs["cpu"], file); err != nil || got != want {
		t.Errorf("%s = %q %v, want %q", file, got, err, want)
	}
}

// ticks counts how often the script below wrote its line.
func frozen(t *testing.T, g *Group) {
	t.Helper()
	count := filepath.Join(t.TempDir(), "count")
	if err := os.WriteFile(count, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	size := func() int64 {
		info, err := os.Stat(count)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	grows := func() {
		t.Helper()
		from := size()
		for range 5000 {
			if size() > from {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatal("the script does not run")
	}
	cmd, out := inGroup(t, g, "while :; do echo x; done >> "+count)
	grows()
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	from := size()
	time.Sleep(20 * time.Millisecond)
	if size() != from {
		t.Error("it runs although it is frozen")
	}
	if err := g.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	grows()
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Errorf("it ended by itself: %s", out)
	}
}

func TestFreezeThawKill(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.CgroupPids)
	frozen(t, create(t, Limits{Pids: 64}))
}

// Machines with v1 controllers still have the core of v2.
func TestFreezeThawKillOfVersion2(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	h := newHost("/")
	if err := h.read(); err != nil {
		t.Fatal(err)
	}
	if h.v2 == "" {
		t.Skip("needs a cgroup v2 mount")
	}
	g, err := h.createV2(prefix+strconv.Itoa(os.Getpid())+"-v2", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	frozen(t, g)
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

func TestAnOrdinaryAccountIsToldWhy(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		h := newHost("/")
		if err := h.read(); err != nil {
			t.Fatal(err)
		}
		g, err := Create("x", Limits{Memory: 1 << 30, Pids: 10})
		if err == nil {
			g.Remove()
			t.Skip("needs a machine that gives this account no control group")
		}
		if fault.KindOf(err) != fault.Unsupported || fault.HintOf(err) == "" || !strings.HasPrefix(err.Error(), "limits cannot be set: ") {
			t.Errorf("%v (%s)", err, fault.HintOf(err))
		}
		if own := h.v1["memory"]; own != "" && h.v1["pids"] != "" {
			me := strconv.Itoa(os.Geteuid())
			want := "limits cannot be set: this machine uses cgroup v1, where " + own + " belongs to root, and --memory needs a group there"
			hint := fmt.Sprintf("sudo install -d -o %s %s/openshell-uid%s %s/openshell-uid%s", me, own, me, strings.TrimSuffix(h.v1["pids"], "/"), me)
			if err.Error() != want || fault.HintOf(err) != hint {
				t.Errorf("got  %v (%s)\nwant %s (%s)", err, fault.HintOf(err), want, hint)
			}
		}
	})
}

// The hint of the test above must be true. The body runs twice: as root, which
// gives the directory, and in the child, which uses it.
func TestAGivenDirectoryIsUsed(t *testing.T) {
	h := newHost("/")
	if err := h.read(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(h.v1["pids"], prefix+"uid"+strconv.Itoa(kerneltest.OrdinaryID))
	if os.Geteuid() == 0 {
		kerneltest.Require(t, kerneltest.Root, kerneltest.CgroupPids)
		if h.v1["pids"] == "" {
			t.Skip("needs cgroup v1")
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(dir)
		if err := os.Chown(dir, kerneltest.OrdinaryID, -1); err != nil {
			t.Fatal(err)
		}
	} else if !exists(dir) {
		t.Skip("needs root, to give this account a directory")
	}
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		g := create(t, Limits{Pids: 5})
		cmd, out := inGroup(t, g, "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 >/dev/null 2>&1 & done; echo all")
		cmd.Wait()
		if g.Usage().PidsFull == 0 {
			t.Errorf("no limit: %s", out)
		}
	})
}

func TestNoLimitsNeedNoGroup(t *testing.T) {
	g, err := Create("x", Limits{})
	if g != nil || err != nil {
		t.Errorf("got %v, %v", g, err)
	}
	if _, ok := g.FD(); ok || g.Remove() != nil || g.Kill() != nil || g.Explain(g.Usage(), time.Now()) != "" {
		t.Error("the absent group does something")
	}
	if err := g.Freeze(context.Background()); err != ErrNoFreezer {
		t.Errorf("Freeze = %v", err)
	}
}

func TestSweepTakesOnlyDeadOwners(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.CgroupPids)
	h := newHost("/")
	if err := h.read(); err != nil {
		t.Fatal(err)
	}
	parent, ok := h.writable("pids")
	if !ok {
		parent = h.v2
	}
	child := exec.Command("/bin/true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(parent, prefix+strconv.Itoa(child.Process.Pid)+"-crashed")
	live := filepath.Join(parent, prefix+strconv.Itoa(os.Getpid())+"-alive")
	other := filepath.Join(parent, prefix+"-odd")
	for _, d := range []string{dead, live, other} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(d)
	}
	if _, err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if exists(dead) || !exists(live) || !exists(other) {
		t.Errorf("dead %v, live %v, other %v", exists(dead), exists(live), exists(other))
	}
}
