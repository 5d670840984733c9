package authn

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// PeerIsOwner reports whether the other end of a Unix socket is a process of
// our own account in our own user namespace. The second half matters: inside
// a sandbox an agent has a namespace of its own, in which our numeric id is
// mapped, and the socket would see the same uid.
func PeerIsOwner(c *net.UnixConn) (bool, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false, err
	}
	var cred *unix.Ucred
	pidfd := -1
	var inner error
	err = raw.Control(func(fd uintptr) {
		if cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); inner != nil {
			return
		}
		// Kernel 6.5; without it the pid may have been used again, which
		// the check of the start below cannot see. It is the second fence.
		if p, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD); err == nil {
			pidfd = p
		}
	})
	if pidfd >= 0 {
		defer unix.Close(pidfd)
	}
	if err != nil {
		return false, err
	}
	if inner != nil {
		return false, inner
	}
	if int(cred.Uid) != os.Geteuid() || cred.Pid <= 0 {
		return false, nil
	}
	ours, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return false, fmt.Errorf("read our user namespace: %w", err)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", cred.Pid))
	if err != nil || theirs != ours {
		return false, nil // gone, or not ours to look at: not the owner
	}
	if pidfd >= 0 && unix.PidfdSendSignal(pidfd, 0, nil, 0) != nil {
		return false, nil // it ended meanwhile: the link may have been another's
	}
	return true, nil
}
