package privs

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Undumpable makes the process one that others of its user may not trace, and
// gives its files in /proc to root. It is undone by execve, so it protects a
// launcher and not the program it starts.
func Undumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process undumpable: %w", err)
	}
	v, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("read whether the process is dumpable: %w", err)
	}
	if v != 0 {
		return fmt.Errorf("the process is still dumpable (%d)", v)
	}
	return nil
}

// SealDescriptors marks every descriptor from first on to be closed at execve.
// Descriptors that a shell or a service manager left open would otherwise reach
// the program. Needs Linux 5.11.
func SealDescriptors(first uint) error {
	if err := unix.CloseRange(first, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors from %d on to be closed: %w", first, err)
	}
	return nil
}

// Umask sets the file mode mask of the process.
func Umask(mask int) error {
	if mask&^0o777 != 0 {
		return fmt.Errorf("umask %#o has bits that mean nothing", mask)
	}
	unix.Umask(mask)
	if old := unix.Umask(mask); old != mask {
		return fmt.Errorf("umask read back %#o, set %#o", old, mask)
	}
	return nil
}

// Unlimited is no limit.
const Unlimited = ^uint64(0)

// Limit is a resource limit of the process (RLIMIT_*).
type Limit struct {
	Resource   int
	Soft, Hard uint64
}

// DefaultLimits returns what every sandboxed program gets. Memory, processor
// and number of processes are the cgroup's: a limit per id would be shared
// between sandboxes of one user.
func DefaultLimits() []Limit {
	return []Limit{
		{unix.RLIMIT_CORE, 0, 0},
		// Enough for any watcher and server; not so many that programs that
		// close "all descriptors" one by one stand still.
		{unix.RLIMIT_NOFILE, 1 << 16, 1 << 19},
	}
}

// SetLimits sets limits of the calling process and reads them back. A limit
// above the present hard one is lowered to it: nobody unprivileged can raise it,
// and less is not weaker. Limits are per process, so a launcher that sets them
// lives under them too and cannot regain a hard limit.
func SetLimits(limits []Limit) error {
	for _, l := range limits {
		if l.Soft > l.Hard {
			return fmt.Errorf("limit %s: soft %d is above hard %d", l.name(), l.Soft, l.Hard)
		}
		var now unix.Rlimit
		if err := unix.Prlimit(0, l.Resource, nil, &now); err != nil {
			return fmt.Errorf("read limit %s: %w", l.name(), err)
		}
		want := unix.Rlimit{Cur: min(l.Soft, now.Max), Max: min(l.Hard, now.Max)}
		if now == want {
			continue
		}
		if err := unix.Prlimit(0, l.Resource, &want, nil); err != nil {
			return fmt.Errorf("set limit %s to %d:%d: %w", l.name(), want.Cur, want.Max, err)
		}
		if err := unix.Prlimit(0, l.Resource, nil, &now); err != nil {
			return fmt.Errorf("read back limit %s: %w", l.name(), err)
		}
		if now != want {
			return fmt.Errorf("limit %s read back %d:%d, set %d:%d", l.name(), now.Cur, now.Max, want.Cur, want.Max)
		}
	}
	return nil
}

var limitNames = map[int]string{
	unix.RLIMIT_CORE: "core", unix.RLIMIT_NOFILE: "nofile", unix.RLIMIT_NPROC: "nproc", unix.RLIMIT_AS: "as",
	unix.RLIMIT_CPU: "cpu", unix.RLIMIT_DATA: "data", unix.RLIMIT_FSIZE: "fsize", unix.RLIMIT_MEMLOCK: "memlock", unix.RLIMIT_STACK: "stack",
}

func (l Limit) name() string {
	if n := limitNames[l.Resource]; n != "" {
		return n
	}
	return strconv.Itoa(l.Resource)
}
