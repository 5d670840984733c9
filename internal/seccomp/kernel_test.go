package seccomp

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/internal/privs"
)

// install puts the default filter on the calling thread of a child.
func install(t *testing.T) {
	t.Helper()
	if err := privs.NoNewPrivs(); err != nil {
		t.Fatal(err)
	}
	filter, err := Default().Assemble()
	if err != nil {
		t.Fatal(err)
	}
	if err := Install(filter); err != nil {
		t.Fatal(err)
	}
}

// wanted is the answer to socket(2) that programs shall see, written without
// the table.
func wanted(family, kind, protocol int) syscall.Errno {
	switch family {
	case unix.AF_UNIX:
		switch kind {
		case unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET, unix.SOCK_RAW: // the kernel takes raw for datagram
			if protocol > 1 {
				return unix.EPROTONOSUPPORT
			}
			return 0
		}
		if protocol > 1 { // the kernel looks at the protocol first
			return unix.EPROTONOSUPPORT
		}
		return unix.ESOCKTNOSUPPORT
	case unix.AF_NETLINK:
		if protocol != 0 {
			return unix.EPROTONOSUPPORT
		}
		if kind == unix.SOCK_RAW || kind == unix.SOCK_DGRAM {
			return 0
		}
		return unix.ESOCKTNOSUPPORT
	case unix.AF_INET, unix.AF_INET6:
		switch kind {
		case unix.SOCK_STREAM:
			if protocol != 0 && protocol != unix.IPPROTO_TCP {
				return unix.EPROTONOSUPPORT
			}
			return 0
		case unix.SOCK_DGRAM:
			if protocol != 0 && protocol != unix.IPPROTO_UDP {
				return unix.EPROTONOSUPPORT
			}
			return 0
		case unix.SOCK_RAW, unix.SOCK_PACKET:
			return unix.EPERM
		}
		return unix.ESOCKTNOSUPPORT
	}
	return unix.EAFNOSUPPORT
}

func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	return err.(syscall.Errno)
}

func TestSocketsOfEveryFamilyTypeAndProtocol(t *testing.T) {
	kerneltest.Require(t, kerneltest.Seccomp)
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		install(t)
		made := 0
		for family := range 51 {
			for kind := 1; kind <= 10; kind++ {
				for _, flags := range []int{0, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
					for _, protocol := range append([]int{unix.IPPROTO_SCTP, unix.IPPROTO_UDPLITE, unix.IPPROTO_MPTCP, 256, 0xffff}, upTo(30)...) {
						fd, err := unix.Socket(family, kind|flags, protocol)
						if err == nil {
							unix.Close(fd)
							made++
						}
						if got, want := errnoOf(err), wanted(family, kind, protocol); got != want {
							t.Errorf("socket(%d, %d|%#x, %d) = %v, want %v", family, kind, flags, protocol, got, want)
						}
					}
				}
			}
		}
		t.Logf("%d sockets made", made)
		for family := range 51 {
			for protocol := range 31 {
				_, err := unix.Socketpair(family, unix.SOCK_STREAM, protocol)
				got := errnoOf(err)
				switch {
				case family == unix.AF_UNIX && protocol <= 1 && got != 0,
					family != unix.AF_UNIX && got == 0,
					wanted(family, unix.SOCK_STREAM, protocol) == unix.EAFNOSUPPORT && got != unix.EAFNOSUPPORT:
					t.Errorf("socketpair(%d, stream, %d) = %v", family, protocol, got)
				}
			}
		}
	})
}

func upTo(n int) []int {
	out := make([]int, n+1)
	for i := range out {
		out[i] = i
	}
	return out
}

