// Package confine turns the calling thread into one that may start the program.
//
// It owns the order of the walls (a table of steps, each with its reason) and
// the confirmation: when all walls stand, and before execve, the same thread
// tries what must fail and what must work, and a check that comes out otherwise
// is an error by name. It guarantees that without an error every step was
// applied and measured on this very thread. Restrictions are never undone.
//
// How to use it: a goroutine of the launcher calls runtime.LockOSThread and
// never unlocks, calls Thread once, and then forks every program of the sandbox
// with syscall.ForkExec from that thread; a child inherits everything. Fork all
// of them from the *same* thread: two threads that were restricted separately
// are in two Landlock domains, and their programs could not signal each other.
// SysProcAttr.UseCgroupFD must stay off (it takes clone3, which the filter
// refuses), and Pdeathsig too unless the thread lives as long as the program.
//
// The thread has no capability, but it belongs to the launcher's process: make
// that undumpable (privs.Undumpable) and deaf to signals (privs.ShieldFromSignals)
// before, else the programs may trace or end it.
// It does not make namespaces or mounts, or choose ids. Used by the launcher.
package confine

import (
	"errors"
	"fmt"
	"time"

	"openshell.dev/openshell/internal/landlock"
	"openshell.dev/openshell/internal/privs"
	"openshell.dev/openshell/internal/seccomp"
)

// Spec is what the walls are to be. The zero value allows no file at all, which
// HardRequirement, its mode, refuses.
type Spec struct {
	Landlock landlock.Ruleset
	Mode     landlock.Mode
	// Limits of the process; nil means privs.DefaultLimits.
	Limits []privs.Limit
	// Umask of the process; nil means 0022.
	Umask *int
	// Filter is the system call filter; one without rules means
	// seccomp.Default.
	Filter seccomp.Program
	// Probes are checked with the built-in checks. Name at least one path that
	// must stay shut and one that must open: what is outside the ruleset only
	// the caller knows.
	Probes []Probe
}

// Report says what was applied and measured, also when Thread failed: up to
// there.
type Report struct {
	Landlock     landlock.Report
	Instructions int     // of the system call filter
	Checks       []Check // the confirmation
	Done         []Done  // the steps that were applied, in order
}

// Done is a step that was applied.
type Done struct {
	Name string
	Took time.Duration
}

// StepError names the step that failed.
type StepError struct {
	Step string
	Err  error
}

// Error says which wall is missing and why.
func (e *StepError) Error() string { return fmt.Sprintf("confine: %s: %v", e.Step, e.Err) }

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// Thread applies all steps to the calling thread, which its goroutine has locked
// and never unlocks. After an error the thread is in between and must not start
// anything; let the process end.
func Thread(spec Spec) (Report, error) {
	s := state{spec: spec}
	defer s.close()
	for _, step := range steps {
		start := time.Now()
		if err := step.run(&s); err != nil {
			return s.report, &StepError{Step: step.Name, Err: err}
		}
		s.report.Done = append(s.report.Done, Done{step.Name, time.Since(start)})
	}
	return s.report, nil
}

// Failed returns the checks that came out otherwise than wanted.
func (r Report) Failed() []Check {
	var out []Check
	for _, c := range r.Checks {
		if !c.OK {
			out = append(out, c)
		}
	}
	return out
}

// ErrCheck is in the chain of the error of a failed check.
var ErrCheck = errors.New("the wall does not hold")
