package seccomp

import (
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// randomProgram makes any table the types allow, in sizes that need long jumps.
func randomProgram(r *rand.Rand) Program {
	answers := []Action{Allow, Kill, Deny(unix.EPERM), Deny(unix.ENOSYS), Deny(unix.EINVAL), Deny(maxErrno)}
	answer := func() Action { return answers[r.IntN(len(answers))] }
	p := Program{Arch: 7, Foreign: Kill, Last: uint32(1 + r.IntN(400)), Beyond: answer(), Default: answer()}
	ended := map[uint32]bool{}
	for range r.IntN(1 << (1 + r.IntN(8))) {
		rule := Rule{Call: "x", Why: "y", NR: r.Uint32N(p.Last + 1), Do: answer()}
		if ended[rule.NR] {
			continue
		}
		for range r.IntN(4) {
			rule.When = append(rule.When, randomCond(r))
		}
		ended[rule.NR] = len(rule.When) == 0
		p.Rules = append(p.Rules, rule)
	}
	return p
}

func randomCond(r *rand.Rand) Cond {
	c := Cond{Arg: r.IntN(6), Op: Op(1 + r.IntN(3))}
	if c.Op == AnySet {
		c.Mask = 1 + r.Uint32N(15)
		return c
	}
	if r.IntN(2) == 0 {
		c.Mask = 1 + r.Uint32N(15)
	}
	for range 1 + r.IntN(4) {
		c.Values = append(c.Values, r.Uint32N(8)&c.mask())
	}
	return c
}

// agrees runs a program in the machine and against its plain meaning.
func agrees(t *testing.T, r *rand.Rand) {
	t.Helper()
	p := randomProgram(r)
	if filter, err := p.Assemble(); err != nil {
		if len(filter) == 0 && strings.Contains(err.Error(), "instructions, the kernel takes") {
			return
		}
		t.Fatalf("a valid table was refused: %v", err)
	}
	m := newMachine(t, p)
	for range 200 {
		d := data{nr: r.Uint32N(p.Last + 3), arch: p.Arch}
		if len(p.Rules) > 0 && r.IntN(2) == 0 {
			d.nr = p.Rules[r.IntN(len(p.Rules))].NR
		}
		if r.IntN(50) == 0 {
			d.arch = r.Uint32N(9)
		}
		for i := range d.args {
			d.args[i] = uint64(r.Uint32N(9)) | uint64(r.Uint32N(2))<<32
		}
		if got, want := m.run(t, d), decide(p, d); got != want {
			t.Fatalf("%+v = %v, want %v, in %+v", d, got, want, p)
		}
	}
}

func TestAnyTableMeansWhatItSays(t *testing.T) {
	for seed := range uint64(400) {
		agrees(t, rand.New(rand.NewPCG(seed, 1)))
	}
}

func FuzzAnyTableMeansWhatItSays(f *testing.F) {
	f.Add(uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, a, b uint64) { agrees(t, rand.New(rand.NewPCG(a, b))) })
}

func TestADoubtfulTableIsRefused(t *testing.T) {
	good := Rule{Call: "read", NR: 0, Do: Deny(unix.EPERM), Why: "because"}
	with := func(change func(*Program, *Rule)) Program {
		p, r := Program{Arch: 1, Foreign: Kill, Last: 10, Beyond: Kill, Default: Allow}, good
		change(&p, &r)
		p.Rules = append(p.Rules, r)
		return p
	}
	if _, err := with(func(*Program, *Rule) {}).Assemble(); err != nil {
		t.Fatalf("the good table: %v", err)
	}
	for _, tt := range []struct {
		name string
		p    Program
	}{
		{"zero", Program{}},
		{"no architecture", with(func(p *Program, _ *Rule) { p.Arch = 0 })},
		{"foreign calls allowed", with(func(p *Program, _ *Rule) { p.Foreign = Allow })},
		{"no default", with(func(p *Program, _ *Rule) { p.Default = 0 })},
		{"no answer beyond", with(func(p *Program, _ *Rule) { p.Beyond = 0 })},
		{"x32 within the table", with(func(p *Program, _ *Rule) { p.Last = 1 << 30 })},
		{"no answer", with(func(_ *Program, r *Rule) { r.Do = 0 })},
		{"errno 0", with(func(_ *Program, r *Rule) { r.Do = Deny(0) })},
		{"errno 4096", with(func(_ *Program, r *Rule) { r.Do = Deny(4096) })},
		{"notification", with(func(_ *Program, r *Rule) { r.Do = unix.SECCOMP_RET_USER_NOTIF })},
		{"no reason", with(func(_ *Program, r *Rule) { r.Why = "" })},
		{"number beyond the table", with(func(_ *Program, r *Rule) { r.NR = 11 })},
		{"seventh argument", with(func(_ *Program, r *Rule) { r.When = []Cond{is(6, "", 1)} })},
		{"no values", with(func(_ *Program, r *Rule) { r.When = []Cond{is(0, "")} })},
		{"no comparison", with(func(_ *Program, r *Rule) { r.When = []Cond{{Values: []uint32{1}}} })},
		{"value outside its mask", with(func(_ *Program, r *Rule) { r.When = []Cond{is(0, "", 16).masked(0xf)} })},
		{"empty mask", with(func(_ *Program, r *Rule) { r.When = []Cond{has(0, "", 0)} })},
		{"unreachable", with(func(p *Program, r *Rule) { p.Rules = append(p.Rules, good) })},
	} {
		if filter, err := tt.p.Assemble(); err == nil || filter != nil {
			t.Errorf("%s: assembled", tt.name)
		}
	}
}

