package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// createV1 makes one directory in each hierarchy that the limits need, and one
// in the freezer, if it can, so that the group can be stopped and killed whole.
func (h *host) createV1(name string, limits Limits) (g *Group, err error) {
	g = &Group{name: name, limits: limits, dirs: map[string]string{}}
	defer func() {
		if err != nil {
			for _, d := range g.directories() {
				os.Remove(d)
			}
			g = nil
		}
	}()
	for _, w := range limits.wanted() {
		if h.v1[w.controller] == "" {
			return g, unavailable("this machine has no controller %q, which %s needs", w.controller, w.flag).
				Hint("boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1), or run without %s", w.flag)
		}
		parent, ok := h.writable(w.controller)
		if !ok {
			return g, h.notOurs(w, limits)
		}
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) { // two controllers may share a hierarchy
			return g, unavailable("no group can be made in %s", parent).Cause(err)
		}
		g.dirs[w.controller] = dir
	}
	if parent, ok := h.writable("freezer"); ok {
		if err := os.Mkdir(filepath.Join(parent, name), 0o755); err == nil {
			g.dirs["freezer"] = filepath.Join(parent, name)
		}
	}
	return g, g.setV1()
}

// writable returns where we may make groups of a controller: our own group, or
// the directory in it that an administrator gave us.
func (h *host) writable(controller string) (string, bool) {
	own := h.v1[controller]
	if own == "" {
		return "", false
	}
	for _, dir := range []string{own, filepath.Join(own, given())} {
		if unix.Access(dir, unix.W_OK|unix.X_OK) == nil {
			return dir, true
		}
	}
	return "", false
}

// given is the name of a directory that belongs to this account.
func given() string { return prefix + "uid" + strconv.Itoa(os.Geteuid()) }

func (h *host) notOurs(w want, limits Limits) error {
	hint := "sudo install -d -o " + strconv.Itoa(os.Geteuid())
	for _, x := range limits.wanted() {
		if _, ok := h.writable(x.controller); !ok && h.v1[x.controller] != "" {
			hint += " " + filepath.Join(h.v1[x.controller], given())
		}
	}
	return unavailable("this machine uses cgroup v1, where %s belongs to root, and %s needs a group there", h.v1[w.controller], w.flag).
		Hint("%s", hint)
}

func (g *Group) setV1() error {
	l := g.limits
	set := func(controller, flag, file string, value int64) error {
		if err := put(g.dirs[controller], file, strconv.FormatInt(value, 10)); err != nil {
			return unavailable("%s: the kernel refuses %s", flag, file).Cause(err)
		}
		return nil
	}
	if l.Memory > 0 {
		if err := set("memory", "--memory", "memory.limit_in_bytes", l.Memory); err != nil {
			return err
		}
		// Counts memory and swap together; absent where swap is not counted.
		put(g.dirs["memory"], "memory.memsw.limit_in_bytes", strconv.FormatInt(l.Memory, 10))
	}
	if l.Pids > 0 {
		if err := set("pids", "--pids", "pids.max", l.Pids); err != nil {
			return err
		}
	}
	if l.MilliCPU > 0 {
		if err := set("cpu", "--cpu", "cpu.cfs_period_us", period); err != nil {
			return err
		}
		return set("cpu", "--cpu", "cpu.cfs_quota_us", l.MilliCPU*period/1000)
	}
	return nil
}
