package view

import (
	"errors"
	"hash/fnv"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pool keeps unused placeholders beside the journals. Making a directory costs
// a file system up to a quarter of a millisecond, renaming one a hundredth;
// a sandbox needs about eight. It works where the workspace and the state are
// on one file system, and is never needed: without it placeholders are made.
type pool struct {
	dir  int                 // descriptor, -1: no pool
	free map[string][]string // kind of placeholder -> names
	used map[string]bool     // names taken in the directory
}

const (
	poolDir   = "pool"
	poolSlots = 16 // of each kind
)

func openPool(journals string) *pool {
	p := &pool{dir: -1, free: map[string][]string{}, used: map[string]bool{}}
	path := join(journals, poolDir)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && os.Mkdir(path, 0o700) == nil {
		f, err = os.Open(path)
	}
	if err != nil {
		return p
	}
	defer f.Close()
	if p.dir, err = unix.Openat(int(f.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		p.dir = -1
		return p
	}
	names, _ := f.Readdirnames(256)
	for _, n := range names {
		p.used[n] = true
		if kind, _, ok := strings.Cut(n, "-"); ok {
			p.free[kind] = append(p.free[kind], n)
		}
	}
	return p
}

func (p *pool) close() {
	if p != nil && p.dir >= 0 {
		unix.Close(p.dir)
	}
}

// kind is the part of a name in the pool that says what the object is.
func (e entry) kind() string {
	if !e.file {
		return "d"
	}
	h := fnv.New64a()
	h.Write([]byte(e.content))
	return "f" + strconv.FormatUint(h.Sum64(), 16)
}

// take moves an unused placeholder to name in dir. An existing name is left
// alone and reported as EEXIST; other failures mean that one must be made.
func (p *pool) take(e entry, dir int, name string) (bool, error) {
	if p.dir < 0 {
		return false, nil
	}
	kind := e.kind()
	for len(p.free[kind]) > 0 {
		last := len(p.free[kind]) - 1
		from := p.free[kind][last]
		p.free[kind] = p.free[kind][:last]
		if !pristine(p.dir, from, e) {
			continue // somebody's file got into it: kept, not used
		}
		switch err := unix.Renameat2(p.dir, from, dir, name, unix.RENAME_NOREPLACE); {
		case err == nil:
			delete(p.used, from)
			return true, nil
		case errors.Is(err, unix.EEXIST):
			return false, err
		default:
			return false, nil // another file system, or one without this call
		}
	}
	return false, nil
}

// put moves an untouched placeholder into the pool, if there is room.
func (p *pool) put(e entry, dir int, name string) bool {
	if p == nil || p.dir < 0 {
		return false
	}
	for i := range poolSlots {
		slot := e.kind() + "-" + strconv.Itoa(i)
		if p.used[slot] {
			continue
		}
		if unix.Renameat2(dir, name, p.dir, slot, unix.RENAME_NOREPLACE) != nil {
			return false
		}
		if !pristine(p.dir, slot, e) { // used in this very moment: it goes back
			unix.Renameat2(p.dir, slot, dir, name, unix.RENAME_NOREPLACE)
			return true
		}
		p.used[slot] = true
		return true
	}
	return false
}

// pristine reports whether the object is as it was made.
func pristine(dir int, name string, e entry) bool {
	if !e.file {
		f, err := reopenBelow(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return false
		}
		defer f.Close()
		names, _ := f.Readdirnames(1)
		return len(names) == 0
	}
	f, err := reopenBelow(dir, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return false
	}
	defer f.Close()
	buf := make([]byte, len(e.content)+1)
	n, _ := f.ReadAt(buf, 0)
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular() && string(buf[:n]) == e.content
}
