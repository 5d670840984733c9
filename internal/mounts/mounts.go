// Package mounts applies a file-system view inside fresh namespaces.
//
// A Plan is data: the outside half computes it, sends it as bytes, and pid 1 of
// the sandbox carries it out with Apply before anything of the agent runs. The
// package owns the kernel mechanism only (detached clones, attributes, pivot);
// what is visible, and why, is decided by the view package.
//
// Guarantees: every source is opened before the first mount of the view, by
// descriptor, without magic links, and must be a directory or a regular file
// (or a device where the operation says so); every object is created only on
// file systems that Apply itself mounted, so a plan can never write to the
// host; a failed operation ends Apply and is named; after success nothing of
// the old root is reachable.
//
// It needs a mount namespace owned by a user namespace in which the caller has
// CAP_SYS_ADMIN, Linux 5.12 (mount_setattr), and the host's /proc for overlay.
// It does not confine processes and opens nothing that outlives the call. Used
// by the launcher, which is small: only a short list of packages may be linked.
package mounts

import "strconv"

// Plan is the ordered list of operations that make a view. The first one
// makes the root.
type Plan []Op

// Op is one step of a plan. Which fields matter depends on the kind.
type Op struct {
	Kind   Kind
	Flags  Flags
	Mode   uint32 // permission bits of what is created
	Size   uint64 // limit of a tmpfs in bytes
	Source string // host path, link text or overlay upper directory
	Target string // absolute clean path in the new root
	Data   []byte // content of a file; work and lower directories of an overlay
	Why    string // one sentence for people
}

// Kind is what an operation does. Zero is no operation and an error.
type Kind uint8

// The kinds of operations.
const (
	_       Kind = iota
	Tmpfs        // mount a tmpfs of Size bytes with Mode at Target; at "/" it is the root
	Overlay      // mount an overlay as the root: see OverlayRoot
	Bind         // attach a recursive clone of the host's Source at Target
	Pin          // make Target a mount point by binding it onto itself: it cannot be renamed or removed
	Mask         // hide Target behind an empty, unreadable file or an empty directory
	Dir          // make a directory
	File         // write Data to a new file, or cover the existing one when flag Cover is set
	Symlink      // make a symbolic link with text Source
	Proc         // mount the proc of the current pid namespace
	Devpts       // mount a new devpts instance
	Cgroup       // mount cgroup v2 as seen from the current cgroup namespace
	Seal         // make the mount at Target read-only, without what is mounted below it
	kinds
)

var kindNames = [kinds]string{
	Tmpfs: "tmpfs", Overlay: "overlay", Bind: "bind", Pin: "pin", Mask: "mask", Dir: "dir", File: "file",
	Symlink: "symlink", Proc: "proc", Devpts: "devpts", Cgroup: "cgroup", Seal: "seal",
}

// String returns the kind in one word.
func (k Kind) String() string {
	if k > 0 && k < kinds {
		return kindNames[k]
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// Flags refine an operation.
type Flags uint16

// The flags.
const (
	ReadOnly Flags = 1 << iota // the mount and all below it cannot be written
	NoExec                     // nothing on the mount can be executed
	Device                     // Source is a device node and works as one
	NoFollow                   // no symbolic link may occur in Source or Target
	Optional                   // a failure is reported and does not end Apply
	IfThere                    // skipped when Target does not exist
	Cover                      // File: bind the content read-only over the existing Target
	allFlags Flags = 1<<iota - 1
)

// String describes the operation for errors and explanations.
func (o Op) String() string {
	s := o.Kind.String() + " " + strconv.Quote(o.Target)
	if o.Source != "" {
		s += " from " + strconv.Quote(o.Source)
	}
	if o.Flags&ReadOnly != 0 {
		s += " read-only"
	}
	return s
}

// OverlayRoot returns the operation that mounts an overlay as the root. lowers
// are from top to bottom. upper and work must be empty or on one file system;
// without them the overlay cannot be written.
func OverlayRoot(lowers []string, upper, work, why string) Op {
	data := []byte(work)
	for _, l := range lowers {
		data = append(append(data, 0), l...)
	}
	return Op{Kind: Overlay, Source: upper, Target: "/", Data: data, Why: why}
}
