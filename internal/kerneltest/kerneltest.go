// Package kerneltest runs tests against the live kernel.
//
// A test names what it needs; where the machine lacks it, the test is skipped
// with the missing thing named, and the gate compares the skips with a list.
// A test that changes its process for ever (a filter, an empty capability set,
// other namespaces) runs its body in a re-executed child. Used by tests only.
package kerneltest

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const childVar = "OPENSHELL_KERNELTEST_CHILD"

// noLinger spares every child of a race-detecting test a second at its end.
const noLinger = "GORACE=atexit_sleep_ms=0"

// OrdinaryID is the numeric user and group of an account without privileges.
// It needs no entry in the password file.
const OrdinaryID = 13777

// Child describes the process in which a test body runs. The zero value is a
// child like the parent.
type Child struct {
	// Clone holds CLONE_NEW* flags. With CLONE_NEWUSER the child's id is
	// mapped to InsideID.
	Clone uintptr
	// InsideID is the user and group id inside a new user namespace.
	InsideID int
	// Ordinary drops root to OrdinaryID before anything else. Where the
	// tests already run unprivileged it changes nothing.
	Ordinary bool
	// Ambient keeps all capabilities of a new user namespace over exec.
	Ambient bool
	// Env is added to the environment.
	Env []string
}

// InChild runs body in a fresh process like this one.
func InChild(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	Child{}.Run(t, body)
}

// Run runs body in a child process as described. In the parent it returns
// when the child has ended, with the child's failures and log as its own.
func (c Child) Run(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	if os.Getenv(childVar) == t.Name() {
		runtime.LockOSThread()
		body(t)
		return
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	// The binary is named by descriptor: the directory of a test binary is
	// closed to other accounts.
	cmd := exec.Command("/proc/self/fd/" + strconv.Itoa(int(exe.Fd())))
	cmd.Args = []string{os.Args[0], "-test.run=^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$", "-test.v", "-test.count=1", "-test.timeout=120s"}
	cmd.Env = append(os.Environ(), childVar+"="+t.Name(), "TMPDIR=/tmp", noLinger)
	cmd.Env = append(cmd.Env, c.Env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: c.Clone}
	if c.Ordinary && os.Geteuid() == 0 {
		c.runAsOrdinary(t, cmd)
	} else {
		c.mapIDs(cmd, os.Geteuid(), os.Getegid())
	}
	runtime.LockOSThread() // Pdeathsig follows the thread
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in the child: %v\n%s", err, out)
		return
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("in the child: %s", out)
	}
	if !strings.Contains(string(out), "--- PASS") {
		t.Errorf("the child ran no test:\n%s", out)
	}
	t.Logf("in the child:\n%s", out)
}

func (c Child) mapIDs(cmd *exec.Cmd, uid, gid int) {
	if c.Clone&syscall.CLONE_NEWUSER == 0 {
		return
	}
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: c.InsideID, HostID: uid, Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: c.InsideID, HostID: gid, Size: 1}}
	if c.Ambient {
		for n := range uintptr(41) {
			cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, n)
		}
	}
}

// runAsOrdinary makes the child drop to OrdinaryID. With new namespaces the
// drop must come first, so a helper child (this binary again) sits between.
func (c Child) runAsOrdinary(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if c.Clone == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: OrdinaryID, Gid: OrdinaryID}
		return
	}
	// unshare(2) after the drop is done by the child's own parent: the test
	// binary run as the ordinary account, which forks the namespaced one.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: OrdinaryID, Gid: OrdinaryID}}
	cmd.Env = replaceEnv(cmd.Env, childVar, "") // the middle process runs Run again, unprivileged
}

func replaceEnv(env []string, key, value string) []string {
	out := make([]string, 0, len(env))
	for _, kv := range env {
		if !strings.HasPrefix(kv, key+"=") {
			out = append(out, kv)
		}
	}
	if value != "" {
		out = append(out, key+"="+value)
	}
	return out
}
