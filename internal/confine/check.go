package confine

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
	"openshell.dev/openshell/internal/privs"
)

// Check is one line of the confirmation record.
type Check struct {
	Name string
	Want string // "allowed", or the names of the errnos that will do
	Got  string // "allowed", or the errno
	OK   bool
}

// attempt is a built-in check: it tries something that must end with one errno,
// or, with errno 0, must work. Each is chosen to do no harm where the wall is
// missing, and to end there with another errno than the wall's.
type attempt struct {
	name string
	want syscall.Errno
	try  func() error
}

// allowed is the word for success in a record.
const allowed = "allowed"

var attempts = []attempt{
	// Invalid arguments: without the filter EFAULT, EINVAL, ESRCH or EBADF.
	{"mounting", unix.EPERM, raw(unix.SYS_MOUNT, 0, 0, 0)},
	{"a new user namespace", unix.EPERM, raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER|unix.CSIGNAL, 0, 0)},
	{"clone3", unix.ENOSYS, raw(unix.SYS_CLONE3, 0, 0, 0)},
	{"entering a namespace", unix.EPERM, raw(unix.SYS_SETNS, badFD, 0, 0)},
	{"tracing", unix.EPERM, raw(unix.SYS_PTRACE, 0xffff, 1, 0)},
	{"memory of others", unix.EPERM, raw(unix.SYS_PROCESS_VM_READV, 1, 0, 0)},
	{"descriptors of others", unix.EPERM, raw(unix.SYS_PIDFD_GETFD, badFD, 0, 0)},
	{"limits of the launcher", unix.EPERM, raw(unix.SYS_PRLIMIT64, 1, unix.RLIMIT_NOFILE, 0)},
	{"io_uring", unix.ENOSYS, raw(unix.SYS_IO_URING_SETUP, 0, 0, 0)},
	{"keyrings", unix.ENOSYS, raw(unix.SYS_KEYCTL, 0xffff, 0, 0)},
	{"typing into the terminal", unix.EPERM, raw(unix.SYS_IOCTL, badFD, unix.TIOCSTI, 0)},
	{"urgent data", unix.EOPNOTSUPP, raw(unix.SYS_SENDTO, badFD, 0, 0, unix.MSG_OOB)},

	{"packet sockets", unix.EAFNOSUPPORT, socket(unix.AF_PACKET, unix.SOCK_RAW, 0)},
	{"crypto sockets", unix.EAFNOSUPPORT, socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)},
	{"vsock sockets", unix.EAFNOSUPPORT, socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)},
	{"netfilter netlink", unix.EPROTONOSUPPORT, socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)},
	{"multipath TCP", unix.EPROTONOSUPPORT, socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)},

	{"listing interfaces", 0, socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)},
	{"TCP sockets", 0, socket(unix.AF_INET, unix.SOCK_STREAM, 0)},
	{"Unix sockets", 0, socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)},
	{"own limits", 0, raw(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, 0)},
}

// badFD is a descriptor that nobody has.
const badFD = 1<<31 - 1

func raw(nr, a, b, c uintptr, more ...uintptr) func() error {
	var d uintptr
	if len(more) > 0 {
		d = more[0]
	}
	return func() error {
		if _, _, errno := unix.RawSyscall6(nr, a, b, c, d, 0, 0); errno != 0 {
			return errno
		}
		return nil
	}
}

func socket(family, kind, protocol int) func() error {
	return func() error {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

// confirm makes the record. All checks are made even when one fails, so that the
// record is whole; the error names the first.
func (s *state) confirm() error {
	s.report.Checks = make([]Check, 0, len(attempts)+len(s.spec.Probes)+4)
	state := func(name string, err error) {
		c := Check{Name: name, Want: "held", Got: "held", OK: err == nil}
		if err != nil {
			c.Got = err.Error()
		}
		s.report.Checks = append(s.report.Checks, c)
	}
	state("no capabilities", privs.VerifyNoCapabilities())
	state("no new privileges", privs.VerifyNoNewPrivs())
	for _, a := range attempts {
		if a.want == 0 {
			s.add(a.name, nil, a.try())
		} else {
			s.add(a.name, []syscall.Errno{a.want}, a.try())
		}
	}
	if s.report.Landlock.Scopes && !s.spec.Landlock.AbstractSockets {
		s.add("abstract sockets outside", []syscall.Errno{unix.EPERM}, s.reachOut())
	}
	s.add("signals to the launcher", []syscall.Errno{unix.EPERM}, unix.Kill(unix.Getpid(), 0))
	for _, p := range s.spec.Probes {
		s.add(p.Name, p.Want, p.try())
	}
	if failed := s.report.Failed(); len(failed) > 0 {
		return fmt.Errorf("%q: want %s, got %s: %w", failed[0].Name, failed[0].Want, failed[0].Got, ErrCheck)
	}
	return nil
}

func (s *state) add(name string, want []syscall.Errno, err error) {
	c := Check{Name: name, Want: allowed, Got: allowed}
	errno, isErrno := errors.AsType[syscall.Errno](err)
	switch {
	case err == nil:
	case isErrno:
		c.Got = errnoText(errno)
	default:
		c.Got = err.Error()
	}
	if len(want) == 0 {
		c.OK = err == nil
	} else {
		c.Want = ""
		for i, w := range want {
			if i > 0 {
				c.Want += " or "
			}
			c.Want += errnoText(w)
			c.OK = c.OK || isErrno && errno == w
		}
	}
	s.report.Checks = append(s.report.Checks, c)
}

func errnoText(e syscall.Errno) string {
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return e.Error()
}

// reachOut connects to the socket that was made before Landlock.
func (s *state) reachOut() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: s.address})
}
