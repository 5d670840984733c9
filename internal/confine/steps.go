package confine

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
	"openshell.dev/openshell/internal/landlock"
	"openshell.dev/openshell/internal/privs"
	"openshell.dev/openshell/internal/seccomp"
)

// Step is one wall: what it is called in errors and explanations, and why it
// stands where it stands.
type Step struct {
	Name  string
	Why   string
	Reach Reach
	run   func(*state) error
}

// Reach says what a step changes beside the program to be started.
type Reach string

// The reaches.
const (
	OnThread  Reach = "thread"  // the launcher's other threads keep their powers
	OnProcess Reach = "process" // the launcher lives with it too
)

// Steps returns the walls in the order in which they are put up.
func Steps() []Step { return slices.Clone(steps) }

var steps = []Step{
	{Name: "descriptors", Reach: OnProcess, run: (*state).descriptors,
		Why: "only 0, 1 and 2 reach the program, whatever a shell or service manager left open"},
	{Name: "limits", Reach: OnProcess, run: (*state).limits,
		Why: "no core file with secrets of a session; set while a hard limit may still be set"},
	{Name: "umask", Reach: OnProcess, run: (*state).umask,
		Why: "files of the program are not writable by others, whatever the caller's mask was"},
	{Name: "capabilities", Reach: OnThread, run: func(*state) error { return privs.DropCapabilities() },
		Why: "all five sets empty and read back; before no_new_privs matters, and while the bounding set may be dropped"},
	{Name: "no-new-privileges", Reach: OnThread, run: func(*state) error { return privs.NoNewPrivs() },
		Why: "no set-id file gives anything back; the kernel wants it before the next two steps"},
	{Name: "landlock", Reach: OnThread, run: (*state).landlock,
		Why: "files by the ruleset, no signals and abstract sockets beyond; before the filter, while paths can be opened freely"},
	{Name: "seccomp", Reach: OnThread, run: (*state).seccomp,
		Why: "last wall, so that it need not allow what the others took"},
	{Name: "confirmation", Reach: OnThread, run: (*state).confirm,
		Why: "the thread that becomes the program measures the walls itself, before execve"},
}

// state is what one call of Thread carries from step to step.
type state struct {
	spec     Spec
	report   Report
	receiver int    // abstract socket made before Landlock, or 0
	address  string // its name
}

func (s *state) close() {
	if s.receiver > 0 {
		unix.Close(s.receiver)
	}
}

func (s *state) descriptors() error { return privs.SealDescriptors(3) }

func (s *state) limits() error {
	if s.spec.Limits == nil {
		s.spec.Limits = privs.DefaultLimits()
	}
	return privs.SetLimits(s.spec.Limits)
}

func (s *state) umask() error {
	mask := 0o022
	if s.spec.Umask != nil {
		mask = *s.spec.Umask
	}
	return privs.Umask(mask)
}

func (s *state) landlock() error {
	if err := s.listen(); err != nil {
		return err
	}
	var err error
	s.report.Landlock, err = landlock.Restrict(s.spec.Landlock, s.spec.Mode)
	return err
}

// listen makes an abstract socket on this side of the Landlock scope, for the
// confirmation to try to reach from the other side. The kernel chooses the name:
// one of ours could be taken by a program that runs already.
func (s *state) listen() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket to test with: %w", err)
	}
	s.receiver = fd
	if err := unix.Bind(fd, &unix.SockaddrUnix{}); err != nil {
		return fmt.Errorf("name a socket to test with: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("read the name of a socket to test with: %w", err)
	}
	if sa, ok := sa.(*unix.SockaddrUnix); ok {
		s.address = sa.Name
	}
	return nil
}

func (s *state) seccomp() error {
	if len(s.spec.Filter.Rules) == 0 {
		s.spec.Filter = seccomp.Default()
	}
	filter, err := s.spec.Filter.Guard(unix.Getpid(), unix.Gettid()).Assemble()
	if err != nil {
		return err
	}
	s.report.Instructions = len(filter)
	return seccomp.Install(filter)
}
