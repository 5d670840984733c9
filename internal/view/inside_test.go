package view

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/internal/mounts"
)

const initVar = "OPENSHELL_VIEW_TEST_INIT"

// TestMain is also the pid 1 of the sandboxes that the tests start: it applies
// the plan, gives up every capability and becomes the program.
func TestMain(m *testing.M) {
	if dir := os.Getenv(initVar); dir != "" {
		fmt.Fprintln(os.Stderr, "init:", becomeAgent(dir, os.Args[1:]))
		os.Exit(125)
	}
	os.Exit(m.Run())
}

func becomeAgent(dir string, argv []string) error {
	runtime.LockOSThread()
	data, err := io.ReadAll(os.NewFile(3, "plan"))
	if err != nil {
		return err
	}
	plan, err := mounts.Decode(data)
	if err != nil {
		return err
	}
	report, err := mounts.Apply(plan, mounts.Options{})
	if err != nil {
		return err
	}
	for _, s := range report.Skipped {
		fmt.Fprintln(os.Stderr, "skipped:", s)
	}
	if os.Getenv("OPENSHELL_VIEW_TEST_STEPS") != "" {
		for _, s := range report.Steps {
			fmt.Fprintln(os.Stderr, s.Took, s.Name)
		}
	}
	if os.Getenv("OPENSHELL_VIEW_TEST_STAY") != "" {
		return stay(plan, dir)
	}
	if err := dropAll(); err != nil {
		return err
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + os.Getenv("HOME"), "LC_ALL=C.UTF-8"}
	return syscall.Exec(argv[0], argv, env)
}

func dropAll() error {
	for c := range uintptr(64) {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// agent starts argv in the view v as the caller's own number.
func agent(t *testing.T, v *View, argv ...string) *exec.Cmd {
	t.Helper()
	data, err := v.Plan.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	plan := os.NewFile(uintptr(fd), "plan")
	t.Cleanup(func() { plan.Close() })
	if _, err := plan.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exe.Close() })
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), argv...)
	cmd.Env = []string{initVar + "=" + v.Dir, "HOME=" + v.Home, "OPENSHELL_VIEW_TEST_STEPS=" + os.Getenv("OPENSHELL_VIEW_TEST_STEPS")}
	cmd.ExtraFiles = []*os.File{plan}
	uid, gid := os.Geteuid(), os.Getegid()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:   syscall.SIGKILL,
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
	}
	for c := range uintptr(41) {
		cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, c)
	}
	return cmd
}

// sh runs a script in the view and returns what it printed.
func sh(t *testing.T, v *View, script string) string {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := agent(t, v, "/bin/sh", "-c", script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	if cmd.ProcessState.ExitCode() == 125 {
		t.Fatalf("the view could not be applied: %s", out.String())
	}
	return out.String()
}

// eachUser runs body as the caller and as an account without privileges.
func eachUser(t *testing.T, body func(t *testing.T)) {
	kerneltest.Require(t, kerneltest.UserNS)
	t.Run("ordinary", func(t *testing.T) { kerneltest.Child{Ordinary: true}.Run(t, body) })
	if os.Geteuid() == 0 {
		t.Run("root", body)
	}
}

// place returns an empty workspace and a state directory beside it.
func place(t *testing.T) (work, state string) {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	work, state = base+"/work", base+"/state"
	for _, d := range []string{work, state} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return work, state
}

func build(t *testing.T, s Spec) *View {
	t.Helper()
	if s.ID == "" {
		s.ID = "test"
	}
	s.Who.UID, s.Who.GID = os.Getuid(), os.Getgid()
	v, err := Build(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func wantLines(t *testing.T, got string, want ...string) {
	t.Helper()
	if w := strings.Join(want, "\n") + "\n"; got != w {
		t.Errorf("got:\n%swant:\n%s", got, w)
	}
}

// stay serves requests on standard input instead of becoming the program: a
// line "renew" renews the protections, any other is a script for a shell
// without capabilities (not for root, whose shell would keep them).
func stay(plan mounts.Plan, dir string) error {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "renew" {
			again, err := mounts.Renew(plan)
			fmt.Printf("%q %v\x00", again, err)
			continue
		}
		cmd := exec.Command("/bin/sh", "-c", in.Text())
		cmd.Dir = dir
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		out, _ := cmd.CombinedOutput()
		fmt.Printf("%s\x00", out)
	}
	return in.Err()
}

// session is a sandbox whose pid 1 stays.
type session struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, v *View) *session {
	t.Helper()
	runtime.LockOSThread()
	cmd := agent(t, v, "-")
	cmd.Env = append(cmd.Env, "OPENSHELL_VIEW_TEST_STAY=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
		runtime.UnlockOSThread()
	})
	return &session{t: t, in: in, out: bufio.NewReader(out)}
}

func (s *session) do(line string) string {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
	got, err := s.out.ReadString(0)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSuffix(got, "\x00")
}

func makeSocket(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
}
