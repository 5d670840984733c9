package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what the group used, and how often a limit was met.
type Usage struct {
	PeakMemory int64 // bytes; zero where the kernel does not say
	OOMKills   int64 // processes killed by the memory limit
	PidsFull   int64 // forks refused by the limit of processes
}

// Usage reads the counters. They stay readable until Remove.
func (g *Group) Usage() Usage {
	var u Usage
	if g == nil {
		return u
	}
	if g.v2 {
		d := g.dirs["memory"]
		u.PeakMemory = number(d, "memory.peak")
		u.OOMKills = field(d, "memory.events", "oom_kill")
		u.PidsFull = field(d, "pids.events", "max")
		return u
	}
	if d := g.dirs["memory"]; d != "" {
		u.PeakMemory = number(d, "memory.max_usage_in_bytes")
		u.OOMKills = field(d, "memory.oom_control", "oom_kill")
	}
	if d := g.dirs["pids"]; d != "" {
		u.PidsFull = field(d, "pids.events", "max")
	}
	return u
}

// Explain says in one line how a limit ended or hindered the sandbox, or
// nothing. at is when its main process ended.
func (g *Group) Explain(u Usage, at time.Time) string {
	switch {
	case g == nil:
		return ""
	case u.OOMKills > 0 && g.limits.Memory > 0:
		return fmt.Sprintf("killed by its memory limit of %s at %s; raise it with --memory", FormatMemory(g.limits.Memory), at.Format("15:04"))
	case u.PidsFull > 0 && g.limits.Pids > 0:
		return fmt.Sprintf("could not start %s beyond its limit of %d; raise it with --pids", processes(u.PidsFull), g.limits.Pids)
	}
	return ""
}

func processes(n int64) string {
	if n == 1 {
		return "a process"
	}
	return strconv.FormatInt(n, 10) + " processes"
}

func number(dir, file string) int64 {
	s, err := get(dir, file)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

func field(dir, file, key string) int64 {
	s, err := get(dir, file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(s) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}

// ErrNoFreezer says that this group cannot be frozen; the launcher's stop
// signals are the other way.
var ErrNoFreezer = errors.New("the control group has no freezer")

// Freeze stops every process of the group, and returns when all have stopped.
func (g *Group) Freeze(ctx context.Context) error { return g.freezer(ctx, true) }

// Thaw lets them run again.
func (g *Group) Thaw(ctx context.Context) error { return g.freezer(ctx, false) }

func (g *Group) freezer(ctx context.Context, stop bool) error {
	if g == nil || g.dirs["freezer"] == "" {
		return ErrNoFreezer
	}
	dir, file, word := g.dirs["freezer"], "freezer.state", "THAWED"
	if stop {
		word = "FROZEN"
	}
	done := func() bool { s, err := get(dir, file); return err == nil && s == word }
	if g.v2 {
		file, word = "cgroup.freeze", "0"
		if stop {
			word = "1"
		}
		done = func() bool { return strconv.FormatInt(field(dir, "cgroup.events", "frozen"), 10) == word }
	}
	if err := put(dir, file, word); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", file, ctx.Err())
		case <-time.After(time.Millisecond):
		}
		if !g.v2 { // v1 may stay in FREEZING until asked again
			if err := put(dir, file, word); err != nil {
				return fmt.Errorf("write %s: %w", file, err)
			}
		}
	}
	return nil
}

// Kill ends every process of the group, frozen or not.
func (g *Group) Kill() error {
	if g == nil {
		return nil
	}
	if g.v2 {
		err := put(g.dirs["memory"], "cgroup.kill", "1") // Linux 5.14
		if err == nil || errors.Is(err, os.ErrNotExist) && !exists(g.dirs["memory"]) {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	frozen := g.Freeze(ctx) == nil // so that none forks away
	pids, err := g.Pids()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	if frozen {
		return g.Thaw(ctx)
	}
	return nil
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// Sweep removes the groups of crashed owners below our own groups: empty ones
// whose name carries the number of a process that is gone. It returns how many.
func Sweep() (int, error) { return newHost("/").sweep() }

func (h *host) sweep() (int, error) {
	if err := h.read(); err != nil {
		return 0, err
	}
	parents := map[string]bool{h.v2: true}
	for _, c := range controllers {
		parents[h.v1[c]] = true
		if own := h.v1[c]; own != "" {
			parents[filepath.Join(own, given())] = true
		}
	}
	n := 0
	for parent := range parents {
		if parent == "" {
			continue
		}
		names, err := filepath.Glob(filepath.Join(parent, prefix+"*-*"))
		if err != nil {
			return n, err
		}
		for _, name := range names {
			if ownerGone(filepath.Base(name)) && os.Remove(name) == nil {
				n++ // a group with processes is busy and stays
			}
		}
	}
	return n, nil
}

// ownerGone reads the owner's number from prefix + PID + "-" + ID.
func ownerGone(name string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	word, _, ok := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(word)
	if !ok || err != nil || pid <= 0 {
		return false
	}
	return errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}
