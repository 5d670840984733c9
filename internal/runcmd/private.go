package runcmd

import (
	"os"
	"strconv"
	"syscall"

	"openshell.dev/openshell/internal/fault"
)

func uidString() string { return strconv.Itoa(os.Getuid()) }

// private refuses a state directory that somebody else could have prepared.
func private(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return fault.New(fault.FailedPrecondition, "look at the state directory %q", dir).Cause(err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() || int(sys.Uid) != os.Getuid() {
		return fault.New(fault.FailedPrecondition, "the state directory %q does not belong to you", dir).
			Hint("export XDG_STATE_HOME=/a/directory/of/yours")
	}
	if st.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fault.New(fault.FailedPrecondition, "close the state directory %q to others", dir).Cause(err)
		}
	}
	return nil
}
