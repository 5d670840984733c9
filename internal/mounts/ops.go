package mounts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// do carries out one operation.
func (b *builder) do(i int) error {
	o := &b.plan[i]
	if i == 0 {
		return b.makeRoot(o)
	}
	switch o.Kind {
	case Tmpfs, Proc, Devpts, Cgroup:
		return b.mountNew(o)
	case Bind:
		return b.bind(i, o)
	case Pin:
		return b.onto(o, func(at int) (int, error) { return cloneTree(at, o.Flags) })
	case Mask:
		return b.onto(o, func(at int) (int, error) { return b.emptyLike(at) })
	case Dir:
		fd, err := b.mkdirAll(o.Target, o.Mode)
		if err == nil {
			unix.Close(fd)
		}
		return err
	case File:
		return b.file(o)
	case Symlink:
		return b.inParent(o.Target, func(dir int, name string) error {
			return unix.Symlinkat(o.Source, dir, name)
		})
	case Seal:
		return b.seal(o)
	}
	return errors.New("unknown kind")
}

func (b *builder) makeRoot(o *Op) error {
	var err error
	switch o.Kind {
	case Tmpfs:
		var fd int
		if fd, err = newFS("tmpfs", attributes(o.Flags), tmpfsOptions(o)...); err == nil {
			err = attach(fd, b.root)
			unix.Close(fd)
		}
	case Overlay:
		err = b.mountOverlay(o)
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(b.root, "../root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the new root: %w", err)
	}
	unix.Close(b.root)
	b.root = fd
	return b.adopt(fd)
}

// mountOverlay names every directory by descriptor: no colon, comma or link in
// a path can change what is mounted.
func (b *builder) mountOverlay(o *Op) error {
	next := 0
	name := func() string {
		next++
		return "/proc/self/fd/" + strconv.Itoa(b.layers[next-1])
	}
	_, lowers := overlayDirs(o)
	opts := []string{"userxattr"} // the only form allowed in a user namespace; Linux 5.11
	var low []string
	for range lowers {
		low = append(low, name())
	}
	opts = append(opts, "lowerdir="+strings.Join(low, ":"))
	if o.Source != "" {
		opts = append(opts, "upperdir="+name(), "workdir="+name())
	}
	at := "/proc/self/fd/" + strconv.Itoa(b.root)
	if err := unix.Mount("overlay", at, "overlay", unix.MS_NOSUID|unix.MS_NODEV, strings.Join(opts, ",")); err != nil {
		return fmt.Errorf("mount the overlay (needs Linux 5.11 and a file system for the upper directory that keeps user attributes): %w", err)
	}
	return nil
}

func (b *builder) mountNew(o *Op) error {
	var fd int
	var err error
	switch o.Kind {
	case Tmpfs:
		fd, err = newFS("tmpfs", attributes(o.Flags), tmpfsOptions(o)...)
	case Proc:
		fd, err = newFS("proc", attributes(NoExec), "hidepid=4")
	case Devpts:
		fd, err = newFS("devpts", attributes(Device), "newinstance", "ptmxmode=0666", "mode=0620")
	case Cgroup:
		fd, err = newFS("cgroup2", attributes(NoExec|ReadOnly))
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	at, err := b.mkdirAll(o.Target, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if err := attach(fd, at); err != nil {
		return err
	}
	if o.Kind == Tmpfs {
		return b.adopt(fd)
	}
	return nil
}

func tmpfsOptions(o *Op) []string {
	size := o.Size
	if size == 0 {
		size = 1 << 20 // never the kernel's half of the memory
	}
	mode := o.Mode
	if mode == 0 {
		mode = 0o755
	}
	// An inode costs about a kilobyte of memory that size does not count.
	inodes := max(size/4096, 1024)
	return []string{"size=" + strconv.FormatUint(size, 10), "nr_inodes=" + strconv.FormatUint(inodes, 10), "mode=" + strconv.FormatUint(uint64(mode), 8)}
}

func (b *builder) bind(i int, o *Op) error {
	tree := b.trees[i]
	if tree < 0 {
		return nil // optional, and already reported
	}
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return err
	}
	at, err := b.target(o.Target, o.Flags)
	if errors.Is(err, unix.ENOENT) {
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			at, err = b.mkdirAll(o.Target, 0o755)
		} else {
			at, err = b.touch(o.Target)
		}
	}
	if err != nil {
		return fmt.Errorf("find the target: %w", err)
	}
	defer unix.Close(at)
	return attach(tree, at)
}

// onto opens the target once and attaches there what from makes of that very
// object, so that no rename in between can move the result elsewhere.
func (b *builder) onto(o *Op, from func(at int) (int, error)) error {
	at, err := b.target(o.Target, o.Flags|NoFollow)
	if err != nil {
		if errors.Is(err, unix.ENOENT) && o.Flags&IfThere != 0 {
			return nil
		}
		return fmt.Errorf("find the target: %w", err)
	}
	defer unix.Close(at)
	tree, err := from(at)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return attach(tree, at)
}

func (b *builder) emptyLike(at int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return -1, err
	}
	name := "empty"
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		name = "none"
	}
	return cloneAt(b.files, name, ReadOnly|NoExec)
}

func (b *builder) file(o *Op) error {
	if o.Flags&Cover == 0 {
		return b.inParent(o.Target, func(dir int, name string) error { return writeAt(dir, name, o.Mode, o.Data) })
	}
	at, err := b.coverable(o)
	if err != nil {
		return fmt.Errorf("find the target: %w", err)
	}
	if at < 0 {
		return nil
	}
	defer unix.Close(at)
	b.count++
	name := "f" + strconv.Itoa(b.count)
	if err := writeAt(b.files, name, o.Mode, o.Data); err != nil {
		return err
	}
	tree, err := cloneAt(b.files, name, ReadOnly|NoExec)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return attach(tree, at)
}

// coverable opens the target of a covering file, or makes it. A link whose end
// does not exist (resolv.conf often points into /run) is followed as far as it
// goes inside, and its end is made. A missing target without a link gives -1
// if the operation allows it.
func (b *builder) coverable(o *Op) (int, error) {
	path := o.Target
	for hops := 0; ; hops++ {
		at, err := b.target(path, o.Flags)
		if !errors.Is(err, unix.ENOENT) {
			return at, err
		}
		next, isLink := "", false
		if o.Flags&NoFollow == 0 && hops < 8 {
			next, isLink = b.readLink(path)
		}
		if !isLink {
			if path == o.Target && o.Flags&IfThere != 0 {
				return -1, nil
			}
			return b.touch(path)
		}
		path = next
	}
}

func (b *builder) seal(o *Op) error {
	at := b.root
	if o.Target != "/" {
		fd, err := b.target(o.Target, o.Flags|NoFollow)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		at = fd
	}
	return unix.MountSetattr(at, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}
