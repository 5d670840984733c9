package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Install puts the filter on the calling thread, for ever. The caller has
// locked its goroutine to the thread and set no_new_privs. Children of the
// thread inherit the filter; other threads of this process do not get it.
func Install(filter []unix.SockFilter) error {
	if len(filter) == 0 || len(filter) > maxInstructions {
		return fmt.Errorf("install the seccomp filter: %d instructions", len(filter))
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno == unix.EACCES {
		return fmt.Errorf("install the seccomp filter: no_new_privs is not set: %w", errno)
	}
	if errno != 0 {
		return fmt.Errorf("install the seccomp filter (%d instructions): %w", len(filter), errno)
	}
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("read back the seccomp mode: %w", err)
	}
	if mode != unix.SECCOMP_MODE_FILTER {
		return errors.New("read back the seccomp mode: no filter is active")
	}
	return nil
}
