package view

import (
	"os"
	"strconv"

	"openshell.dev/openshell/internal/mounts"
)

var deviceNodes = []string{"null", "zero", "full", "random", "urandom", "tty"}

var deviceLinks = [][2]string{
	{"/dev/ptmx", "pts/ptmx"}, {"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"},
	{"/dev/stdout", "/proc/self/fd/1"}, {"/dev/stderr", "/proc/self/fd/2"}, {"/dev/core", "/proc/kcore"},
}

// devices adds a private /dev. There is no /dev/console: it is the host's.
func (b *building) devices() {
	b.add(mounts.Op{Kind: mounts.Tmpfs, Target: "/dev", Size: 64 << 10, Mode: 0o755, Flags: mounts.NoExec, Why: "only the devices every program expects"})
	for _, n := range deviceNodes {
		b.add(mounts.Op{Kind: mounts.Bind, Source: "/dev/" + n, Target: "/dev/" + n, Flags: mounts.Device, Why: "device nodes cannot be made in a user namespace"})
	}
	for _, l := range deviceLinks {
		b.add(mounts.Op{Kind: mounts.Symlink, Source: l[1], Target: l[0], Why: "names that programs expect"})
	}
	shm := b.spec.ShmSize
	if shm == 0 {
		shm = defaultShm
	}
	b.add(
		mounts.Op{Kind: mounts.Devpts, Target: "/dev/pts", Why: "terminals of the sandbox's own"},
		mounts.Op{Kind: mounts.Tmpfs, Target: "/dev/shm", Size: shm, Mode: 0o1777, Why: "POSIX shared memory"},
		mounts.Op{Kind: mounts.Seal, Target: "/dev", Why: "no file can be left among the devices"},
	)
}

// procRule is a part of /proc that is not the process's own business. What
// programs read stays: cpuinfo, meminfo, stat, loadavg, uptime, version, net,
// mounts, self.
type procRule struct {
	name string
	hide bool
	why  string
}

// A sandbox started by root keeps root's number outside, and the permission
// checks of most of these files look at nothing else.
var procRules = []procRule{
	{"sys", false, "kernel settings; readable, because programs ask for limits"},
	{"sysrq-trigger", true, "one byte restarts the machine"},
	{"irq", false, "which processor serves which device"},
	{"bus", false, "configuration space of devices"},
	{"fs", false, "settings of file systems"},
	{"pressure", false, "a writer makes the kernel watch the whole machine"},
	{"mtrr", false, "memory types"},
	{"driver", false, "settings of drivers"},
	{"acpi", true, "power of the machine; the file wakeup can be written"},
	{"scsi", true, "devices can be removed by writing"},
	{"asound", true, "sound devices of the host"},
	{"kcore", true, "memory of the kernel"},
	{"kmsg", true, "log of the kernel; reading consumes it"},
	{"kallsyms", true, "addresses of the kernel"},
	{"modules", true, "what is loaded, with addresses"},
	{"kpagecount", true, "physical memory"},
	{"kpageflags", true, "physical memory"},
	{"kpagecgroup", true, "physical memory"},
	{"pagetypeinfo", true, "physical memory"},
	{"slabinfo", true, "objects of the kernel"},
	{"vmallocinfo", true, "addresses of the kernel"},
	{"iomem", true, "physical addresses"},
	{"ioports", true, "physical addresses"},
	{"timer_list", true, "timers of every process of the host"},
	{"timer_stats", true, "timers of every process of the host"},
	{"sched_debug", true, "names of every process of the host"},
	{"latency_stats", true, "stacks of processes of the host"},
	{"keys", true, "keyrings of this user on the host"},
	{"key-users", true, "who has keys on the host"},
	{"locks", true, "which files the host has locked"},
	{"cmdline", true, "how the machine was started, at times with secrets"},
	{"config.gz", true, "how the kernel was built; only an attacker's interest"},
	{"dynamic_debug", true, "switches of the kernel's log"},
}

func (b *building) proc() {
	b.add(mounts.Op{Kind: mounts.Proc, Target: "/proc", Why: "processes of the sandbox, and of those only one's own"})
	for _, r := range procRules {
		if os.Geteuid() != 0 && !readable("/proc/"+r.name) {
			continue // not there, or shut to this number by the kernel's own modes
		}
		op := mounts.Op{Kind: mounts.Pin, Target: "/proc/" + r.name, Flags: mounts.ReadOnly | mounts.NoExec | mounts.IfThere, Why: r.why}
		if r.hide {
			op.Kind, op.Flags = mounts.Mask, mounts.IfThere
		}
		b.add(op)
	}
}

// sys adds the little of /sys that programs cannot do without. There is no
// sysfs: a new one would show every device, and getifaddrs, os.cpus and nproc
// ask the kernel by other ways. What is missed: /sys/class/net for scripts.
func (b *building) sys() {
	b.add(
		mounts.Op{Kind: mounts.Dir, Target: "/sys", Mode: 0o555, Why: "an empty place for the two below"},
		mounts.Op{Kind: mounts.Bind, Source: "/sys/devices/system/cpu", Target: "/sys/devices/system/cpu", Flags: mounts.ReadOnly | mounts.NoExec | mounts.Optional, Why: "C libraries, the JVM and Node count processors here"},
	)
	if b.spec.Cgroup {
		b.add(mounts.Op{Kind: mounts.Cgroup, Target: "/sys/fs/cgroup", Flags: mounts.Optional, Why: "Go and the JVM size themselves by the limits of their group"})
	}
}

// scratch adds the private, writable places that every system has.
func (b *building) scratch() {
	run := "/run/user/" + strconv.Itoa(b.spec.Who.UID)
	b.add(
		mounts.Op{Kind: mounts.Tmpfs, Target: "/tmp", Size: b.spec.TmpSize, Mode: 0o1777, Why: "temporary files of the sandbox alone"},
		mounts.Op{Kind: mounts.Tmpfs, Target: "/run", Size: runSize, Mode: 0o755, Why: "no socket of the host is here"},
		mounts.Op{Kind: mounts.Dir, Target: "/run/lock", Mode: 0o1777, Why: "lock files"},
		mounts.Op{Kind: mounts.Dir, Target: run, Mode: 0o700, Why: "XDG_RUNTIME_DIR"},
	)
	if len(b.spec.Base.Lower) > 0 || b.spec.Base.Dir != "" {
		return // an image brings its own /var
	}
	b.add(
		mounts.Op{Kind: mounts.Dir, Target: "/var/log", Mode: 0o755, Why: "no log of the host is here"},
		mounts.Op{Kind: mounts.Dir, Target: "/var/lib", Mode: 0o755, Why: "no state of the host is here"},
		mounts.Op{Kind: mounts.Dir, Target: "/var/cache", Mode: 0o755, Why: "no cache of the host is here"},
		mounts.Op{Kind: mounts.Symlink, Target: "/var/tmp", Source: "../tmp", Why: "one place for temporary files"},
		mounts.Op{Kind: mounts.Symlink, Target: "/var/run", Source: "../run", Why: "the old name of /run"},
		mounts.Op{Kind: mounts.Symlink, Target: "/var/lock", Source: "../run/lock", Why: "the old name"},
	)
}
