package runtimes

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/test/person"
)

// refusedCalls are the answers to calls that no program inside needs.
var refusedCalls = map[string]string{
	"unshare-user": "EPERM", "unshare-net-high-bits": "EPERM", "clone-user": "EPERM", "clone3": "ENOSYS", "setns": "EPERM",
	"mount": "EPERM", "umount2": "EPERM", "pivot_root": "EPERM", "chroot": "EPERM", "fsopen": "EPERM", "open_tree": "EPERM",
	"ptrace": "EPERM", "process_vm_readv": "EPERM", "pidfd_getfd": "EPERM", "prlimit-of-another": "EPERM",
	"io_uring_setup": "ENOSYS", "bpf": "EPERM", "userfaultfd": "EPERM", "perf_event_open": "EPERM",
	"keyctl": "ENOSYS", "add_key": "ENOSYS", "kexec_load": "EPERM", "init_module": "EPERM", "open_by_handle_at": "EPERM",
	"TIOCSTI": "EPERM", "TIOCSTI-high-bits": "EPERM", "TIOCLINUX": "EPERM",
	"MSG_OOB-send": "EOPNOTSUPP", "MSG_OOB-receive": "EOPNOTSUPP", "unlisted-call": "ENOSYS",
}

// socketAnswer is what a program is told about a socket. It says any of
// several where the kernel judges after us.
func socketAnswer(call string, family, kind uint64, protocol int) []string {
	const ok = "OK"
	family = uint64(uint32(family))
	kind &= 0xf
	switch family {
	case unix.AF_UNIX:
		switch kind {
		case unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET:
			return []string{ok}
		}
		return []string{ok, "ESOCKTNOSUPPORT"} // SOCK_RAW is taken for datagrams
	case unix.AF_NETLINK:
		switch {
		case protocol != 0:
			return []string{"EPROTONOSUPPORT"}
		case call == "socketpair":
			return []string{"EOPNOTSUPP", "ESOCKTNOSUPPORT"}
		case kind == unix.SOCK_RAW || kind == unix.SOCK_DGRAM:
			return []string{ok}
		}
		return []string{"ESOCKTNOSUPPORT"}
	case unix.AF_INET, unix.AF_INET6:
		switch {
		case kind == unix.SOCK_RAW || kind == unix.SOCK_PACKET:
			return []string{"EPERM"}
		case kind != unix.SOCK_STREAM && kind != unix.SOCK_DGRAM:
			return []string{"ESOCKTNOSUPPORT"}
		case kind == unix.SOCK_STREAM && protocol != 0 && protocol != unix.IPPROTO_TCP,
			kind == unix.SOCK_DGRAM && protocol != 0 && protocol != unix.IPPROTO_UDP:
			return []string{"EPROTONOSUPPORT"}
		case call == "socketpair":
			return []string{"EOPNOTSUPP"}
		}
		return []string{ok}
	}
	return []string{"EAFNOSUPPORT"}
}

func TestWhatStaysRefused(t *testing.T) {
	dir := tools(t)
	program := filepath.Join(dir, "refusals")
	compileGo(t, program, "refusals")
	eachDoor(t, func(t *testing.T, p *person.Person, d door) {
		r := d.open(t, p, dir)(program)
		if r.Code != 0 {
			t.Fatal(r)
		}
		seen := map[string]int{}
		for line := range strings.Lines(r.Stdout) {
			f := strings.Fields(line)
			what, got := strings.Join(f[:len(f)-1], " "), f[len(f)-1]
			var want []string
			switch f[0] {
			case "socket", "socketpair":
				family, kind, protocol := number(t, f[1]), number(t, f[2]), number(t, f[3])
				want = socketAnswer(f[0], family, kind, int(uint32(protocol)))
				if f[0] == "socket" {
					seen[fmt.Sprintf("family %d", uint32(family))]++
					if uint32(family) == unix.AF_NETLINK {
						seen[fmt.Sprintf("protocol %d", uint32(protocol))]++
					}
				}
			case "rtnetlink":
				want = messageAnswer(int(number(t, f[1])), got)
				seen["message "+f[1]]++
			default:
				want = []string{refusedCalls[f[0]]}
				seen[f[0]]++
			}
			if !slices.Contains(want, got) {
				t.Errorf("%s = %s, want %s", what, got, strings.Join(want, " or "))
			}
		}
		// The tables must have been asked whole.
		for i := range 51 {
			require(t, seen, fmt.Sprintf("family %d", i))
		}
		for i := range 31 {
			require(t, seen, fmt.Sprintf("protocol %d", i))
		}
		for i := unix.RTM_BASE; i < 160; i++ {
			require(t, seen, fmt.Sprintf("message %d", i))
		}
		for name := range refusedCalls {
			require(t, seen, name)
		}
	})
}

// lastKnown is the highest rtnetlink group that every supported kernel has
// (RTM_NEWNEXTHOP and its like, Linux 5.3).
const lastKnown = 107

// messageAnswer: whoever would change something is refused by the kernel,
// which has no capability to go by; a question may be answered or may be
// unknown, but is not a matter of privilege. Some link questions with neither
// name nor index are nonsense and say EINVAL.
func messageAnswer(kind int, got string) []string {
	if kind%4 != unix.RTM_GETLINK%4 {
		if kind > lastKnown {
			return []string{"EPERM", "EOPNOTSUPP"}
		}
		return []string{"EPERM"}
	}
	if got == "EPERM" || got == "EACCES" {
		return []string{"no matter of privilege"}
	}
	return []string{got}
}

func require(t *testing.T, seen map[string]int, what string) {
	t.Helper()
	if seen[what] == 0 {
		t.Errorf("%s was not tried", what)
	}
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
