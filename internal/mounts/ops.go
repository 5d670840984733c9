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
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	name := func(dir string) (string, error) {
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
		fd, err := unix.Openat2(unix.AT_FDCWD, dir, &how)
		if err != nil {
			return "", fmt.Errorf("open %q: %w", dir, err)
		}
		fds = append(fds, fd)
		return "/proc/self/fd/" + strconv.Itoa(fd), nil
	}
	work, lowers := overlayDirs(o)
	opts := []string{"userxattr"} // the only form allowed in a user namespace; Linux 5.11
	var low []string
	for _, l := range lowers {
		n, err := name(l)
		if err != nil {
			return err
		}
		low = append(low, n)
	}
	opts = append(opts, "lowerdir="+strings.Join(low, ":"))
	if o.Source != "" {
		up, err := name(o.Source)
		if err != nil {
			return err
		}
		wk, err := name(work)
		if err != nil {
			return err
		}
		opts = append(opts, "upperdir="+up, "workdir="+wk)
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
		fd, err = newFS("proc", attributes(NoExec), "hidepid=2")
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
	at, err := b.target(o.Target, o.Flags)
	if errors.Is(err, unix.ENOENT) {
		if o.Flags&IfThere != 0 {
			return nil
		}
		at, err = b.touch(o.Target)
	}
	if err != nil {
		return fmt.Errorf("find the target: %w", err)
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
