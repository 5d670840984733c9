package launch

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/launch/wire"
	"openshell.dev/openshell/internal/mounts"
	"openshell.dev/openshell/internal/netns"
	"openshell.dev/openshell/internal/privs"
)

// Step is one part of furnishing the inside. The order matters; Why says how.
type Step struct {
	Name string
	Why  string
	run  func(*launcher) error
}

// Steps returns the order in which the inside is made, for people to read.
func Steps() []Step { return append([]Step(nil), steps...) }

var steps = []Step{
	{"descriptors", "first, so that nothing the caller had open can reach the agent", closeInherited},
	{"undumpable", "before any agent exists: nobody inside may trace or read pid 1, even with the same id", undumpable},
	{"signals", "the kernel protects pid 1 only from signals it does not handle, and the Go runtime handles most", shieldSignals},
	{"network", "needs no plan, so it is made while the outside half computes one; interface and routes come before the sockets bound to them", (*launcher).makeNetwork},
	{"plan", "the outside half decides what the inside looks like", (*launcher).receivePlan},
	{"hostname", "needs the capability that the agent's thread is about to lose", (*launcher).setHostname},
	{"mounts", "after the network, because its settings are reached through the old /proc; afterwards the host's files are gone", (*launcher).applyMounts},
	{"walls", "the thread that forks the agent confines itself and measures the walls; nothing runs before the record is complete", (*launcher).raiseWalls},
	{"ready", "only now may the outside half ask for a process", (*launcher).announce},
}

func closeInherited(*launcher) error {
	return privs.SealDescriptors(ControlFD)
}

func undumpable(*launcher) error {
	return privs.Undumpable()
}

func shieldSignals(*launcher) error {
	_, err := privs.ShieldFromSignals()
	return err
}

func (l *launcher) receivePlan() error {
	f, err := l.conn.Receive()
	if err != nil {
		return err
	}
	// A descriptor with the plan is a lock that lasts as long as we do; it is
	// close-on-exec and nobody asks for it again.
	return f.Unmarshal(&l.plan)
}

func (l *launcher) setHostname() error {
	if l.plan.Hostname == "" {
		return fmt.Errorf("no hostname in the plan")
	}
	return unix.Sethostname([]byte(l.plan.Hostname))
}

func (l *launcher) makeNetwork() error {
	rep, err := netns.Setup()
	if err != nil {
		return err
	}
	sockets, err := netns.Listen(rep)
	if err != nil {
		return err
	}
	defer sockets.Close()
	if err := sockets.LoadFence(); err != nil {
		return err
	}
	m := wire.Sockets{Device: rep.Kind, Notes: rep.Notes}
	var fds []int
	for i, fd := range sockets {
		if fd >= 0 {
			m.Present |= 1 << i
			fds = append(fds, fd)
		}
	}
	return l.conn.Send(0, &m, fds...)
}

func (l *launcher) applyMounts() error {
	plan, err := mounts.Decode(l.plan.Mounts)
	if err != nil {
		return err
	}
	rep, err := mounts.Apply(plan, mounts.Options{})
	if err != nil {
		return err
	}
	for _, s := range rep.Skipped {
		l.notes = append(l.notes, s.Error())
	}
	l.mounts = plan
	return nil
}

func (l *launcher) announce() error {
	return l.conn.Send(0, &wire.Ready{
		Phases: l.phases, Checks: l.forge.checks, Skipped: slices.Concat(l.notes, l.forge.skipped), ABI: l.forge.abi,
	})
}