func TestTheTableIsWhole(t *testing.T) {
	if unix.SYS_RSEQ_SLICE_YIELD != lastReviewed {
		t.Error("lastReviewed is not the number its comment says")
	}
	p := Default().Guard(1, 7)
	seen := map[string]uint32{}
	for _, r := range p.Rules {
		if nr, ok := seen[r.Call]; ok && nr != r.NR {
			t.Errorf("%s has two numbers", r.Call)
		}
		seen[r.Call] = r.NR
		for other, nr := range seen {
			if nr == r.NR && other != r.Call {
				t.Errorf("%s and %s share number %d", r.Call, other, nr)
			}
		}
		if errno, ok := r.Do.Errno(); !ok || unix.ErrnoName(errno) == "" {
			t.Errorf("%s: answer %v", r.Call, r.Do)
		}
	}
	if got, want := len(p.Explain()), len(p.Rules)+3; got != want {
		t.Errorf("%d rows of explanation, want %d", got, want)
	}
}

func TestGuardNamesOnlyTheLauncher(t *testing.T) {
	p := Default().Guard(1, 7)
	m := newMachine(t, p)
	neg := func(n int32) uint64 { return uint64(uint32(n)) }
	for _, tt := range []struct {
		name string
		d    data
		want Action
	}{
		{"kill the launcher", data{nr: unix.SYS_KILL, args: [6]uint64{1}}, Deny(unix.EPERM)},
		{"kill its thread", data{nr: unix.SYS_KILL, args: [6]uint64{7}}, Deny(unix.EPERM)},
		{"kill with high bits", data{nr: unix.SYS_KILL, args: [6]uint64{1 | 5<<32}}, Deny(unix.EPERM)},
		{"kill another", data{nr: unix.SYS_KILL, args: [6]uint64{8}}, Allow},
		{"kill own group", data{nr: unix.SYS_KILL, args: [6]uint64{0}}, Allow},
		{"kill a group", data{nr: unix.SYS_KILL, args: [6]uint64{neg(-7)}}, Allow},
		{"kill everybody", data{nr: unix.SYS_KILL, args: [6]uint64{neg(-1)}}, Allow},
		{"tgkill its thread", data{nr: unix.SYS_TGKILL, args: [6]uint64{1, 7}}, Deny(unix.EPERM)},
		{"tgkill another", data{nr: unix.SYS_TGKILL, args: [6]uint64{9, 9}}, Allow},
		{"own signals from a descriptor", data{nr: unix.SYS_FCNTL, args: [6]uint64{3, unix.F_SETOWN, 9}}, Allow},
		{"its signals from a descriptor", data{nr: unix.SYS_FCNTL, args: [6]uint64{3, unix.F_SETOWN, 7}}, Deny(unix.EPERM)},
		{"nice", data{nr: unix.SYS_SETPRIORITY, args: [6]uint64{0, 0, 10}}, Allow},
		{"nice of the launcher", data{nr: unix.SYS_SETPRIORITY, args: [6]uint64{0, 7, 10}}, Deny(unix.EPERM)},
		{"nice of a group 7", data{nr: unix.SYS_SETPRIORITY, args: [6]uint64{1, 7, 10}}, Allow},
		{"own affinity", data{nr: unix.SYS_SCHED_SETAFFINITY}, Allow},
	} {
		tt.d.arch = p.Arch
		if got := m.run(t, tt.d); got != tt.want {
			t.Errorf("%s = %v, want %v", tt.name, got, tt.want)
		}
	}
	if len(Default().Rules) != len(p.Rules)-15 {
		t.Errorf("Guard added %d rows", len(p.Rules)-len(Default().Rules))
	}
}

func BenchmarkAssemble(b *testing.B) {
	for b.Loop() {
		filter, err := Default().Guard(1, 7).Assemble()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(filter)), "instructions")
	}
}
