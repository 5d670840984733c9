package procs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// tail is what follows the name in /proc/PID/stat up to the start time.
func tail(state string, ppid, threads int, start uint64) string {
	return fmt.Sprintf(" %s %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 %d 0 %d 0 0", state, ppid, threads, start)
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     stat
		ok       bool
	}{
		{"plain", "42 (cat)" + tail("S", 1, 1, 99) + "\n", stat{42, 1, 'S', "cat", 1, 99}, true},
		{"brackets in the name", "42 (a) R 7 (b)" + tail("S", 1, 1, 99), stat{42, 1, 'S', "a) R 7 (b", 1, 99}, true},
		{"line end in the name", "42 (a\n43 (b)" + tail("Z", 1, 1, 99), stat{42, 1, 'Z', "a\n43 (b", 1, 99}, true},
		{"empty name", "42 ()" + tail("S", 1, 3, 99), stat{42, 1, 'S', "", 3, 99}, true},
		{"cut short", "42 (cat) S 1 1 0", stat{}, false},
		{"no name", "42 cat S 1", stat{}, false},
		{"a name without end", "42 (cat S 1", stat{}, false},
		{"no number", "(cat)" + tail("S", 1, 1, 99), stat{}, false},
		{"number 0", "0 (cat)" + tail("S", 1, 1, 99), stat{}, false},
		{"long state", "42 (cat)" + tail("SS", 1, 1, 99), stat{}, false},
		{"negative parent", "42 (cat)" + tail("S", -1, 1, 99), stat{}, false},
		{"nothing", "", stat{}, false},
	} {
		got, err := parseStat([]byte(tt.in))
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestReadOfOurselves(t *testing.T) {
	p, err := Read(os.Getpid())
	if err != nil || p.PID != os.Getpid() || p.PPID != os.Getppid() || p.State != 'R' && p.State != 'S' {
		t.Errorf("%+v, %v", p, err)
	}
	exe, err := os.Executable()
	if err != nil || p.Exe != exe {
		t.Errorf("executable %q, %v, want %q", p.Exe, err, exe)
	}
}

// Whatever the name, the fields behind it are the kernel's.
func FuzzParseStat(f *testing.F) {
	f.Add("cat", 1, uint64(99))
	f.Add(") R 1 1\n(x) S 9", 7, uint64(0))
	f.Fuzz(func(t *testing.T, name string, ppid int, start uint64) {
		if ppid < 0 {
			return
		}
		in := "42 (" + name + ")" + tail("S", ppid, 1, start)
		got, err := parseStat([]byte(in))
		if err != nil || got.pid != 42 || got.ppid != ppid || got.start != start || !strings.HasPrefix(name, got.comm) || len(got.comm) > maxComm {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
		parseStat([]byte(name)) // must not panic
	})
}

func FuzzParseSocket(f *testing.F) {
	f.Add("socket:[123]", uint64(123))
	f.Add("socket:[]", uint64(1)<<63)
	f.Fuzz(func(t *testing.T, in string, n uint64) {
		if inode, ok := parseSocket([]byte(in)); ok {
			digits := strings.TrimSuffix(strings.TrimPrefix(in, "socket:["), "]")
			if want, err := strconv.ParseUint(digits, 10, 64); err != nil || want != inode {
				t.Errorf("%q = %d", in, inode)
			}
		}
		n /= 100 // numbers near the end of the range are refused
		if got, ok := parseSocket(fmt.Appendf(nil, "socket:[%d]", n)); !ok || got != n {
			t.Errorf("%d came back as %d, %v", n, got, ok)
		}
	})
}

func FuzzParseFDSize(f *testing.F) {
	f.Add("Name:\tFDSize:\\n9\nFDSize:\t64\n", 64)
	f.Fuzz(func(t *testing.T, in string, n int) {
		if got, err := parseFDSize([]byte(in)); err == nil && got < 0 {
			t.Errorf("%q = %d", in, got)
		}
		if n < 0 {
			return
		}
		if got, err := parseFDSize(fmt.Appendf(nil, "Name:\tx\nFDSize:\t%d\nGroups:\t\n", n)); err != nil || got != n {
			t.Errorf("%d came back as %d, %v", n, got, err)
		}
	})
}

func FuzzDirent(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 4, '1', '2', 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		size, name, ok := dirent(in)
		if ok && (size > len(in) || size < direntHeader || len(name) < 2 || name[len(name)-1] != 0) {
			t.Errorf("record of %d bytes, name %q, from %d bytes", size, name, len(in))
		}
	})
}
