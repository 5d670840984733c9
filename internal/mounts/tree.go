package mounts

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// newFS returns a detached mount of a new file system. Options are "key=value"
// or a bare flag.
func newFS(fstype string, attr uint64, options ...string) (int, error) {
	ctx, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make a %s: %w", fstype, err)
	}
	defer unix.Close(ctx)
	for _, o := range options {
		if key, value, ok := strings.Cut(o, "="); ok {
			err = unix.FsconfigSetString(ctx, key, value)
		} else {
			err = unix.FsconfigSetFlag(ctx, o)
		}
		if err != nil {
			return -1, fmt.Errorf("make a %s: option %s: %w", fstype, o, err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, fmt.Errorf("make a %s: %w", fstype, err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, int(attr))
	if err != nil {
		return -1, fmt.Errorf("mount a %s: %w", fstype, err)
	}
	return fd, nil
}

func attach(tree, at int) error {
	if err := unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

func openPath(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func cloneAt(dir int, name string, flags Flags) (int, error) {
	fd, err := openPath(dir, name)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	return cloneTree(fd, flags)
}

// adopt notes a file system as our own: only there may objects be made.
func (b *builder) adopt(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	b.own[st.Dev] = true
	return nil
}

// target opens path in the new root. Links stay inside the new root.
func (b *builder) target(path string, flags Flags) (int, error) {
	return openIn(b.root, path, flags)
}

func openIn(root int, path string, flags Flags) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if flags&NoFollow != 0 {
		how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(root, "."+path, &how)
		// EAGAIN: somebody renamed something during the walk.
		if err == nil || !errors.Is(err, unix.EAGAIN) || tries == 64 {
			return fd, err
		}
	}
}

// mkdirAll opens the directory path, making what is missing on our own file
// systems only.
func (b *builder) mkdirAll(path string, mode uint32) (int, error) {
	fd, err := b.target(path, 0)
	if err == nil || !errors.Is(err, unix.ENOENT) || path == "/" {
		return fd, err
	}
	dir, name := split(path)
	parent, err := b.mkdirAll(dir, 0o755)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if err := b.mayMake(parent, path); err != nil {
		return -1, err
	}
	if mode == 0 {
		mode = 0o755
	}
	if err := unix.Mkdirat(parent, name, mode); err != nil {
		return -1, fmt.Errorf("make directory %q: %w", path, err)
	}
	return openPath(parent, name)
}

// readLink returns what the link at path points to, as a path of the new root.
func (b *builder) readLink(path string) (string, bool) {
	dir, name := split(path)
	at, err := b.target(dir, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(at)
	buf := make([]byte, MaxPath)
	n, err := unix.Readlinkat(at, name, buf)
	if err != nil || n == 0 || n == len(buf) {
		return "", false
	}
	text := string(buf[:n])
	if text[0] == '/' {
		dir = "/"
	}
	var parts []string
	for part := range strings.SplitSeq(dir+"/"+text, "/") {
		switch part {
		case "", ".":
		case "..":
			parts = parts[:max(len(parts)-1, 0)]
		default:
			parts = append(parts, part)
		}
	}
	return "/" + strings.Join(parts, "/"), len(parts) > 0
}

// touch makes an empty file to mount on.
func (b *builder) touch(path string) (int, error) {
	at := -1
	err := b.inParent(path, func(dir int, name string) error {
		fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o444)
		if err != nil {
			return err
		}
		unix.Close(fd)
		at, err = openPath(dir, name)
		return err
	})
	return at, err
}

// inParent calls make with the parent directory of path, which is made if need be.
func (b *builder) inParent(path string, make func(dir int, name string) error) error {
	dir, name := split(path)
	fd, err := b.mkdirAll(dir, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := b.mayMake(fd, path); err != nil {
		return err
	}
	return make(fd, name)
}

func (b *builder) mayMake(parent int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(parent, &st); err != nil {
		return err
	}
	if !b.own[st.Dev] {
		return fmt.Errorf("%q does not exist, and nothing may be made there: it belongs to the host: %w", path, unix.ENOENT)
	}
	return nil
}

func writeAt(dir int, name string, mode uint32, data []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i == 0 {
		return "/", path[1:]
	}
	return path[:i], path[i+1:]
}
