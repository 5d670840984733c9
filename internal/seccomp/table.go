package seccomp

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// lastReviewed is the highest system call number this table was judged for
// (rseq_slice_yield, Linux 7.0). Raising it means reading what came since.
const lastReviewed = 471

// call names a system call and its number on this architecture.
type call struct {
	name string
	nr   uint32
}

// nsFlags are the flags of clone(2) that make a namespace. CLONE_NEWTIME is not
// among them: in clone(2) its bit belongs to the exit signal.
const nsFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// unshareKeeps are the flags of unshare(2) that make no namespace. Everything
// else is refused, so a flag invented later is too.
const unshareKeeps = unix.CLONE_FILES | unix.CLONE_FS | unix.CLONE_SYSVSEM |
	unix.CLONE_THREAD | unix.CLONE_SIGHAND | unix.CLONE_VM

// defaultRules returns the table. The errno of a row is the one that programs
// know how to live with: ENOSYS where they probe for a feature and fall back,
// EPERM where a missing privilege is the usual answer.
func defaultRules() []Rule {
	t := make(table, 0, 160)

	// Other processes and their memory.
	t.deny(unix.EPERM, "reads or steers another process", call{"ptrace", unix.SYS_PTRACE})
	t.deny(unix.EPERM, "reads or writes another process's memory past ptrace rules",
		call{"process_vm_readv", unix.SYS_PROCESS_VM_READV}, call{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV},
		call{"process_madvise", unix.SYS_PROCESS_MADVISE}, call{"process_mrelease", unix.SYS_PROCESS_MRELEASE})
	t.deny(unix.EPERM, "takes a descriptor out of another process", call{"pidfd_getfd", unix.SYS_PIDFD_GETFD})
	t.deny(unix.EPERM, "compares kernel objects of two processes, which reveals their addresses' order", call{"kcmp", unix.SYS_KCMP})
	t.when(call{"prlimit64", unix.SYS_PRLIMIT64}, Deny(unix.EPERM),
		"with the same id it would starve the launcher: no capability, /proc option or Landlock scope guards it",
		isNot(0, "pid", 0))

	// Namespaces and the mount view.
	t.when(call{"clone", unix.SYS_CLONE}, Deny(unix.EPERM),
		"a new user namespace opens kernel code that assumes root", has(0, "flags", nsFlags))
	t.deny(unix.ENOSYS, "its flags are in memory where a filter cannot look; libraries fall back to clone", call{"clone3", unix.SYS_CLONE3})
	t.when(call{"unshare", unix.SYS_UNSHARE}, Deny(unix.EPERM),
		"only flags that make no namespace pass, so later ones are refused too", has(0, "flags", ^uint32(unshareKeeps)))
	t.deny(unix.EPERM, "enters another namespace", call{"setns", unix.SYS_SETNS})
	t.deny(unix.ENOSYS, "enumerates namespaces", call{"listns", unix.SYS_LISTNS})
	t.deny(unix.EPERM, "changes the mount view",
		call{"mount", unix.SYS_MOUNT}, call{"umount2", unix.SYS_UMOUNT2}, call{"pivot_root", unix.SYS_PIVOT_ROOT},
		call{"chroot", unix.SYS_CHROOT}, call{"open_tree", unix.SYS_OPEN_TREE}, call{"open_tree_attr", unix.SYS_OPEN_TREE_ATTR},
		call{"move_mount", unix.SYS_MOVE_MOUNT}, call{"mount_setattr", unix.SYS_MOUNT_SETATTR}, call{"fsopen", unix.SYS_FSOPEN},
		call{"fsconfig", unix.SYS_FSCONFIG}, call{"fsmount", unix.SYS_FSMOUNT}, call{"fspick", unix.SYS_FSPICK})
	t.deny(unix.EPERM, "opens a file by handle, past every path", call{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT})
	t.deny(unix.EOPNOTSUPP, "makes such handles; file systems without them answer the same", call{"name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT})

	// Kernel subsystems with a long record, and ways past this filter.
	t.deny(unix.ENOSYS, "runs system calls where no filter sees them; runtimes fall back to epoll",
		call{"io_uring_setup", unix.SYS_IO_URING_SETUP}, call{"io_uring_enter", unix.SYS_IO_URING_ENTER},
		call{"io_uring_register", unix.SYS_IO_URING_REGISTER})
	t.deny(unix.EPERM, "loads programs into the kernel", call{"bpf", unix.SYS_BPF})
	t.deny(unix.EPERM, "large surface, and a clock for side channels", call{"perf_event_open", unix.SYS_PERF_EVENT_OPEN})
	t.deny(unix.EPERM, "stops the kernel in the middle of a copy: the usual help in an exploit", call{"userfaultfd", unix.SYS_USERFAULTFD})
	t.deny(unix.EPERM, "watches whole file systems", call{"fanotify_init", unix.SYS_FANOTIFY_INIT})
	t.deny(unix.ENOSYS, "keyrings are shared beyond namespaces",
		call{"keyctl", unix.SYS_KEYCTL}, call{"add_key", unix.SYS_ADD_KEY}, call{"request_key", unix.SYS_REQUEST_KEY})
	t.when(call{"seccomp", unix.SYS_SECCOMP}, Deny(unix.EINVAL),
		"a further filter only takes away and stays allowed (browsers, nested sandboxes); a listener is surface nobody needs; kernels before 5.0 answer the same",
		is(0, "operation", unix.SECCOMP_SET_MODE_FILTER), has(1, "flags", unix.SECCOMP_FILTER_FLAG_NEW_LISTENER))
	t.when(call{"personality", unix.SYS_PERSONALITY}, Deny(unix.EPERM),
		"other personalities change what memory is executable; plain, query and no-randomization (sanitizers start themselves again with it) stay",
		isNot(0, "persona", 0, 0xffffffff, addrNoRandomize))

	// The machine.
	t.deny(unix.EPERM, "replaces or extends the kernel",
		call{"kexec_load", unix.SYS_KEXEC_LOAD}, call{"kexec_file_load", unix.SYS_KEXEC_FILE_LOAD},
		call{"init_module", unix.SYS_INIT_MODULE}, call{"finit_module", unix.SYS_FINIT_MODULE},
		call{"delete_module", unix.SYS_DELETE_MODULE})
	t.deny(unix.EPERM, "administers the machine",
		call{"reboot", unix.SYS_REBOOT}, call{"swapon", unix.SYS_SWAPON}, call{"swapoff", unix.SYS_SWAPOFF},
		call{"acct", unix.SYS_ACCT}, call{"quotactl", unix.SYS_QUOTACTL}, call{"quotactl_fd", unix.SYS_QUOTACTL_FD},
		call{"lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE}, call{"nfsservctl", unix.SYS_NFSSERVCTL},
		call{"vhangup", unix.SYS_VHANGUP})
	t.deny(unix.EPERM, "reads the kernel log of the host", call{"syslog", unix.SYS_SYSLOG})
	t.deny(unix.EPERM, "sets the clock of the machine",
		call{"settimeofday", unix.SYS_SETTIMEOFDAY}, call{"clock_settime", unix.SYS_CLOCK_SETTIME},
		call{"adjtimex", unix.SYS_ADJTIMEX}, call{"clock_adjtime", unix.SYS_CLOCK_ADJTIME})

	// Terminals. Only the low 32 bits of a request count (see Cond).
	t.when(call{"ioctl", unix.SYS_IOCTL}, Deny(unix.EPERM),
		"types into the terminal of whoever started the sandbox (CVE-2017-5226), switches its line discipline (a driver loader), or redirects the console",
		is(1, "request", unix.TIOCSTI, unix.TIOCLINUX, unix.TIOCSETD, unix.TIOCCONS))

	t.sockets(call{"socket", unix.SYS_SOCKET})
	t.sockets(call{"socketpair", unix.SYS_SOCKETPAIR})
	t.outOfBand()
	t.onlyHere()
	return t
}

// addrNoRandomize is ADDR_NO_RANDOMIZE of personality(2).
const addrNoRandomize = 0x0040000

// table is a list of rules under construction.
type table []Rule

func (t *table) deny(errno syscall.Errno, why string, calls ...call) {
	for _, c := range calls {
		*t = append(*t, Rule{Call: c.name, NR: c.nr, Do: Deny(errno), Why: why})
	}
}

func (t *table) when(c call, do Action, why string, conds ...Cond) {
	*t = append(*t, Rule{Call: c.name, NR: c.nr, When: conds, Do: do, Why: why})
}
