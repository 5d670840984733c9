// Command refusals asks the kernel for every kind of socket, every netlink
// protocol, every rtnetlink message and some calls that no program inside
// needs, and prints each answer: what it asked, and the name of the errno.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var out = bufio.NewWriter(os.Stdout)

func main() {
	sockets()
	netlink()
	if err := messages(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	calls()
	out.Flush()
}

func say(errno syscall.Errno, format string, args ...any) {
	name := unix.ErrnoName(errno)
	switch errno {
	case 0:
		name = "OK"
	case unix.EOPNOTSUPP:
		name = "EOPNOTSUPP" // has two names
	}
	fmt.Fprintf(out, format+" %s\n", append(args, name)...)
}

// raw makes a socket with whole registers, which a library would cut.
func raw(call string, family, kind, protocol uint64) {
	nr := map[string]uintptr{"socket": unix.SYS_SOCKET, "socketpair": unix.SYS_SOCKETPAIR}[call]
	var pair [2]int32
	fd, _, errno := syscall.Syscall6(nr, uintptr(family), uintptr(kind), uintptr(protocol), uintptr(unsafe.Pointer(&pair)), 0, 0)
	if errno == 0 {
		if call == "socket" {
			unix.Close(int(fd))
		} else {
			unix.Close(int(pair[0]))
			unix.Close(int(pair[1]))
		}
	}
	say(errno, "%s %#x %#x %d", call, family, kind, protocol)
}

func sockets() {
	for family := range uint64(51) {
		for kind := range uint64(11) {
			for _, call := range []string{"socket", "socketpair"} {
				for _, flags := range []uint64{0, unix.SOCK_CLOEXEC, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
					raw(call, family, kind|flags, 0)
				}
			}
		}
		raw("socket", family|1<<32, unix.SOCK_DGRAM, 0)
	}
	for _, kind := range []uint64{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		for protocol := range uint64(300) {
			raw("socket", unix.AF_INET, kind, protocol)
			raw("socket", unix.AF_INET6, kind, protocol)
		}
	}
}

func netlink() {
	for protocol := range uint64(31) {
		for _, kind := range []uint64{unix.SOCK_RAW, unix.SOCK_DGRAM, unix.SOCK_RAW | unix.SOCK_CLOEXEC} {
			raw("socket", unix.AF_NETLINK, kind, protocol)
			raw("socket", unix.AF_NETLINK, kind, protocol|1<<32)
		}
	}
}

// messages sends every rtnetlink message type and prints the kernel's answer.
func messages() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	for kind := unix.RTM_BASE; kind < 160; kind++ {
		m := make([]byte, 16+32)
		binary.NativeEndian.PutUint32(m, uint32(len(m)))
		binary.NativeEndian.PutUint16(m[4:], uint16(kind))
		flags := unix.NLM_F_REQUEST | unix.NLM_F_ACK
		if kind%4 == 0 { // RTM_NEW*
			flags |= unix.NLM_F_CREATE
		}
		binary.NativeEndian.PutUint16(m[6:], uint16(flags))
		binary.NativeEndian.PutUint32(m[8:], uint32(kind))
		if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("send %d: %w", kind, err)
		}
		errno, err := answer(fd, uint32(kind))
		if err != nil {
			return fmt.Errorf("answer to %d: %w", kind, err)
		}
		say(errno, "rtnetlink %d", kind)
	}
	return nil
}

// answer reads up to the error or the acknowledgement of a message.
func answer(fd int, seq uint32) (syscall.Errno, error) {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return 0, err
		}
		for b := buf[:n]; len(b) >= 16; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < 16 || size > len(b) {
				return 0, fmt.Errorf("a message of %d bytes", size)
			}
			mine := binary.NativeEndian.Uint32(b[8:]) == seq
			if kind := binary.NativeEndian.Uint16(b[4:]); mine && kind == unix.NLMSG_ERROR && size >= 20 {
				return syscall.Errno(-int32(binary.NativeEndian.Uint32(b[16:]))), nil
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

func calls() {
	var space [256]byte
	at := uintptr(unsafe.Pointer(&space))
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, c := range []struct {
		name string
		nr   uintptr
		args [6]uintptr
	}{
		{"unshare-user", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWUSER}},
		{"unshare-net-high-bits", unix.SYS_UNSHARE, [6]uintptr{1<<32 | unix.CLONE_NEWNET}},
		{"clone-user", unix.SYS_CLONE, [6]uintptr{unix.CLONE_NEWUSER | uintptr(syscall.SIGCHLD)}},
		{"clone3", unix.SYS_CLONE3, [6]uintptr{at, 88}},
		{"setns", unix.SYS_SETNS, [6]uintptr{0, 0}},
		{"mount", unix.SYS_MOUNT, [6]uintptr{at, at, at, 0, 0}},
		{"umount2", unix.SYS_UMOUNT2, [6]uintptr{at, 0}},
		{"pivot_root", unix.SYS_PIVOT_ROOT, [6]uintptr{at, at}},
		{"chroot", unix.SYS_CHROOT, [6]uintptr{at}},
		{"fsopen", unix.SYS_FSOPEN, [6]uintptr{at, 0}},
		{"open_tree", unix.SYS_OPEN_TREE, [6]uintptr{0, at, 0}},
		{"ptrace", unix.SYS_PTRACE, [6]uintptr{unix.PTRACE_TRACEME}},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [6]uintptr{1}},
		{"pidfd_getfd", unix.SYS_PIDFD_GETFD, [6]uintptr{0, 0, 0}},
		{"prlimit-of-another", unix.SYS_PRLIMIT64, [6]uintptr{1, unix.RLIMIT_NOFILE, 0, at}},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [6]uintptr{1, at}},
		{"bpf", unix.SYS_BPF, [6]uintptr{0, at, 16}},
		{"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{1}},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{at}},
		{"keyctl", unix.SYS_KEYCTL, [6]uintptr{0}},
		{"add_key", unix.SYS_ADD_KEY, [6]uintptr{at, at, at, 0, 0}},
		{"kexec_load", unix.SYS_KEXEC_LOAD, [6]uintptr{0}},
		{"init_module", unix.SYS_INIT_MODULE, [6]uintptr{at, 0, at}},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{0, at, 0}},
		{"TIOCSTI", unix.SYS_IOCTL, [6]uintptr{0, unix.TIOCSTI, at}},
		{"TIOCSTI-high-bits", unix.SYS_IOCTL, [6]uintptr{0, 0xdeadbeef<<32 | unix.TIOCSTI, at}},
		{"TIOCLINUX", unix.SYS_IOCTL, [6]uintptr{0, 1<<63 | unix.TIOCLINUX, at}},
		{"MSG_OOB-send", unix.SYS_SENDTO, [6]uintptr{uintptr(fds[0]), at, 1, unix.MSG_OOB, 0, 0}},
		{"MSG_OOB-receive", unix.SYS_RECVFROM, [6]uintptr{uintptr(fds[1]), at, 1, unix.MSG_OOB | unix.MSG_DONTWAIT, 0, 0}},
		{"unlisted-call", 600, [6]uintptr{}},
	} {
		_, _, errno := syscall.Syscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		if c.name == "clone-user" && errno == 0 {
			// The child returns here as well, and nobody may go on twice.
			unix.Exit(0)
		}
		say(errno, "%s", c.name)
	}
}
