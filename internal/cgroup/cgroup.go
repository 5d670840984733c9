// Package cgroup bounds what a sandbox may use of processor, memory and
// process table, with cgroup v2 where it is delegated to us and v1 where it can
// be written.
//
// A Group is made for one sandbox before its first process, and removed after
// its last. With v2 the process is born in the group (FD for
// SysProcAttr.UseCgroupFD); with v1 it must be added by number before it runs
// anything. A limit that was asked for and cannot be set is an error that says
// why and what to do; nothing is ever silently left unlimited. Without limits
// no group is needed and none is made.
//
// It talks to the kernel's files only, never to a service manager. Used by the
// outside half.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// Limits are the bounds of a group. Zero means not asked for.
type Limits struct {
	MilliCPU int64 // thousandths of a processor
	Memory   int64 // bytes, swap included where the kernel counts it
	Pids     int64 // processes and threads
}

// None reports whether nothing is limited.
func (l Limits) None() bool { return l == Limits{} }

// Group is the control group of one sandbox.
type Group struct {
	name   string
	limits Limits
	dirs   map[string]string // controller -> directory; with v2 all the same
	v2     bool
	dir    *os.File // v2: open directory
}

const prefix = brand.Name + "-"

// Create makes the group of the sandbox id with limits. The error says which
// limit cannot be had. With no limits it returns nil and no error.
func Create(id string, limits Limits) (*Group, error) {
	if limits.None() {
		return nil, nil
	}
	return newHost("/").create(id, limits)
}

func (h *host) create(id string, limits Limits) (*Group, error) {
	if id == "" || strings.ContainsAny(id, "/\x00\n") || len(id) > 128 {
		return nil, fault.New(fault.Internal, "a control group needs the id of its sandbox, not %q", id)
	}
	if err := h.read(); err != nil {
		return nil, err
	}
	name := prefix + strconv.Itoa(os.Getpid()) + "-" + id
	g, err := h.createV2(name, limits)
	if err == nil {
		return g, nil
	}
	// v1 only if v2 does not have the controllers at all (a hybrid machine).
	if errors.Is(err, errNotV2) {
		return h.createV1(name, limits)
	}
	return nil, err
}

// wanted lists the controllers that the limits need, with the flag for people.
func (l Limits) wanted() []want {
	var w []want
	if l.Memory > 0 {
		w = append(w, want{"memory", "--memory"})
	}
	if l.Pids > 0 {
		w = append(w, want{"pids", "--pids"})
	}
	if l.MilliCPU > 0 {
		w = append(w, want{"cpu", "--cpu"})
	}
	return w
}

type want struct{ controller, flag string }

// FD returns the descriptor of the group's directory for UseCgroupFD, or false
// with v1, where Add must be used.
func (g *Group) FD() (int, bool) {
	if g == nil || !g.v2 {
		return -1, false
	}
	return int(g.dir.Fd()), true
}

// V2 reports whether the group is of version 2.
func (g *Group) V2() bool { return g != nil && g.v2 }

// Add moves the process pid into the group. All that it starts later is in it.
func (g *Group) Add(pid int) error {
	for _, d := range g.directories() {
		if err := put(d, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("add the process to its control group: %w", err)
		}
	}
	return nil
}

// Pids returns the processes in the group.
func (g *Group) Pids() ([]int, error) {
	text, err := os.ReadFile(filepath.Join(g.directories()[0], "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(string(text)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("cgroup.procs: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Remove removes the group. Processes that are left are killed first.
func (g *Group) Remove() error {
	if g == nil {
		return nil
	}
	if g.dir != nil {
		defer g.dir.Close()
	}
	// The last process leaves its group a moment after it was reaped.
	deadline := time.Now().Add(5 * time.Second)
	for {
		var left error
		for _, d := range g.directories() {
			if err := os.Remove(d); err != nil && !errors.Is(err, os.ErrNotExist) {
				left = err
			}
		}
		if left == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove the control group: %w", left)
		}
		if err := g.Kill(); err != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// directories returns each directory of the group once, freezer last.
func (g *Group) directories() []string {
	seen := map[string]bool{}
	var out []string
	for _, c := range controllers {
		if d := g.dirs[c]; d != "" && !seen[d] {
			seen[d] = true
			out = append(out, d)
		}
	}
	return out
}

var controllers = []string{"memory", "pids", "cpu", "freezer"}

func put(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return err
	}
	return nil
}

func get(dir, file string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	return strings.TrimSpace(string(text)), err
}
