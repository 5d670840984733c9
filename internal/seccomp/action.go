package seccomp

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Action is an answer of the filter in the kernel's own encoding. The zero
// value ends the thread; a table that uses it is refused.
type Action uint32

// The answers a table may use, beside Deny.
const (
	Allow Action = unix.SECCOMP_RET_ALLOW
	Kill  Action = unix.SECCOMP_RET_KILL_PROCESS
)

const (
	actionMask = 0xffff0000
	maxErrno   = 4095
)

// Deny makes the call fail with the errno, without running it.
func Deny(errno syscall.Errno) Action {
	return Action(unix.SECCOMP_RET_ERRNO | uint32(errno)&0xffff)
}

// Errno returns the errno of a denial, and whether it is one.
func (a Action) Errno() (syscall.Errno, bool) {
	return syscall.Errno(a & 0xffff), uint32(a)&actionMask == unix.SECCOMP_RET_ERRNO
}

func (a Action) valid() bool {
	if errno, ok := a.Errno(); ok {
		return errno > 0 && errno <= maxErrno
	}
	return a == Allow || a == Kill
}

// String returns "allow", "kill" or the name of the errno.
func (a Action) String() string {
	if errno, ok := a.Errno(); ok {
		if name := unix.ErrnoName(errno); name != "" {
			return name
		}
		return "errno " + strconv.Itoa(int(errno))
	}
	switch a {
	case Allow:
		return "allow"
	case Kill:
		return "kill"
	}
	return "action 0x" + strconv.FormatUint(uint64(a), 16)
}