// Each attempt fails with another errno, and does nothing, where the filter is
// missing; the second half of the test shows it.
var refused = []struct {
	name string
	nr   uintptr
	args [6]uintptr
	want syscall.Errno
}{
	{"ptrace", unix.SYS_PTRACE, [6]uintptr{0xffff}, unix.EPERM},
	{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [6]uintptr{0, 0, 0, 0, 0, 1}, unix.EPERM},
	{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, [6]uintptr{0, 0, 0, 0, 0, 1}, unix.EPERM},
	{"process_madvise", unix.SYS_PROCESS_MADVISE, [6]uintptr{bad}, unix.EPERM},
	{"process_mrelease", unix.SYS_PROCESS_MRELEASE, [6]uintptr{bad}, unix.EPERM},
	{"pidfd_getfd", unix.SYS_PIDFD_GETFD, [6]uintptr{bad}, unix.EPERM},
	{"kcmp", unix.SYS_KCMP, [6]uintptr{0, 0, 99}, unix.EPERM},
	{"prlimit64 of init", unix.SYS_PRLIMIT64, [6]uintptr{1, 99}, unix.EPERM},
	{"prlimit64 of a group", unix.SYS_PRLIMIT64, [6]uintptr{1<<32 - 1, 99}, unix.EPERM},
	{"clone3", unix.SYS_CLONE3, [6]uintptr{}, unix.ENOSYS},
	{"setns", unix.SYS_SETNS, [6]uintptr{bad}, unix.EPERM},
	{"mount", unix.SYS_MOUNT, [6]uintptr{}, unix.EPERM},
	{"umount2", unix.SYS_UMOUNT2, [6]uintptr{0, 0xff00}, unix.EPERM},
	{"pivot_root", unix.SYS_PIVOT_ROOT, [6]uintptr{}, unix.EPERM},
	{"chroot", unix.SYS_CHROOT, [6]uintptr{}, unix.EPERM},
	{"open_tree", unix.SYS_OPEN_TREE, [6]uintptr{bad, 0, 0xff00}, unix.EPERM},
	{"open_tree_attr", unix.SYS_OPEN_TREE_ATTR, [6]uintptr{bad, 0, 0xff00}, unix.EPERM},
	{"move_mount", unix.SYS_MOVE_MOUNT, [6]uintptr{bad, 0, bad, 0, 0xff00}, unix.EPERM},
	{"mount_setattr", unix.SYS_MOUNT_SETATTR, [6]uintptr{bad, 0, 0xff00}, unix.EPERM},
	{"fsopen", unix.SYS_FSOPEN, [6]uintptr{0, 0xff}, unix.EPERM},
	{"fsconfig", unix.SYS_FSCONFIG, [6]uintptr{bad, 99}, unix.EPERM},
	{"fsmount", unix.SYS_FSMOUNT, [6]uintptr{bad, 0xff}, unix.EPERM},
	{"fspick", unix.SYS_FSPICK, [6]uintptr{bad, 0, 0xff00}, unix.EPERM},
	{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{bad}, unix.EPERM},
	{"name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, [6]uintptr{bad}, unix.EOPNOTSUPP},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP, [6]uintptr{}, unix.ENOSYS},
	{"io_uring_enter", unix.SYS_IO_URING_ENTER, [6]uintptr{bad}, unix.ENOSYS},
	{"io_uring_register", unix.SYS_IO_URING_REGISTER, [6]uintptr{bad}, unix.ENOSYS},
	{"bpf", unix.SYS_BPF, [6]uintptr{99}, unix.EPERM},
	{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{0, 0, 0, 0, 0xff00}, unix.EPERM},
	{"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{0xff0000}, unix.EPERM},
	{"fanotify_init", unix.SYS_FANOTIFY_INIT, [6]uintptr{0xff0000}, unix.EPERM},
	{"keyctl", unix.SYS_KEYCTL, [6]uintptr{0xffff}, unix.ENOSYS},
	{"add_key", unix.SYS_ADD_KEY, [6]uintptr{}, unix.ENOSYS},
	{"request_key", unix.SYS_REQUEST_KEY, [6]uintptr{}, unix.ENOSYS},
	{"seccomp listener", unix.SYS_SECCOMP, [6]uintptr{unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER}, unix.EINVAL},
	{"personality of 32 bits", unix.SYS_PERSONALITY, [6]uintptr{0x8}, unix.EPERM},
	{"personality, all readable is executable", unix.SYS_PERSONALITY, [6]uintptr{0x0400000}, unix.EPERM},
	{"kexec_load", unix.SYS_KEXEC_LOAD, [6]uintptr{}, unix.EPERM},
	{"kexec_file_load", unix.SYS_KEXEC_FILE_LOAD, [6]uintptr{}, unix.EPERM},
	{"init_module", unix.SYS_INIT_MODULE, [6]uintptr{}, unix.EPERM},
	{"finit_module", unix.SYS_FINIT_MODULE, [6]uintptr{bad}, unix.EPERM},
	{"delete_module", unix.SYS_DELETE_MODULE, [6]uintptr{}, unix.EPERM},
	{"reboot", unix.SYS_REBOOT, [6]uintptr{}, unix.EPERM},
	{"swapon", unix.SYS_SWAPON, [6]uintptr{}, unix.EPERM},
	{"swapoff", unix.SYS_SWAPOFF, [6]uintptr{}, unix.EPERM},
	{"acct", unix.SYS_ACCT, [6]uintptr{1}, unix.EPERM},
	{"quotactl", unix.SYS_QUOTACTL, [6]uintptr{0xffff}, unix.EPERM},
	{"quotactl_fd", unix.SYS_QUOTACTL_FD, [6]uintptr{bad}, unix.EPERM},
	{"syslog", unix.SYS_SYSLOG, [6]uintptr{99}, unix.EPERM},
	{"settimeofday", unix.SYS_SETTIMEOFDAY, [6]uintptr{1}, unix.EPERM},
	{"clock_settime", unix.SYS_CLOCK_SETTIME, [6]uintptr{99}, unix.EPERM},
	{"adjtimex", unix.SYS_ADJTIMEX, [6]uintptr{1}, unix.EPERM},
	{"clock_adjtime", unix.SYS_CLOCK_ADJTIME, [6]uintptr{99}, unix.EPERM},
	{"TIOCSTI", unix.SYS_IOCTL, [6]uintptr{bad, unix.TIOCSTI}, unix.EPERM},
	{"TIOCSTI with a high bit", unix.SYS_IOCTL, [6]uintptr{bad, unix.TIOCSTI | 1<<32}, unix.EPERM},
	{"TIOCSTI with the top bit", unix.SYS_IOCTL, [6]uintptr{bad, unix.TIOCSTI | 1<<63}, unix.EPERM},
	{"TIOCLINUX", unix.SYS_IOCTL, [6]uintptr{bad, unix.TIOCLINUX}, unix.EPERM},
	{"TIOCLINUX with high bits", unix.SYS_IOCTL, [6]uintptr{bad, unix.TIOCLINUX | 0xffffffff<<32}, unix.EPERM},
	{"TIOCSETD", unix.SYS_IOCTL, [6]uintptr{bad, unix.TIOCSETD}, unix.EPERM},
	{"TIOCCONS", unix.SYS_IOCTL, [6]uintptr{bad, unix.TIOCCONS}, unix.EPERM},
	{"MSG_OOB sendto", unix.SYS_SENDTO, [6]uintptr{bad, 0, 0, unix.MSG_OOB | unix.MSG_NOSIGNAL}, unix.EOPNOTSUPP},
	{"MSG_OOB recvfrom", unix.SYS_RECVFROM, [6]uintptr{bad, 0, 0, unix.MSG_OOB | unix.MSG_PEEK}, unix.EOPNOTSUPP},
	{"MSG_OOB sendmsg", unix.SYS_SENDMSG, [6]uintptr{bad, 0, unix.MSG_OOB}, unix.EOPNOTSUPP},
	{"MSG_OOB recvmsg", unix.SYS_RECVMSG, [6]uintptr{bad, 0, unix.MSG_OOB}, unix.EOPNOTSUPP},
	{"MSG_OOB sendmmsg", unix.SYS_SENDMMSG, [6]uintptr{bad, 0, 1, unix.MSG_OOB}, unix.EOPNOTSUPP},
	{"MSG_OOB recvmmsg", unix.SYS_RECVMMSG, [6]uintptr{bad, 0, 1, unix.MSG_OOB}, unix.EOPNOTSUPP},
}

const bad = 1<<31 - 1 // a descriptor that nobody has

// namespaceAttempts adds clone and unshare with every namespace flag. A clone
// with shared signal handlers but unshared memory is EINVAL by itself, so
// nothing is started where the filter is missing; unshare carries an invalid bit.
func namespaceAttempts() {
	for name, flag := range map[string]uintptr{"NEWNS": unix.CLONE_NEWNS, "NEWUSER": unix.CLONE_NEWUSER, "NEWPID": unix.CLONE_NEWPID,
		"NEWNET": unix.CLONE_NEWNET, "NEWIPC": unix.CLONE_NEWIPC, "NEWUTS": unix.CLONE_NEWUTS, "NEWCGROUP": unix.CLONE_NEWCGROUP} {
		refused = append(refused, struct {
			name string
			nr   uintptr
			args [6]uintptr
			want syscall.Errno
		}{"clone " + name, unix.SYS_CLONE, [6]uintptr{flag | unix.CLONE_SIGHAND}, unix.EPERM})
	}
	for bit := range 32 {
		if 1<<bit&unshareKeeps == 0 {
			refused = append(refused, struct {
				name string
				nr   uintptr
				args [6]uintptr
				want syscall.Errno
			}{fmt.Sprintf("unshare bit %d", bit), unix.SYS_UNSHARE, [6]uintptr{1<<bit | 1<<40}, unix.EPERM})
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	kerneltest.Require(t, kerneltest.Seccomp)
	namespaceAttempts()
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		// Some walls the kernel has for everybody; those rows prove nothing here
		// and are only counted.
		same := 0
		for _, tt := range refused {
			if _, _, errno := unix.RawSyscall6(tt.nr, tt.args[0], tt.args[1], tt.args[2], tt.args[3], tt.args[4], tt.args[5]); errno == tt.want {
				same++
			} else if errno == 0 && tt.nr != unix.SYS_PERSONALITY { // that one is undone below
				t.Errorf("%s works without the filter, so the attempt is not harmless", tt.name)
			}
		}
		t.Logf("%d of %d attempts end alike without the filter", same, len(refused))
		if same > len(refused)/2 {
			t.Error("more than half of the attempts cannot tell whether the filter is there")
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, 0, 0, 0); errno != 0 {
			t.Fatal(errno)
		}
		install(t)
		for _, tt := range refused {
			if _, _, errno := unix.RawSyscall6(tt.nr, tt.args[0], tt.args[1], tt.args[2], tt.args[3], tt.args[4], tt.args[5]); errno != tt.want {
				t.Errorf("%s = %v, want %v", tt.name, errno, tt.want)
			}
		}
		for _, nr := range []uintptr{lastReviewed + 1, 1 << 30, 1<<30 | 521, 100000} {
			if _, _, errno := unix.RawSyscall(nr, 0, 0, 0); errno != unix.ENOSYS {
				t.Errorf("call %d = %v, want ENOSYS", nr, errno)
			}
		}
	})
}

func TestTheFilterIsOfThisThreadOnly(t *testing.T) {
	kerneltest.Require(t, kerneltest.Seccomp)
	kerneltest.InChild(t, func(t *testing.T) {
		install(t)
		other := make(chan syscall.Errno)
		go func() {
			_, _, errno := unix.RawSyscall(unix.SYS_IO_URING_REGISTER, bad, 0, 0)
			other <- errno
		}()
		if errno := <-other; errno == unix.ENOSYS {
			t.Error("another thread has the filter")
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_IO_URING_REGISTER, bad, 0, 0); errno != unix.ENOSYS {
			t.Errorf("this thread has not: %v", errno)
		}
	})
}

func TestInstallRefusesNonsense(t *testing.T) {
	kerneltest.Require(t, kerneltest.Seccomp)
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		filter, err := Default().Assemble()
		if err != nil {
			t.Fatal(err)
		}
		if err := Install(nil); err == nil {
			t.Error("an empty filter was installed")
		}
		if os.Geteuid() != 0 {
			if err := Install(filter); err == nil {
				t.Error("installed without no_new_privs")
			}
		}
		install(t)
		install(t) // a second one is legitimate
	})
}
