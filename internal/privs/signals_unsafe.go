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

// sigaction is the kernel's struct, not the C library's; both architectures have
// these four words.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// DefaultFatalSignals gives pid 1 the default disposition for the signals that
// would end it, past the Go runtime, so that the kernel drops them when they
// come from inside. It is for a launcher that is pid 1: a nil dereference then
// ends it without a stack trace. It works on the process, and execve keeps it
// (signal.Ignore would be inherited by the program as "ignored"; this is not).
func DefaultFatalSignals() error {
	for _, s := range fatalSignals {
		var def, old sigaction
		if err := rtSigaction(s, &def, nil); err != nil {
			return fmt.Errorf("set %s to default: %w", unix.SignalName(s), err)
		}
		if err := rtSigaction(s, nil, &old); err != nil {
			return fmt.Errorf("read back %s: %w", unix.SignalName(s), err)
		}
		if old.handler != 0 {
			return fmt.Errorf("read back %s: it still has a handler", unix.SignalName(s))
		}
	}
	return nil
}

func rtSigaction(s unix.Signal, set, old *sigaction) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(set)),
		uintptr(unsafe.Pointer(old)), unsafe.Sizeof(sigaction{}.mask), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
