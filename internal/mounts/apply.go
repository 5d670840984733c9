package mounts

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Options say where Apply works. The zero value is right on every ordinary host.
type Options struct {
	// Stage is an existing directory of the host over which the view is built.
	// Empty tries a few that every host has.
	Stage string
}

// Report says what Apply did.
type Report struct {
	Steps   []Step
	Skipped []*Error // optional operations that failed
}

// Step is one timed part of Apply.
type Step struct {
	Name string
	Took time.Duration
}

// Error is a failed operation.
type Error struct {
	Op  Op
	Err error
}

// Error names the operation and the cause.
func (e *Error) Error() string {
	if e.Op.Kind == Proc && errors.Is(e.Err, unix.EPERM) {
		return "mount a new proc: the kernel refuses it because parts of this machine's own /proc are covered (this looks like a container): " + e.Err.Error()
	}
	return e.Op.String() + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

var stages = []string{"/tmp", "/run", "/mnt", "/var", "/usr"}

// Apply builds the view and makes it the root of the calling process. It is
// called once, in a mount namespace of the caller's own, before other threads
// depend on paths. On failure the process must end: it may be anywhere.
func Apply(plan Plan, opts Options) (*Report, error) {
	if err := plan.check(); err != nil {
		return nil, err
	}
	b := &builder{plan: plan, own: map[uint64]bool{}, trees: make([]int, len(plan)), root: -1, files: -1}
	for i := range b.trees {
		b.trees[i] = -1
	}
	defer b.close()
	old := unix.Umask(0)
	defer unix.Umask(old)

	b.last = time.Now()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make all mounts private: %w", err)
	}
	b.step("private")
	if err := b.openSources(); err != nil {
		return nil, err
	}
	b.step("sources")
	if err := b.makeStage(opts.Stage); err != nil {
		return nil, err
	}
	b.step("stage")
	for i := range plan {
		if err := b.do(i); err != nil {
			e := &Error{Op: plan[i], Err: err}
			if plan[i].Flags&Optional == 0 {
				return nil, e
			}
			b.report.Skipped = append(b.report.Skipped, e)
		}
		b.step(plan[i].Kind.String() + " " + plan[i].Target)
	}
	if err := b.pivot(); err != nil {
		return nil, err
	}
	b.step("pivot")
	return &b.report, nil
}

type builder struct {
	plan   Plan
	trees  []int // detached clones of bind sources, by operation
	layers []int // directories of the overlay: lowers, upper, work
	root   int   // O_PATH of the new root
	files  int   // O_PATH of the directory that holds covering files
	count  int   // files made there
	own    map[uint64]bool
	report Report
	last   time.Time
}

func (b *builder) step(name string) {
	now := time.Now()
	b.report.Steps = append(b.report.Steps, Step{Name: name, Took: now.Sub(b.last)})
	b.last = now
}

func (b *builder) close() {
	for _, list := range [][]int{b.trees, b.layers, {b.root, b.files}} {
		for _, fd := range list {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}
}

// openSources clones every bind source, and opens every layer, before anything
// covers it.
func (b *builder) openSources() error {
	for i := range b.plan {
		o := &b.plan[i]
		if o.Kind == Overlay {
			if err := b.openLayers(o); err != nil {
				return &Error{Op: *o, Err: err}
			}
		}
		if o.Kind != Bind {
			continue
		}
		fd, err := cloneSource(o)
		if err != nil {
			if o.Flags&Optional != 0 {
				b.report.Skipped = append(b.report.Skipped, &Error{Op: *o, Err: err})
				continue
			}
			return &Error{Op: *o, Err: err}
		}
		b.trees[i] = fd
	}
	return nil
}

func (b *builder) openLayers(o *Op) error {
	work, dirs := overlayDirs(o)
	if o.Source != "" {
		dirs = append(dirs, o.Source, work)
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	for _, d := range dirs {
		fd, err := unix.Openat2(unix.AT_FDCWD, d, &how)
		if err != nil {
			return fmt.Errorf("open %q: %w", d, err)
		}
		b.layers = append(b.layers, fd)
	}
	return nil
}

func cloneSource(o *Op) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	if o.Flags&NoFollow != 0 {
		how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, o.Source, &how)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	if err := checkType(fd, o.Flags); err != nil {
		return -1, err
	}
	return cloneTree(fd, o.Flags)
}

func checkType(fd int, flags Flags) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	device := flags&Device != 0
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFREG:
		if device {
			return errors.New("is not a device")
		}
	case unix.S_IFCHR:
		if !device {
			return errors.New("is a device; only directories and files can be shown")
		}
	default:
		return errors.New("is a socket, a pipe or a block device; only directories and files can be shown")
	}
	return nil
}

// cloneTree returns a detached recursive clone of the object fd, with the
// attributes of flags on every mount in it.
func cloneTree(fd int, flags Flags) (int, error) {
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("clone the tree: %w", err)
	}
	attr := unix.MountAttr{Attr_set: attributes(flags), Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		unix.Close(tree)
		return -1, fmt.Errorf("set mount attributes: %w", err)
	}
	return tree, nil
}

func attributes(flags Flags) uint64 {
	a := uint64(unix.MOUNT_ATTR_NOSUID)
	if flags&Device == 0 {
		a |= unix.MOUNT_ATTR_NODEV
	} else {
		a |= unix.MOUNT_ATTR_NOEXEC
	}
	if flags&ReadOnly != 0 {
		a |= unix.MOUNT_ATTR_RDONLY
	}
	if flags&NoExec != 0 {
		a |= unix.MOUNT_ATTR_NOEXEC
	}
	return a
}

// makeStage mounts a small tmpfs over a directory of the host. The root of the
// view is mounted in it, beside the files that cover others; the pivot leaves
// it behind.
func (b *builder) makeStage(dir string) error {
	try := stages
	if dir != "" {
		try = []string{dir}
	}
	at := -1
	var err error
	for _, s := range try {
		if at, err = unix.Open(s, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("find a directory to build the view over: %w", err)
	}
	defer unix.Close(at)
	stage, err := newFS("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "size=4m", "mode=0755")
	if err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	defer unix.Close(stage)
	if err := attach(stage, at); err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	for _, d := range []string{"root", "files", "files/none"} {
		if err := unix.Mkdirat(stage, d, 0o555); err != nil {
			return fmt.Errorf("stage: make %s: %w", d, err)
		}
	}
	fd, err := unix.Openat(stage, "files/empty", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("stage: make an empty file: %w", err)
	}
	unix.Close(fd)
	if b.files, err = openPath(stage, "files"); err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	if b.root, err = openPath(stage, "root"); err != nil { // the mount point until the root is mounted
		return fmt.Errorf("stage: %w", err)
	}
	return nil
}

func (b *builder) pivot() error {
	if err := unix.Fchdir(b.root); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot to the new root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	return nil
}
