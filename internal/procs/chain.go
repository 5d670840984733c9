package procs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// MaxChain bounds the number of ancestors looked at.
const MaxChain = 128

// ErrTooDeep means that a process has more than MaxChain ancestors.
var ErrTooDeep = errors.New("too many ancestors")

// chainTries bounds how often a chain is read again because a member ended
// meanwhile, which gives its children another parent.
const chainTries = 8

// Read returns the process with the given number.
func Read(pid int) (Process, error) {
	d, err := openDir(pid)
	if err != nil {
		return Process{}, err
	}
	defer d.close()
	return d.process()
}

// Chain returns the process and its ancestors, nearest first, without pid 1.
// All were in this relation at one moment: every start time and parent is read
// again at the end. ErrGone if the process itself has ended. A caller that
// knows the process from before compares the start time of the first.
func Chain(pid int) ([]Process, error) {
	for range chainTries {
		chain, err := readChain(pid)
		if err == nil && unchanged(chain) {
			return chain, nil
		}
		if err != nil && (!errors.Is(err, ErrGone) || len(chain) == 0) {
			return nil, fmt.Errorf("reading the ancestors of process %d: %w", pid, err)
		}
	}
	return nil, fmt.Errorf("reading the ancestors of process %d: they change all the time", pid)
}

func readChain(pid int) (chain []Process, err error) {
	for next := pid; next > 1; {
		if len(chain) > MaxChain {
			return chain, ErrTooDeep
		}
		p, err := Read(next)
		if err != nil {
			return chain, err
		}
		if len(chain) > 0 && p.StartTime > chain[len(chain)-1].StartTime {
			return chain, ErrGone // younger than its child: the number was reused
		}
		chain = append(chain, p)
		next = p.PPID
	}
	if len(chain) == 0 {
		return nil, ErrGone
	}
	return chain, nil
}

func unchanged(chain []Process) bool {
	for _, p := range chain {
		d, err := openDir(p.PID)
		if err != nil {
			return false
		}
		raw, err := d.read("stat", maxStat)
		d.close()
		if err != nil {
			return false
		}
		st, err := parseStat(raw)
		if err != nil || st.start != p.StartTime || st.ppid != p.PPID {
			return false
		}
	}
	return true
}

// OpenExe opens the executable of a process for reading. A number that means
// another process by now is ErrGone. The process may have executed something
// else since it was read: compare the file's device and inode with its
// Process. The caller closes the descriptor.
func OpenExe(pid int, startTime uint64) (fd int, err error) {
	d, err := openDir(pid)
	if err != nil {
		return -1, err
	}
	defer d.close()
	raw, err := d.read("stat", maxStat)
	if err != nil {
		return -1, err
	}
	st, err := parseStat(raw)
	if err != nil {
		return -1, err
	}
	if st.start != startTime {
		return -1, ErrGone
	}
	fd, err = d.open("exe")
	if err != nil {
		return -1, fmt.Errorf("opening the executable of process %d: %w", pid, gone(err))
	}
	var file unix.Stat_t
	if err := unix.Fstat(fd, &file); err != nil || file.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, fmt.Errorf("the executable of process %d is no regular file", pid)
	}
	return fd, nil
}
