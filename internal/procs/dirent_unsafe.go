package procs

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// direntHeader is the fixed part of struct linux_dirent64: inode, offset,
// record length, type.
const direntHeader = 19

// direntsLen holds the names of about three hundred descriptors.
const direntsLen = 8 << 10

// entries passes the name of each directory entry, with its final NUL, to each
// until that returns false. It allocates nothing per entry.
func (s *search) entries(fd int, each func(name []byte) (bool, error)) error {
	if s.dirents == nil {
		s.dirents = make([]byte, direntsLen)
	}
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(fd, s.dirents) })
		if err != nil || n == 0 {
			return err
		}
		for b := s.dirents[:n]; len(b) > 0; {
			size, name, ok := dirent(b)
			if !ok {
				return errMalformed
			}
			b = b[size:]
			if name[0] == '.' {
				continue
			}
			if more, err := each(name); err != nil || !more {
				return err
			}
		}
	}
}

// dirent returns the length of the first record and its name with the NUL.
func dirent(b []byte) (size int, name []byte, ok bool) {
	if len(b) < direntHeader+2 {
		return 0, nil, false
	}
	size = int(binary.NativeEndian.Uint16(b[16:]))
	if size < direntHeader+2 || size > len(b) {
		return 0, nil, false
	}
	for i := direntHeader; i < size; i++ {
		if b[i] == 0 {
			return size, b[direntHeader : i+1], i > direntHeader
		}
	}
	return 0, nil, false
}

// numbers lists the entries of a directory that are numbers.
func (s *search) numbers(at int, path string, limit int) ([]int, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var out []int
	err = s.entries(fd, func(name []byte) (bool, error) {
		n := 0
		for _, c := range name[:len(name)-1] {
			if c < '0' || c > '9' || n > 1<<26 {
				return true, nil
			}
			n = n*10 + int(c-'0')
		}
		if out = append(out, n); len(out) > limit {
			return false, ErrTooMany
		}
		return true, nil
	})
	return out, err
}

// readlinkat is readlinkat(2) on a name that ends with NUL. A full buffer is
// no error: what is looked for is short.
func readlinkat(fd int, name, buf []byte) (int, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(fd), uintptr(unsafe.Pointer(&name[0])),
			uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
