package privs

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fatalSignals are those for which the Go runtime has a handler that ends the
// process. With a handler, pid 1 of a namespace loses the kernel's protection:
// any process inside could end the sandbox with kill(1, SIGHUP).
var fatalSignals = [...]unix.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS,
	unix.SIGFPE, unix.SIGSEGV, unix.SIGTERM, unix.SIGSTKFLT, unix.SIGSYS,
}

// sigIgnore is SIG_IGN.
const sigIgnore = 1

// sigaction is the kernel's struct, not the C library's; both architectures have
// these four words.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// ShieldFromSignals makes the process ignore the signals that would end it, past
// the Go runtime. It is for a launcher that is pid 1 of its namespace.
//
// Ignored and not default: the kernel drops a default signal to pid 1 only while
// the thread it is sent to does not block it. Go blocks all signals around a
// fork, and in that moment another thread of pid 1 is chosen, and dies (seen
// within a hundred tries). A signal that is ignored is dropped either way. The
// program does not inherit this: the runtime still believes its own handlers
// stand, and puts back the default for those in a forked child. Only what the
// launcher itself was started with as ignored is passed on (nohup), and returned
// here, so that the launcher's own parent can be told to reset it.
//
// Signals 32 to 34 stay open to that moment: Go leaves them at the default and
// would pass "ignored" on to programs. And a storm of signals that Go handles
// keeps every thread in handlers for good. Against both the filter keeps all
// signals away (seccomp.Program.Guard); this is the second wall, and the one of
// kernels before Landlock's signal scope.
//
// A fault of the launcher's own code still ends it, without a stack trace.
func ShieldFromSignals() (inherited []unix.Signal, err error) {
	for _, s := range fatalSignals {
		var old, now sigaction
		ignore := sigaction{handler: sigIgnore}
		if err := rtSigaction(s, &ignore, &old); err != nil {
			return inherited, fmt.Errorf("ignore %s: %w", unix.SignalName(s), err)
		}
		if err := rtSigaction(s, nil, &now); err != nil {
			return inherited, fmt.Errorf("read back %s: %w", unix.SignalName(s), err)
		}
		if now.handler != sigIgnore {
			return inherited, fmt.Errorf("read back %s: it is not ignored", unix.SignalName(s))
		}
		if old.handler == sigIgnore {
			inherited = append(inherited, s)
		}
	}
	return inherited, nil
}

func rtSigaction(s unix.Signal, set, old *sigaction) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(set)),
		uintptr(unsafe.Pointer(old)), unsafe.Sizeof(sigaction{}.mask), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
