package seccomp

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Guard returns the program with rows that keep signals and scheduling changes
// away from the launcher: its process and the thread it starts programs from.
//
// That thread has no capability and shares its programs' Landlock domain, so
// neither the capability rule nor the signal scope protects it. The numbers are
// those of the programs' own pid namespace, which they cannot leave; the thread
// must live as long as its programs, or its number is given to one of them. The
// launcher's other threads have numbers nobody knows beforehand; those are the
// Landlock scope's to protect (Linux 6.12), they are in no domain.
func (p Program) Guard(pid, tid int) Program {
	t := table(slices.Clip(p.Rules))
	self := func(arg int, name string) Cond {
		if pid == tid {
			return is(arg, name, uint32(pid))
		}
		return is(arg, name, uint32(pid), uint32(tid))
	}
	eperm := Deny(unix.EPERM)

	const signals = "the launcher takes no signals from programs; groups and everybody (-1) stay, the kernel leaves pid 1 out"
	t.when(call{"kill", unix.SYS_KILL}, eperm, signals, self(0, "pid"))
	t.when(call{"tkill", unix.SYS_TKILL}, eperm, signals, self(0, "tid"))
	t.when(call{"tgkill", unix.SYS_TGKILL}, eperm, signals, self(0, "tgid"))
	t.when(call{"rt_sigqueueinfo", unix.SYS_RT_SIGQUEUEINFO}, eperm, signals, self(0, "pid"))
	t.when(call{"rt_tgsigqueueinfo", unix.SYS_RT_TGSIGQUEUEINFO}, eperm, signals, self(0, "tgid"))
	t.when(call{"pidfd_open", unix.SYS_PIDFD_OPEN}, eperm, signals, self(0, "pid"))

	const owner = "an owner of a descriptor is sent a signal of choice"
	t.when(call{"fcntl", unix.SYS_FCNTL}, eperm, owner, is(1, "cmd", unix.F_SETOWN), self(2, "owner"))
	t.when(call{"fcntl", unix.SYS_FCNTL}, Deny(unix.EINVAL), owner+", and this one is in memory; F_SETOWN stays",
		is(1, "cmd", unix.F_SETOWN_EX))
	t.when(call{"ioctl", unix.SYS_IOCTL}, Deny(unix.ENOTTY), owner+", and this one is in memory; F_SETOWN stays",
		is(1, "request", fiosetown, siocspgrp))

	const schedule = "would starve the launcher"
	t.when(call{"setpriority", unix.SYS_SETPRIORITY}, eperm, schedule, is(0, "which", unix.PRIO_PROCESS), self(1, "who"))
	t.when(call{"ioprio_set", unix.SYS_IOPRIO_SET}, eperm, schedule, is(0, "which", ioprioWhoProcess), self(1, "who"))
	for _, c := range []call{
		{"sched_setaffinity", unix.SYS_SCHED_SETAFFINITY}, {"sched_setparam", unix.SYS_SCHED_SETPARAM},
		{"sched_setscheduler", unix.SYS_SCHED_SETSCHEDULER}, {"sched_setattr", unix.SYS_SCHED_SETATTR},
	} {
		t.when(c, eperm, schedule, self(0, "pid"))
	}
	p.Rules = t
	return p
}

// Constants that are in no table of ours: asm-generic/sockios.h, linux/ioprio.h.
const (
	fiosetown        = 0x8901
	siocspgrp        = 0x8902
	ioprioWhoProcess = 1
)
