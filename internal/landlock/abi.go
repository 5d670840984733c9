package landlock

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Highest is the last ABI this package knows. A newer kernel is used as that.
const Highest = 9

// generation is what one ABI of Landlock brought.
type generation struct {
	kernel string
	fs     uint64 // rights on files
	scope  uint64
	log    bool   // flags for audit exist
	adds   string // what cannot be restricted before, in words
}

// generations is indexed by ABI. ABI 4 brought TCP ports, which we leave alone;
// ABI 8 restriction of all threads at once, which we do not want: the launcher
// restricts the one thread it forks from and keeps its own powers.
var generations = [Highest + 1]generation{
	1: {kernel: "5.13", fs: 1<<13 - 1, adds: "access to files"},
	2: {kernel: "5.19", fs: unix.LANDLOCK_ACCESS_FS_REFER, adds: "moving files between directories (always refused before)"},
	3: {kernel: "6.2", fs: unix.LANDLOCK_ACCESS_FS_TRUNCATE, adds: "truncating files"},
	4: {kernel: "6.7"},
	5: {kernel: "6.10", fs: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV, adds: "ioctl on devices"},
	6: {kernel: "6.12", scope: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL,
		adds: "abstract Unix sockets and signals"},
	7: {kernel: "6.15", log: true},
	8: {kernel: "7.0"},
	9: {kernel: "7.1", fs: unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX, adds: "Unix sockets by path"},
}

func handled(abi int) (rights uint64) {
	for _, g := range generations[:abi+1] {
		rights |= g.fs
	}
	return rights
}

func scopes(abi int) (bits uint64) {
	for _, g := range generations[:abi+1] {
		bits |= g.scope
	}
	return bits
}

// unenforced lists what an ABI cannot restrict, each with the kernel that can.
func unenforced(abi int) (words []string) {
	for n := abi + 1; n <= Highest; n++ {
		if g := generations[n]; g.adds != "" {
			words = append(words, fmt.Sprintf("%s: needs Landlock ABI %d (Linux %s)", g.adds, n, g.kernel))
		}
	}
	return words
}

// logFlags keeps our own provoked denials out of the audit log, and puts the
// program's there if wanted.
func logFlags(abi int, program bool) (flags uint32) {
	logs := false
	for _, g := range generations[:abi+1] {
		logs = logs || g.log
	}
	if !logs {
		return 0
	}
	flags = unix.LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF
	if program {
		flags |= unix.LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON
	}
	return flags
}

// Probe asks the kernel for its ABI. It returns 0 and the reason where there is
// none.
func Probe() (int, error) {
	abi, err := version(unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch {
	case err == nil && abi > 0:
		return abi, nil
	case errors.Is(err, unix.ENOSYS):
		return 0, fmt.Errorf("not built into this kernel: %w", err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return 0, fmt.Errorf("built into this kernel but not enabled at boot (lsm=): %w", err)
	case errors.Is(err, unix.EPERM):
		return 0, fmt.Errorf("blocked, probably by a container's seccomp profile: %w", err)
	case err == nil:
		return 0, fmt.Errorf("the kernel answered ABI %d", abi)
	}
	return 0, fmt.Errorf("unexpected probe error: %w", err)
}

// errata returns the fixed errata of the kernel, 0 where it cannot say.
func errata(abi int) uint64 {
	if abi < 6 {
		return 0
	}
	bits, err := version(unix.LANDLOCK_CREATE_RULESET_ERRATA)
	if err != nil || bits < 0 {
		return 0
	}
	return uint64(bits)
}
