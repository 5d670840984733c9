// Package view computes what a sandbox sees of the file system.
//
// It turns a Spec (which directories, which of them writable) into a mount
// plan for the inside half, and keeps the placeholders that the plan needs on
// the host. It owns the tables that say what of the host is shown, what of
// /proc is shut, and which files in a workspace stay read-only although the
// workspace is writable; every row has its reason.
//
// It guarantees: nothing of the host is visible that the base or the Spec does
// not name; a path named read-only or hidden stays so whatever the sandbox
// renames, links or creates; symbolic links are never followed below a
// directory that a sandbox can write; what it creates on the host is recorded
// before it is created and removed by Close or by the next Sweep, unless
// somebody used it meanwhile.
//
// It changes no namespace and starts nothing. Used by the outside half.
package view

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"openshell.dev/openshell/internal/mounts"
)

// Spec says what a sandbox should see. Relative paths are below Workdir.
type Spec struct {
	ID string // names the journal of placeholders; unique among live sandboxes
	// State is the directory for journals; empty: StateDir. It must be the
	// same for all sandboxes of an account, or one that ends takes away a
	// placeholder that another still needs.
	State string

	Base Base // zero: the host's own system directories

	// Workdir is the writable host directory in which the command starts.
	// Empty: no host directory, the command starts in Home.
	Workdir string
	// WorkdirAt is where Workdir appears. Empty: at the same path.
	WorkdirAt string

	ReadOnly  []string // further host paths to show, or paths in a writable one to protect
	ReadWrite []string // further writable host paths, or protections to lift
	Hidden    []string // paths below a shown one that must not be seen
	// Trusting lifts all default protections of settings and hooks.
	Trusting bool

	Who  Identity
	Home string // path of the private home inside; empty: the caller's, or /home/NAME
	// HomeDir is a kept host directory used as home. Empty: memory, gone at the end.
	HomeDir string

	Hostname string
	Resolv   string // content of resolv.conf; empty: our resolver
	Hosts    string // further lines of /etc/hosts
	// Cgroup shows the sandbox's own cgroup v2, so that runtimes find their limits.
	Cgroup bool

	TmpSize  uint64 // bound of /tmp and of a home in memory; zero: 2 GiB
	ShmSize  uint64 // bound of /dev/shm; zero: 256 MiB
	noScan   bool   // tests: do not look for unreadable files of root
	sysroots []root // tests: another host
}

// Base is the system that the sandbox runs on. The zero value is the host's.
type Base struct {
	Dir   string   // a directory with a root file system, shown read-only
	Lower []string // unpacked image layers, from top to bottom
	Upper string   // what the sandbox changes of the layers, kept over stop and start
	Work  string   // overlay's scratch directory, on the file system of Upper
}

func (b Base) host() bool { return b.Dir == "" && len(b.Lower) == 0 }

// Identity is who the agent is inside. Numbers are the caller's own.
type Identity struct {
	UID, GID    int
	User, Group string // empty: "sandbox"
	Shell       string // empty: /bin/sh or bash
}

// View is a computed view and the placeholders that belong to it.
type View struct {
	Plan   mounts.Plan
	Carved []Carve  // active protections inside writable directories
	Notes  []string // what a person should know, one sentence each
	Dir    string   // where the command starts, inside
	Home   string   // the home directory, inside
	// Env is what programs inside must be told about the view, KEY=VALUE; the
	// caller's own settings win.
	Env     []string
	visible []visible
	journal *journal
	hosts   []string // protected paths, on the host
	onHost  bool     // the base is the host's own system
}

// Carve is one protection inside a writable directory.
type Carve struct {
	Path    string // inside
	Hidden  bool
	Default bool // from our table, not from the caller
	Made    bool // did not exist; a placeholder stands there
	Why     string
}

type visible struct {
	inside, host string
	write        bool
}

const (
	defaultTmp = 2 << 30
	defaultShm = 256 << 20
	runSize    = 64 << 20
)

// Build computes the view. Placeholders are made on the host; the caller must
// Close the view when the sandbox has ended.
func Build(spec Spec) (v *View, err error) {
	b := &building{spec: spec, v: &View{}}
	defer func() {
		if err != nil {
			b.v.Close()
		}
	}()
	if err := b.normalize(); err != nil {
		return nil, err
	}
	b.v.onHost = b.spec.Base.host()
	if err := b.base(); err != nil {
		return nil, err
	}
	b.devices()
	b.proc()
	b.sys()
	b.scratch()
	if err := b.files(); err != nil {
		return nil, err
	}
	if err := b.home(); err != nil {
		return nil, err
	}
	if err := b.shares(); err != nil {
		return nil, err
	}
	if err := b.carve(); err != nil {
		return nil, err
	}
	b.place()
	if b.spec.Base.Upper == "" {
		b.add(mounts.Op{Kind: mounts.Seal, Target: "/", Why: "nothing can be created beside what the view names"})
	}
	b.v.Plan = b.plan
	if _, err := b.plan.Append(nil); err != nil {
		return nil, err
	}
	return b.v, nil
}

// Summary says in one line which protections are active, or nothing.
func (v *View) Summary() string {
	var names []string
	for _, c := range v.Carved {
		if !c.Default || c.Hidden {
			continue
		}
		name := c.Path
		if rel, ok := below(v.Dir, c.Path); ok {
			name = rel
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return ""
	}
	return "read-only in the workspace: " + strings.Join(names, ", ") + " (allow changes with --rw PATH)"
}

// Close removes the placeholders that nobody uses and nobody else needs.
func (v *View) Close() error {
	if v == nil || v.journal == nil {
		return nil
	}
	j := v.journal
	v.journal = nil
	return j.release()
}

// Lock returns the file whose lock keeps the placeholders, or nil. Hand it to
// pid 1 of the sandbox (which must not pass it on), and they outlive a killed
// supervisor as long as the sandbox does.
func (v *View) Lock() *os.File {
	if v.journal == nil {
		return nil
	}
	return v.journal.file
}

type building struct {
	spec   Spec
	v      *View
	plan   mounts.Plan
	late   []mounts.Op // shares and carve-outs, placed by depth at the end
	writes []share
	reads  []share
	lifted []string // inside paths on which default protections are off
	guard  []guard
}

type share struct {
	host, inside string
	write, named bool
}

func (b *building) add(ops ...mounts.Op) { b.plan = append(b.plan, ops...) }

// place appends the late operations so that an outer mount never covers an
// inner one.
func (b *building) place() {
	depth := func(o mounts.Op) int { return strings.Count(o.Target, "/") }
	slices.SortStableFunc(b.late, func(x, y mounts.Op) int { return depth(x) - depth(y) })
	b.add(b.late...)
}

func (b *building) see(inside, host string, write bool) {
	b.v.visible = append(b.v.visible, visible{inside, host, write})
}

// below reports whether path is dir or in it, and the rest.
func below(dir, path string) (rel string, ok bool) {
	if dir == path {
		return ".", true
	}
	if dir == "/" {
		return path[1:], true
	}
	if rest, ok := strings.CutPrefix(path, dir+"/"); ok {
		return rest, true
	}
	return "", false
}

func join(dir, rel string) string { return filepath.Join(dir, rel) }
