package netlink

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open opens a netlink socket, closed on exec and non-blocking, in the calling
// thread's network namespace.
func Open(protocol int) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return -1, fmt.Errorf("opening netlink socket %d: %w", protocol, err)
	}
	return fd, nil
}

// Refusal is the kernel's answer to one message of a batch.
type Refusal struct {
	Seq   uint32
	Errno syscall.Errno
}

// Error says which message was refused and why.
func (r *Refusal) Error() string {
	return fmt.Sprintf("netlink message %d: %v", r.Seq, r.Errno)
}

// Unwrap returns the errno.
func (r *Refusal) Unwrap() error { return r.Errno }

// maxReplies bounds one exchange; the longest real one (a dump of the
// interfaces of a fresh namespace) has about ten.
const maxReplies = 4096

// buffer must hold one datagram; the kernel's are at most 32 KiB here.
const bufferLen = 32 << 10

// Exchange sends a batch whose messages are numbered first to last and passes
// every reply up to the end of the answer to last to each: its
// acknowledgement, its error, or the end of its dump. Replies with other
// numbers, left over from an exchange that was given up, are dropped.
// Refusals go to each as well, as messages of type NLMSG_ERROR, when it is not
// nil; the first refusal is also returned, as *Refusal.
//
// The kernel works a request off inside the send, so nothing is waited for: an
// answer that is not there is an error. Callers serialize use of one socket.
func Exchange(fd int, batch []byte, first, last uint32, each func(Message) error) error {
	if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending to netlink: %w", err)
	}
	var refused error
	buf := make([]byte, bufferLen)
	for replies := 0; replies < maxReplies; {
		n, from, err := receive(fd, buf)
		if err != nil {
			if refused != nil {
				return refused
			}
			return fmt.Errorf("reading from netlink: %w", err)
		}
		replies++ // an empty datagram counts too
		for b := buf[:n]; ; replies++ {
			m, rest, ok, err := Next(b)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			b = rest
			if from != 0 || m.Seq < first || m.Seq > last {
				continue // not from the kernel, or an old answer
			}
			errno, ends := m.Errno()
			if errno != 0 && refused == nil {
				refused = &Refusal{Seq: m.Seq, Errno: errno}
			}
			if each != nil {
				if err := each(m); err != nil {
					return err
				}
			}
			if m.Seq == last && ends {
				return refused
			}
		}
	}
	return fmt.Errorf("reading from netlink: more than %d replies", maxReplies)
}

// receive reads one datagram without waiting and names its sender's port.
func receive(fd int, buf []byte) (n int, from uint32, err error) {
	for {
		n, sa, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		if n > len(buf) {
			return 0, 0, unix.EMSGSIZE
		}
		if nl, ok := sa.(*unix.SockaddrNetlink); ok {
			return n, nl.Pid, nil
		}
		return n, ^uint32(0), nil
	}
}
