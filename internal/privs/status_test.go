package privs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = `Name:	cat
Umask:	0022
State:	R (running)
Tgid:	42
Ngid:	0
Pid:	42
PPid:	1
TracerPid:	0
Uid:	1000	1001	1002	1003
Gid:	5	6	7	8
FDSize:	64
Groups:	4 20 
NStgid:	42
NSpid:	42	3
Threads:	1
SigBlk:	0000000000000001
SigIgn:	0000000000000002
SigCgt:	0000000000000004
CapInh:	0000000000000000
CapPrm:	000001ffffffffff
CapEff:	0000000000000010
CapBnd:	0000000000000020
CapAmb:	0000000000000040
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	3
Something_new:	of a later kernel
`

func TestParseStatus(t *testing.T) {
	got, err := ParseStatus([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := Status{Name: "cat", Pid: 42, PPid: 1, Tgid: 42, UID: [4]int{1000, 1001, 1002, 1003}, GID: [4]int{5, 6, 7, 8},
		Groups: []int{4, 20}, NSPid: []int{42, 3}, Threads: 1, Umask: 0o22, SigBlk: 1, SigIgn: 2, SigCgt: 4,
		CapPrm: 0x1ffffffffff, CapEff: 0x10, CapBnd: 0x20, CapAmb: 0x40, NoNewPrivs: true, Seccomp: 2, SeccompFilters: 3}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAStatusThatSaysTooLittleIsAnError(t *testing.T) {
	for _, key := range statusKeys {
		var kept []string
		for line := range strings.Lines(sample) {
			if !strings.HasPrefix(line, key+":") {
				kept = append(kept, line)
			}
		}
		if _, err := ParseStatus([]byte(strings.Join(kept, ""))); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("without %s: %v", key, err)
		}
	}
	for name, change := range map[string][2]string{
		"a line without a colon": {"Ngid:", "Ngid"},
		"not hexadecimal":        {"CapEff:\t00", "CapEff:\t0x"},
		"three ids":              {"1001\t", ""},
		"a word for a number":    {"Seccomp:\t2", "Seccomp:\tfilter"},
		"twice":                  {"Ngid:\t0", "NoNewPrivs:\t1"},
	} {
		if _, err := ParseStatus([]byte(strings.Replace(sample, change[0], change[1], 1))); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// A parsed status has every statement on privileges, whatever surrounds them.
func FuzzParseStatus(f *testing.F) {
	f.Add(sample)
	f.Add("Pid:\t1\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseStatus([]byte(text))
		if err != nil {
			if d := cmp.Diff(Status{}, s); d != "" {
				t.Errorf("an error and a status: %s", d)
			}
			return
		}
		for _, key := range statusKeys {
			if !strings.Contains("\n"+text, "\n"+key+":") {
				t.Errorf("no line %s, but no error", key)
			}
		}
	})
}
