// Package procs knows the processes of the namespace it runs in.
//
// It owns the reading of /proc (identity, ancestors, who holds a socket), and
// what only pid 1 can do to all others: freeze, thaw, end and reap them.
//
// It guarantees that an identity is of one process: everything is read through
// one descriptor of its /proc directory, which never means a later process of
// the same number. What a program can write (its name, its arguments) is
// bounded and parsed without trust. An answer that could not be completed is
// an error, so that a caller who denies on error is safe.
//
// It cannot see a descriptor that is in flight (sent and not yet received) or
// closed while a system call still uses it, nor, where /proc hides processes, a
// program whose file nobody but the host's root may read; who needs certainty
// must decide at connect time. It decides nothing. The launcher calls it, as pid 1 with
// CAP_SYS_PTRACE over the user namespace.
package procs

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrGone means that the process has ended, or is another one by now.
var ErrGone = errors.New("the process has ended")

// Process is a process at one moment.
type Process struct {
	PID       int
	PPID      int
	StartTime uint64 // clock ticks since boot; with PID an identity
	State     byte   // as in /proc/PID/stat: R S D T t Z X
	Comm      string // a program can write it
	Cmdline   string // the first KiB, NUL between arguments; a program can write it

	// Exe is the executable's path as the reading process sees it. It and the
	// fields below are empty for a process that has none left (a zombie).
	Exe      string
	ExeDev   uint64
	ExeInode uint64
	ExeSize  int64
	ExeMtime int64 // nanoseconds
	ExeCtime int64 // nanoseconds
	Deleted  bool  // the executable has no name any more, or never had one
}

const (
	maxComm    = 64 // the kernel's is 16; a kernel thread's may be longer
	maxCmdline = 1 << 10
	maxStat    = 4 << 10
	maxStatus  = 16 << 10
)

// dir is an open /proc/PID. Reads fail with ESRCH once the process is gone.
type dir struct {
	fd  int
	pid int
}

func openDir(pid int) (dir, error) {
	if pid <= 0 {
		return dir{}, ErrGone
	}
	fd, err := retry(func() (int, error) {
		return unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return dir{}, gone(err)
	}
	return dir{fd: fd, pid: pid}, nil
}

func (d dir) close() { unix.Close(d.fd) }

// read reads at most limit bytes of a file of the process.
func (d dir) read(name string, limit int) ([]byte, error) {
	fd, err := d.open(name)
	if err != nil {
		return nil, gone(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, limit)
	n := 0
	for n < limit {
		m, err := retry(func() (int, error) { return unix.Read(fd, buf[n:]) })
		if err != nil {
			return nil, gone(err)
		}
		if m == 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}

func (d dir) open(name string) (int, error) {
	return retry(func() (int, error) { return unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0) })
}

// process reads the identity. The executable is read between two looks at the
// start time, which a directory descriptor makes a formality.
func (d dir) process() (Process, error) {
	raw, err := d.read("stat", maxStat)
	if err != nil {
		return Process{}, err
	}
	st, err := parseStat(raw)
	if err != nil {
		return Process{}, err
	}
	p := Process{PID: d.pid, PPID: st.ppid, StartTime: st.start, State: st.state, Comm: st.comm}
	if st.pid != d.pid {
		return Process{}, fmt.Errorf("/proc/%d describes process %d: another pid namespace's /proc", d.pid, st.pid)
	}
	if st.state == 'Z' || st.state == 'X' {
		return p, nil
	}
	if err := d.executable(&p); err != nil {
		return Process{}, err
	}
	cmdline, err := d.read("cmdline", maxCmdline)
	if err != nil {
		return Process{}, err
	}
	p.Cmdline = string(cmdline)
	return p, nil
}

func (d dir) executable(p *Process) error {
	var st unix.Stat_t
	_, err := retry(func() (int, error) { return 0, unix.Fstatat(d.fd, "exe", &st, 0) })
	if err == unix.ENOENT { // a kernel thread, or a process on its way out
		return nil
	}
	if err != nil {
		return gone(err)
	}
	path, err := d.link("exe")
	if err != nil {
		return err
	}
	p.Exe, p.ExeDev, p.ExeInode, p.ExeSize = path, st.Dev, st.Ino, st.Size
	p.ExeMtime, p.ExeCtime = st.Mtim.Nano(), st.Ctim.Nano()
	if st.Nlink == 0 {
		p.Deleted = true
		p.Exe = trimDeleted(p.Exe)
	}
	return nil
}

// link reads a symbolic link of the process; a path longer than the kernel's
// bound is an error, not half a path.
func (d dir) link(name string) (string, error) {
	buf := make([]byte, unix.PathMax+1)
	n, err := retry(func() (int, error) { return unix.Readlinkat(d.fd, name, buf) })
	if err != nil {
		return "", gone(err)
	}
	if n > unix.PathMax {
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}

// gone makes ErrGone of the errors that a vanished process gives.
func gone(err error) error {
	if err == unix.ENOENT || err == unix.ESRCH {
		return ErrGone
	}
	return err
}

// retry repeats a call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}
