package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// host is what this process finds of control groups. root is "/" but in tests.
type host struct {
	root string
	v2   string            // our own group in the unified hierarchy, as a directory
	v1   map[string]string // controller -> our own group, as a directory
}

var errNotV2 = errors.New("the controllers are not in the unified hierarchy")

func newHost(root string) *host { return &host{root: root} }

// read finds our own groups from /proc/self/mountinfo and /proc/self/cgroup.
func (h *host) read() error {
	mounts, err := os.ReadFile(filepath.Join(h.root, "proc/self/mountinfo"))
	if err != nil {
		return unavailable("this machine shows no mount table").Cause(err)
	}
	groups, err := os.ReadFile(filepath.Join(h.root, "proc/self/cgroup"))
	if err != nil {
		return unavailable("this kernel has no control groups").Cause(err)
	}
	own2, own1 := parseOwn(string(groups))
	h.v1 = map[string]string{}
	for line := range strings.Lines(string(mounts)) {
		m, ok := parseMount(line)
		if !ok {
			continue
		}
		if m.fstype == "cgroup2" && own2 != "" && h.v2 == "" {
			// A gateway that moved into its leaf leaves its children there, too.
			h.v2 = strings.TrimSuffix(filepath.Join(h.root, m.point, inMount(m.root, own2)), "/"+outside)
		}
		if m.fstype != "cgroup" {
			continue
		}
		for _, c := range strings.Split(m.options, ",") {
			if own, ok := own1[c]; ok && h.v1[c] == "" {
				h.v1[c] = filepath.Join(h.root, m.point, inMount(m.root, own))
			}
		}
	}
	return nil
}

// inMount maps the path of a group to a path below the mount point, where the
// mount shows only the subtree at root (as in a container).
func inMount(root, own string) string {
	if root == "/" {
		return own
	}
	if rest, ok := strings.CutPrefix(own, root); ok {
		return rest
	}
	return own
}

// parseOwn reads /proc/self/cgroup: "0::/path" is v2, "4:memory:/path" is v1.
func parseOwn(text string) (v2 string, v1 map[string]string) {
	v1 = map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		if f[0] == "0" && f[1] == "" {
			v2 = f[2]
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			v1[c] = f[2]
		}
	}
	return v2, v1
}

type mount struct{ root, point, fstype, options string }

// parseMount reads a line of mountinfo (proc(5)).
func parseMount(line string) (mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	f, g := strings.Fields(before), strings.Fields(after)
	if !ok || len(f) < 5 || len(g) < 3 {
		return mount{}, false
	}
	return mount{root: f[3], point: unescape(f[4]), fstype: g[0], options: g[2]}, true
}

func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

const delegateHint = "systemd-run --user --scope -p Delegate=yes -- " + brand.CLI + " ..."

func unavailable(why string, args ...any) *fault.Error {
	return fault.New(fault.Unsupported, "limits cannot be set: "+why, args...)
}

// createV2 makes a child of our own group. Our own processes move into a leaf
// beside it, because a group with processes cannot hand controllers down.
func (h *host) createV2(name string, limits Limits) (*Group, error) {
	if h.v2 == "" {
		return nil, errNotV2
	}
	have, err := get(h.v2, "cgroup.controllers")
	if err != nil {
		return nil, errNotV2
	}
	for _, w := range limits.wanted() {
		if !hasWord(have, w.controller) {
			if _, inV1 := h.v1[w.controller]; inV1 {
				return nil, errNotV2
			}
			return nil, unavailable("the controller %q, which %s needs, is not delegated to this session (cgroup %s has: %s)", w.controller, w.flag, h.v2, orNone(have)).
				Hint("%s", delegateHint)
		}
	}
	if err := unix.Access(h.v2, unix.W_OK); err != nil {
		return nil, unavailable("the control group of this session, %s, belongs to somebody else", h.v2).Hint("%s", delegateHint).Cause(err)
	}
	if err := h.handDown(limits); err != nil {
		return nil, err
	}
	dir := filepath.Join(h.v2, name)
	g := &Group{name: name, limits: limits, v2: true, dirs: map[string]string{}}
	for _, c := range controllers {
		g.dirs[c] = dir
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, unavailable("no group can be made in %s", h.v2).Hint("%s", delegateHint).Cause(err)
	}
	if err := g.setV2(); err != nil {
		os.Remove(dir)
		return nil, err
	}
	if g.dir, err = os.Open(dir); err != nil {
		os.Remove(dir)
		return nil, unavailable("the new group cannot be opened").Cause(err)
	}
	return g, nil
}

func (h *host) handDown(limits Limits) error {
	down, err := get(h.v2, "cgroup.subtree_control")
	if err != nil {
		return unavailable("the control group of this session cannot be read").Cause(err)
	}
	var missing []string
	for _, w := range limits.wanted() {
		if !hasWord(down, w.controller) {
			missing = append(missing, "+"+w.controller)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	words := strings.Join(missing, " ")
	err = put(h.v2, "cgroup.subtree_control", words)
	if errors.Is(err, unix.EBUSY) {
		leaf := filepath.Join(h.v2, outside)
		if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return unavailable("no group can be made in %s", h.v2).Hint("%s", delegateHint).Cause(err)
		}
		if err := put(leaf, "cgroup.procs", strconv.Itoa(os.Getpid())); err != nil {
			return unavailable("this process cannot move into a group of its own").Hint("%s", delegateHint).Cause(err)
		}
		err = put(h.v2, "cgroup.subtree_control", words)
	}
	if err != nil {
		return unavailable("the control group of this session, %s, holds other processes and cannot hand %s down", h.v2, strings.ReplaceAll(words, "+", "")).
			Hint("%s", delegateHint).Cause(err)
	}
	return nil
}

func (g *Group) setV2() error {
	dir, l := g.dirs["memory"], g.limits
	set := func(flag, file, value string) error {
		if err := put(dir, file, value); err != nil {
			return unavailable("%s: the kernel refuses %s", flag, file).Cause(err)
		}
		return nil
	}
	if l.Memory > 0 {
		if err := set("--memory", "memory.max", strconv.FormatInt(l.Memory, 10)); err != nil {
			return err
		}
		// All or nothing: a sandbox with one process missing is harder to understand.
		put(dir, "memory.oom.group", "1")
		put(dir, "memory.swap.max", "0") // absent where swap is not counted
	}
	if l.Pids > 0 {
		if err := set("--pids", "pids.max", strconv.FormatInt(l.Pids, 10)); err != nil {
			return err
		}
	}
	if l.MilliCPU > 0 {
		return set("--cpu", "cpu.max", fmt.Sprintf("%d %d", l.MilliCPU*period/1000, period))
	}
	return nil
}

// outside is the leaf for our own processes beside the groups of sandboxes.
const outside = prefix + "outside"

const period = 100_000 // microseconds

func hasWord(words, word string) bool {
	for _, w := range strings.Fields(words) {
		if w == word {
			return true
		}
	}
	return false
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
