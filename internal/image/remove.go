package image

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// removeTree removes a directory with all that is in it. It makes directories
// of ours accessible as it goes: an agent may have closed some in its upper
// directory, and the overlay's own work directory has no permission at all.
// It follows no link and crosses no mount.
func removeTree(name string) error {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return os.Remove(name)
	}
	fd, err := openDirAt(unix.AT_FDCWD, name)
	if err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil {
		err = emptyDir(fd, st.Dev, 0) // closes fd
	} else {
		unix.Close(fd)
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return os.Remove(name)
}

const removeDepthMax = 4096

// emptyDir removes what is in the directory fd, and closes it.
func emptyDir(fd int, dev uint64, depth int) error {
	dir := os.NewFile(uintptr(fd), ".")
	defer dir.Close()
	var first error
	note := func(err error) {
		if err != nil && err != unix.ENOENT && first == nil {
			first = err
		}
	}
	for {
		names, err := dir.Readdirnames(1024)
		if len(names) == 0 {
			if err != nil && !errors.Is(err, os.ErrClosed) && err.Error() != "EOF" {
				note(err)
			}
			return first
		}
		for _, name := range names {
			err := unix.Unlinkat(fd, name, 0)
			if err != unix.EISDIR && err != unix.EPERM {
				note(err)
				continue
			}
			if unix.Unlinkat(fd, name, unix.AT_REMOVEDIR) == nil {
				continue
			}
			if depth >= removeDepthMax {
				note(unix.ENAMETOOLONG)
				continue
			}
			sub, err := openDirAt(fd, name)
			if err != nil {
				note(err)
				continue
			}
			var st unix.Stat_t
			if err := unix.Fstat(sub, &st); err != nil || st.Dev != dev {
				unix.Close(sub)
				note(unix.EXDEV)
				continue
			}
			note(emptyDir(sub, dev, depth+1))
			note(unix.Unlinkat(fd, name, unix.AT_REMOVEDIR))
		}
		if first != nil {
			return first // do not read the same names for ever
		}
	}
}

// openDirAt opens a directory without following a link, after giving the
// owner access to it if that is missing.
func openDirAt(at int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, flags, 0)
	if err == nil {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&0o700 != 0o700 {
			_ = unix.Fchmod(fd, 0o700)
		}
		return fd, nil
	}
	if err != unix.EACCES {
		return -1, err
	}
	if err := unix.Fchmodat(at, name, 0o700, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return -1, err
	}
	return unix.Openat(at, name, flags, 0)
}
