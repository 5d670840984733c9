package supervisor

import (
	"time"

	"openshell.dev/openshell/internal/cgroup"
)

// limits are the control group of one sandbox; without limits there is none.
type limits struct {
	group *cgroup.Group
}

func newLimits(spec Spec) (*limits, error) {
	if spec.Limits != (Limits{}) {
		_, _ = cgroup.Sweep() // what a crash left; the next start tries again
	}
	g, err := cgroup.Create(spec.ID, cgroup.Limits{
		MilliCPU: spec.Limits.MilliCPU, Memory: spec.Limits.Memory, Pids: spec.Limits.Pids,
	})
	if err != nil {
		return nil, err
	}
	return &limits{group: g}, nil
}

// cgroupFD is the group the launcher is born in, or -1.
func (l *limits) cgroupFD() int {
	if l.group == nil {
		return -1
	}
	if fd, ok := l.group.FD(); ok {
		return fd
	}
	return -1
}

// place puts the launcher in a group of version 1 before it starts anything.
func (l *limits) place() func(pid int) error {
	if l.group == nil || l.group.V2() {
		return nil
	}
	return l.group.Add
}

// reason says in one line which limit met a process that ended with code, or
// nothing.
func (l *limits) reason(code int) string {
	if l == nil || l.group == nil || code == 0 {
		return ""
	}
	return l.group.Explain(l.group.Usage(), time.Now())
}

func (l *limits) remove() {
	if l.group != nil {
		_ = l.group.Remove() // what is left is swept at the next start
	}
}
