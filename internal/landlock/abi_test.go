package landlock

import (
	"errors"
	"math/bits"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The rights and scopes of each ABI as the kernel's documentation counts them.
func TestNoBitIsSentThatAnABIDoesNotHave(t *testing.T) {
	for abi, want := range []struct {
		rights, scopes int
		logs           bool
	}{
		0: {0, 0, false}, 1: {13, 0, false}, 2: {14, 0, false}, 3: {15, 0, false}, 4: {15, 0, false},
		5: {16, 0, false}, 6: {16, 2, false}, 7: {16, 2, true}, 8: {16, 2, true}, 9: {17, 2, true},
	} {
		h := handled(abi)
		if bits.OnesCount64(h) != want.rights || h != 1<<want.rights-1 {
			t.Errorf("ABI %d handles %#x, want the low %d bits", abi, h, want.rights)
		}
		if got := bits.OnesCount64(scopes(abi)); got != want.scopes {
			t.Errorf("ABI %d has %d scopes, want %d", abi, got, want.scopes)
		}
		if got := logFlags(abi, true) != 0; got != want.logs {
			t.Errorf("ABI %d has log flags: %v, want %v", abi, got, want.logs)
		}
	}
	if logFlags(Highest, false)&unix.LANDLOCK_RESTRICT_SELF_TSYNC != 0 {
		t.Error("the whole process would be restricted")
	}
	if handled(Highest) != ReadWrite.rights() {
		t.Errorf("ReadWrite is %#x, all rights are %#x", ReadWrite.rights(), handled(Highest))
	}
	if got := unenforced(Highest); len(got) != 0 {
		t.Errorf("the highest ABI lacks %q", got)
	}
	if got := strings.Join(unenforced(2), "\n"); !strings.Contains(got, "truncating files: needs Landlock ABI 3 (Linux 6.2)") {
		t.Errorf("ABI 2 lacks %q", got)
	}
}

func TestAccessInWords(t *testing.T) {
	for _, tt := range []struct {
		a    Access
		want string
	}{{0, "none"}, {List, "list"}, {ReadExec, "list+read+execute"}, {ReadWrite, "list+read+execute+write+device+connect"}} {
		if got := tt.a.String(); got != tt.want {
			t.Errorf("%d = %q, want %q", tt.a, got, tt.want)
		}
	}
}

func TestReasonsAreThoseOfTheContract(t *testing.T) {
	for err, want := range map[error]string{
		unix.ENOENT: "path does not exist", unix.EACCES: "permission denied", unix.ELOOP: "is or leads over a symbolic link",
		unix.ENAMETOOLONG: "path name too long", unix.ENOTDIR: "path component is not a directory", errors.New("x"): "unexpected error",
	} {
		if got := reason(err); got != want {
			t.Errorf("%v = %q, want %q", err, got, want)
		}
	}
}
