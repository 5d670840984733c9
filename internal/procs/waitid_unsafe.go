package procs

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoPID is the offset of si_pid in the siginfo of a 64-bit machine.
const siginfoPID = 16

// waitAny waits until a child has ended and returns its number without
// collecting its status.
func waitAny() (pid int, err error) {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		raw := (*[siginfoPID + 4]byte)(unsafe.Pointer(&info))
		return int(int32(binary.NativeEndian.Uint32(raw[siginfoPID:]))), nil
	}
}
