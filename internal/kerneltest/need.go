package kerneltest

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Need is something of the machine that a test cannot do without.
type Need int

// What a test may need.
const (
	Root         Need = iota // effective uid 0 with CAP_SYS_ADMIN
	UserNS                   // an unprivileged user namespace can be made
	Landlock                 // Landlock of any ABI
	Seccomp                  // filters can be installed
	NetAdmin                 // a network namespace with CAP_NET_ADMIN can be made
	CgroupMemory             // a writable cgroup with the memory controller
	CgroupPids               // a writable cgroup with the pids controller
	SetID                    // may become another user
)

var needs = map[Need]struct {
	name  string
	found func() bool
}{
	Root:         {"root", func() bool { return os.Geteuid() == 0 }},
	UserNS:       {"user namespaces", canUnshare(syscall.CLONE_NEWUSER)},
	Landlock:     {"Landlock", hasLandlock},
	Seccomp:      {"seccomp filters", hasSeccomp},
	NetAdmin:     {"network namespaces", canUnshare(syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET)},
	CgroupMemory: {"a writable memory cgroup", func() bool { return writableCgroup("memory") }},
	CgroupPids:   {"a writable pids cgroup", func() bool { return writableCgroup("pids") }},
	SetID:        {"the right to change ids", func() bool { return os.Geteuid() == 0 }},
}

// Require skips the test unless the machine has every need, naming the first
// that is missing.
func Require(t testing.TB, wanted ...Need) {
	t.Helper()
	for _, n := range wanted {
		if !needs[n].found() {
			t.Skipf("needs %s", needs[n].name)
		}
	}
}

func canUnshare(flags uintptr) func() bool {
	return func() bool {
		cmd := exec.Command("/proc/self/exe", "-test.run=^$")
		cmd.Env = append(os.Environ(), noLinger)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		return cmd.Run() == nil
	}
}

func hasLandlock() bool {
	_, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return errno == 0
}

func hasSeccomp() bool {
	_, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return err == nil
}

func writableCgroup(controller string) bool {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[0] == "0": // v2: the controller must be delegated
			subtree, err := os.ReadFile("/sys/fs/cgroup" + f[2] + "/cgroup.subtree_control")
			if err == nil && strings.Contains(string(subtree), controller) &&
				unix.Access("/sys/fs/cgroup"+f[2], unix.W_OK) == nil {
				return true
			}
		case f[1] == controller:
			if unix.Access("/sys/fs/cgroup/"+controller+f[2], unix.W_OK) == nil {
				return true
			}
		}
	}
	return false
}
