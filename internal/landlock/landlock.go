// Package landlock restricts which files a thread and its children may touch.
//
// It owns the translation of a list of paths with plain rights into what the
// kernel's Landlock ABI can enforce, the opening of those paths, and a report of
// what was applied, skipped and could not be enforced. It guarantees that no
// right is given that was not asked for, that no bit is sent which the kernel's
// ABI does not define, and that under HardRequirement anything missing is an
// error. Restrictions are for ever, and for the calling thread and its children
// only.
//
// What it does not do. It only adds rights going down a tree: a read-only
// carve-out inside a writable directory is the mount view's work. It does not
// handle TCP ports: they match a port and not a host, and the network namespace
// is the fence. Threads restricted one after the other are in *different*
// domains, and the scopes below separate those: fork everything that shall
// signal each other from one restricted thread.
//
// Used by the launcher; linked into its binary, so it imports next to nothing.
package landlock

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Mode says what happens when a restriction cannot be applied in full. The zero
// value is the strict one.
type Mode uint8

// The modes, as the policy names them.
const (
	HardRequirement Mode = iota // every path, and at least the rights of ABI MinHard
	BestEffort                  // what the kernel has, the rest is in the report
)

// MinHard is the lowest ABI that HardRequirement accepts (Linux 6.2): below it
// a file that may only be read can still be truncated.
const MinHard = 3

// Ruleset is what the restricted program may do. The zero value allows nothing
// and shares nothing.
type Ruleset struct {
	Paths []Rule
	// MinABI raises the lowest ABI that HardRequirement accepts.
	MinABI int
	// AbstractSockets lets the program connect to abstract Unix sockets made
	// outside.
	AbstractSockets bool
	// Signals lets the program signal processes outside.
	Signals bool
	// Audit logs denials of the program to the kernel's audit system (ABI 7).
	// Denials of this process, before execve, are never logged: the self-check
	// provokes them.
	Audit bool
}

// Rule gives rights below one path, or on one file.
type Rule struct {
	Path   string
	Access Access
	// File is an open descriptor of the path (O_PATH is enough), or nil to open
	// Path. Path is then the name in reports only.
	File *os.File
	// Follow opens the target where Path is, or leads over, a symbolic link.
	// Without it a link is skipped: whoever can write the directory above could
	// otherwise choose what is granted. Set it for paths that only we or the
	// system can have made (/bin on a merged system). Links of /proc
	// (magic links) are never followed.
	Follow bool
}

// Report says what holds after Restrict.
type Report struct {
	ABI        int       // of the kernel, 0 without Landlock
	Used       int       // the ABI whose rights were enforced
	Errata     uint64    // fixed errata the kernel reports, bit n-1 for erratum n
	Files      bool      // file rights are enforced
	Scopes     bool      // both scopes are enforced, as far as asked for
	Applied    int       // rules in force
	Skipped    []Skipped // paths that could not be opened
	Unenforced []string  // what this kernel cannot restrict, in words
}

// Skipped is a path that was named and is not part of the restriction, so the
// program has no access to it.
type Skipped struct {
	Path   string
	Reason string
	Err    error
}

// Sentinels a caller branches on.
var (
	ErrUnavailable = errors.New("the kernel has no Landlock")
	ErrTooOld      = errors.New("the kernel's Landlock is too old")
	ErrPath        = errors.New("path unavailable")
	ErrNothing     = errors.New("no path is left that could be allowed")
)

// Restrict applies the ruleset to the calling thread. The caller has locked its
// goroutine to the thread and set no_new_privs. On error nothing was applied,
// and the report says how far it came.
func Restrict(rs Ruleset, mode Mode) (Report, error) {
	abi, err := Probe()
	if err != nil {
		r := Report{Unenforced: unenforced(0)}
		if mode == BestEffort {
			return r, nil
		}
		return r, fmt.Errorf("restrict files: %w: %w", ErrUnavailable, err)
	}
	return restrictAs(rs, mode, abi)
}

