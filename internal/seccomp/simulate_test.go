package seccomp

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// machine runs an assembled filter in user space.
type machine struct {
	vm  *bpf.VM
	buf [64]byte
}

func newMachine(t testing.TB, p Program) *machine {
	t.Helper()
	filter, err := p.Assemble()
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]bpf.RawInstruction, len(filter))
	for i, f := range filter {
		raw[i] = bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatalf("the filter has an instruction that is none: %v", ins)
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	return &machine{vm: vm}
}

// run writes each 32-bit word big-endian at its place: the machine reads
// network order, the kernel native order, and the words are the same.
func (m *machine) run(t testing.TB, d data) Action {
	t.Helper()
	binary.BigEndian.PutUint32(m.buf[0:], d.nr)
	binary.BigEndian.PutUint32(m.buf[4:], d.arch)
	for i, a := range d.args {
		binary.BigEndian.PutUint32(m.buf[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(m.buf[20+8*i:], uint32(a>>32))
	}
	out, err := m.vm.Run(m.buf[:])
	if err != nil {
		t.Fatal(err)
	}
	return Action(uint32(out))
}

func TestTheFilterAnswersAsTheTableSays(t *testing.T) {
	p := Default()
	m := newMachine(t, p)
	words := []uint64{0, 1, 2, 3, 5, 6, 7, 10, 16, 17, 40, unix.CLONE_NEWUSER, unix.CLONE_NEWTIME, unix.TIOCSTI, unix.TIOCGWINSZ,
		0xffffffff, unix.TIOCSTI | 1<<32, 1 << 63, addrNoRandomize, unix.CLONE_VM | unix.CLONE_VFORK | 17, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK}
	for nr := uint32(0); nr <= p.Last+3; nr++ {
		for _, w := range words {
			for _, v := range words {
				d := data{nr, p.Arch, [6]uint64{w, v, w, v, w, v}}
				if got, want := m.run(t, d), decide(p, d); got != want {
					t.Fatalf("call %d (0x%x, 0x%x, ...) = %v, want %v", nr, w, v, got, want)
				}
			}
		}
	}
}

func TestOtherArchitecturesAndUnknownNumbers(t *testing.T) {
	p := Default()
	m := newMachine(t, p)
	for _, tt := range []struct {
		name string
		d    data
		want Action
	}{
		{"i386 read", data{nr: 3, arch: unix.AUDIT_ARCH_I386}, Kill},
		{"i386 socketcall", data{nr: 102, arch: unix.AUDIT_ARCH_I386}, Kill},
		{"32-bit arm", data{nr: 3, arch: unix.AUDIT_ARCH_ARM}, Kill},
		{"x32 read", data{nr: 1 << 30, arch: p.Arch}, Deny(unix.ENOSYS)},
		{"x32 ptrace", data{nr: 1<<30 | 521, arch: p.Arch}, Deny(unix.ENOSYS)},
		{"minus one", data{nr: ^uint32(0), arch: p.Arch}, Deny(unix.ENOSYS)},
		{"first unreviewed", data{nr: lastReviewed + 1, arch: p.Arch}, Deny(unix.ENOSYS)},
		{"last reviewed", data{nr: lastReviewed, arch: p.Arch}, Allow},
		{"read", data{nr: unix.SYS_READ, arch: p.Arch}, Allow},
	} {
		if got := m.run(t, tt.d); got != tt.want {
			t.Errorf("%s = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestWhatForkExecDoesPasses(t *testing.T) {
	p := Default()
	m := newMachine(t, p)
	for _, d := range []data{
		{nr: unix.SYS_CLONE, args: [6]uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}},
		{nr: unix.SYS_CLONE, args: [6]uint64{unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PIDFD | uint64(unix.SIGCHLD)}},
		{nr: unix.SYS_RT_SIGPROCMASK}, {nr: unix.SYS_SETSID}, {nr: unix.SYS_SETPGID}, {nr: unix.SYS_CHDIR}, {nr: unix.SYS_DUP3},
		{nr: unix.SYS_FCNTL}, {nr: unix.SYS_CLOSE}, {nr: unix.SYS_EXECVE}, {nr: unix.SYS_PIPE2}, {nr: unix.SYS_EXIT_GROUP},
		{nr: unix.SYS_PRLIMIT64, args: [6]uint64{0, unix.RLIMIT_NOFILE}},
		{nr: unix.SYS_IOCTL, args: [6]uint64{0, unix.TIOCSCTTY, 1}},
		{nr: unix.SYS_IOCTL, args: [6]uint64{0, unix.TIOCSPGRP, 1}},
	} {
		d.arch = p.Arch
		if got := m.run(t, d); got != Allow {
			t.Errorf("call %d %x = %v", d.nr, d.args, got)
		}
	}
}
