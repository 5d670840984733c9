package landlock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// attrSize is the part of the attribute that ABI 9 defines: file rights, ports
// and scopes. A kernel that knows less accepts it as long as the rest is zero.
const attrSize = unsafe.Offsetof(unix.LandlockRulesetAttr{}.Quiet_access_fs)

func version(flag uintptr) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, flag)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func createRuleset(attr *unix.LandlockRulesetAttr) (int, error) {
	fd, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(attr)), attrSize, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func addPath(ruleset, fd int, rights uint64) error {
	// The kernel's struct is packed and ends before our padding.
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func restrictSelf(ruleset int, flags uint32) error {
	_, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), uintptr(flags), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