// restrictAs uses no more of the kernel than an ABI has.
func restrictAs(rs Ruleset, mode Mode, abi int) (Report, error) {
	r := Report{ABI: abi, Used: min(abi, Highest), Errata: errata(abi)}
	r.Unenforced = unenforced(r.Used)
	if need := max(MinHard, rs.MinABI); mode == HardRequirement && r.Used < need {
		return r, fmt.Errorf("restrict files: %w: ABI %d, needs %d", ErrTooOld, abi, need)
	}
	if len(rs.Paths) == 0 && mode == HardRequirement {
		return r, fmt.Errorf("restrict files: %w", ErrNothing)
	}
	if err := restrict(rs, mode, &r); err != nil {
		return r, err
	}
	return r, nil
}

func restrict(rs Ruleset, mode Mode, r *Report) error {
	attr := unix.LandlockRulesetAttr{Scoped: scopes(r.Used)}
	if len(rs.Paths) > 0 {
		attr.Handled_access_fs = handled(r.Used)
	}
	if rs.AbstractSockets {
		attr.Scoped &^= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	if rs.Signals {
		attr.Scoped &^= unix.LANDLOCK_SCOPE_SIGNAL
	}
	if attr.Handled_access_fs == 0 && attr.Scoped == 0 {
		return nil // nothing asked for that this kernel has: the report says so
	}
	fd, err := createRuleset(&attr)
	if err != nil {
		return fmt.Errorf("restrict files: make a ruleset of ABI %d: %w", r.Used, err)
	}
	defer unix.Close(fd)
	for _, rule := range rs.Paths {
		if err := add(fd, rule, attr.Handled_access_fs); err != nil {
			s := Skipped{Path: rule.Path, Reason: reason(err), Err: err}
			r.Skipped = append(r.Skipped, s)
			if mode == HardRequirement {
				return fmt.Errorf("restrict files: %w: %s (%s): %w", ErrPath, rule.Path, s.Reason, err)
			}
			continue
		}
		r.Applied++
	}
	if len(rs.Paths) > 0 && r.Applied == 0 {
		// 0.1.x goes on without any restriction here. We do not: such a policy
		// is a mistake, and the program would see everything.
		return fmt.Errorf("restrict files: %w", ErrNothing)
	}
	if err := restrictSelf(fd, logFlags(r.Used, rs.Audit)); err != nil {
		if err == unix.EPERM {
			return fmt.Errorf("restrict files: no_new_privs is not set: %w", err)
		}
		return fmt.Errorf("restrict files: enforce the ruleset: %w", err)
	}
	r.Files = attr.Handled_access_fs != 0
	r.Scopes = attr.Scoped != 0 || rs.AbstractSockets && rs.Signals
	return nil
}

// add opens the path of a rule and puts what the rule gives on it.
func add(ruleset int, rule Rule, handled uint64) error {
	if rule.Access == 0 || rule.Access&^ReadWrite != 0 {
		return errNoAccess
	}
	fd := -1
	if rule.File != nil {
		fd = int(rule.File.Fd())
	} else {
		var err error
		if fd, err = open(rule.Path, rule.Follow); err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	rights := rule.Access.rights() & handled
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFLNK:
		return unix.ELOOP // a rule on the link itself would mean nothing
	default:
		// The kernel answers EINVAL to a directory right on anything else.
		rights &= fileRights
	}
	if rights == 0 {
		return errNoRight
	}
	return addPath(ruleset, fd, rights)
}

// open returns an O_PATH descriptor, for which no permission on the file itself
// is needed. openat2 is as old as Linux 5.6 and Landlock as 5.13.
func open(path string, follow bool) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	if !follow {
		how.Flags |= unix.O_NOFOLLOW
		how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// Missing reports whether the path was skipped.
func (r Report) Missing(path string) bool {
	return slices.ContainsFunc(r.Skipped, func(s Skipped) bool { return s.Path == path })
}
