package procs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrTooMany means that a scan would have to look at more than its bounds.
var ErrTooMany = errors.New("too many processes or descriptors to look at")

// Bounds of one search.
const (
	maxProcesses   = 1 << 16
	maxDescriptors = 1 << 20
	// maxRounds bounds the looks for processes born during the search. Each
	// round only reads the new ones, so even a busy build runs out of them.
	maxRounds = 64
)

// Holders returns every process that has the socket open, by inode, in the
// order found. Processes in hints are looked at first, then the newest, so
// that a short-lived one is met while it lives; all are looked at in any case,
// and those born meanwhile too, because a socket inherited or passed on has
// several owners and all of them count. Nobody is no error: the list is empty.
//
// A process that ends during the search is left out. One that cannot be
// looked at is an error.
func Holders(inode uint64, hints []int) ([]Process, error) {
	if inode == 0 {
		return nil, nil // a closed socket has no file
	}
	s := search{inode: inode, seen: map[int]bool{}, budget: maxDescriptors}
	if err := s.run(hints, false); err != nil {
		return nil, fmt.Errorf("looking for the holders of socket %d: %w", inode, err)
	}
	if len(s.found) > 0 {
		return s.found, nil
	}
	// A thread may have a descriptor table of its own.
	clear(s.seen)
	if err := s.run(hints, true); err != nil {
		return nil, fmt.Errorf("looking for the holders of socket %d: %w", inode, err)
	}
	return s.found, nil
}

// search is the state of one call of Holders.
type search struct {
	inode   uint64
	seen    map[int]bool // processes looked at
	budget  int          // descriptors that may still be looked at
	found   []Process
	dirents []byte // reused
	link    [64]byte
}

func (s *search) run(hints []int, threads bool) error {
	todo := slices.Clone(hints)
	for range maxRounds {
		pids, err := s.numbers(unix.AT_FDCWD, "/proc", maxProcesses)
		if err != nil {
			return err
		}
		slices.Sort(pids)
		slices.Reverse(pids)
		fresh := 0
		for _, pid := range append(todo, pids...) {
			if s.seen[pid] || pid <= 1 {
				continue
			}
			fresh++
			s.seen[pid] = true
			if err := s.look(pid, threads); err != nil && !errors.Is(err, ErrGone) {
				return fmt.Errorf("process %d: %w", pid, err)
			}
		}
		if fresh == 0 {
			return nil
		}
		todo = nil
	}
	return ErrTooMany
}

// look adds the process to found if it holds the socket.
func (s *search) look(pid int, threads bool) error {
	d, err := openDir(pid)
	if err != nil {
		return err
	}
	defer d.close()
	holds, err := s.holds(d, threads)
	if err != nil || !holds {
		return err
	}
	p, err := d.process()
	if err != nil {
		return err
	}
	s.found = append(s.found, p)
	return nil
}

func (s *search) holds(d dir, threads bool) (bool, error) {
	tasks := []int{d.pid}
	if threads {
		var err error
		if tasks, err = s.numbers(d.fd, "task", maxProcesses); err != nil {
			return false, gone(err)
		}
	}
	for _, tid := range tasks {
		path := "fd"
		if threads {
			path = taskFile(tid, "fd")
		}
		holds, err := s.listed(d, path)
		if err == unix.EACCES {
			// Its directory is closed: it made itself undumpable.
			holds, err = s.taken(d, tid)
		}
		if err = gone(err); err != nil && !(threads && errors.Is(err, ErrGone)) {
			return false, err
		}
		if holds {
			return true, nil
		}
	}
	return false, nil
}

// listed looks through a descriptor directory.
func (s *search) listed(d dir, path string) (bool, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.fd, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	holds := false
	err = s.entries(fd, func(name []byte) (bool, error) {
		if s.budget--; s.budget < 0 {
			return false, ErrTooMany
		}
		n, err := readlinkat(fd, name, s.link[:])
		if err != nil {
			if err == unix.ENOENT {
				return true, nil // closed meanwhile
			}
			return false, err
		}
		inode, ok := parseSocket(s.link[:n])
		holds = ok && inode == s.inode
		return !holds, nil
	})
	return holds, err
}

// pidfdThread is PIDFD_THREAD (Linux 6.9).
const pidfdThread = unix.O_EXCL

// taken looks at every descriptor slot of a process whose directory is closed,
// by taking a copy of each.
func (s *search) taken(d dir, tid int) (bool, error) {
	status, err := d.read("status", maxStatus)
	if err != nil {
		return false, err
	}
	slots, err := parseFDSize(status)
	if err != nil {
		return false, err
	}
	flags := 0
	if tid != d.pid {
		flags = pidfdThread
	}
	pidfd, err := unix.PidfdOpen(tid, flags)
	if err != nil {
		return false, err
	}
	defer unix.Close(pidfd)
	// The directory outlives no process: if it still answers, the number
	// meant this process when the pidfd was made.
	if _, err := d.read("stat", maxStat); err != nil {
		return false, err
	}
	for n := range slots {
		if s.budget--; s.budget < 0 {
			return false, ErrTooMany
		}
		fd, err := retry(func() (int, error) { return unix.PidfdGetfd(pidfd, n, 0) })
		if err == unix.EBADF {
			continue
		}
		if err != nil {
			return false, err
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err != nil {
			return false, err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK && st.Ino == s.inode {
			return true, nil
		}
	}
	return false, nil
}

// taskFile is the path of a thread's file below its process' directory.
func taskFile(tid int, name string) string { return "task/" + strconv.Itoa(tid) + "/" + name }
