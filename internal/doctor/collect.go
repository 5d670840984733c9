package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/cgroup"
	"openshell.dev/openshell/internal/landlock"
)

// facts is what was seen, without a judgement.
type facts struct {
	uid       int
	container bool  // we are inside a container of somebody's
	clone     error // making the namespaces
	probed    map[string]string
	probeErr  error // the child started and did not report

	maxUserNS  int // -1: unknown
	cloneKnob  int // kernel.unprivileged_userns_clone; -1: not there
	apparmor   int // kernel.apparmor_restrict_unprivileged_userns; -1: not there
	programDir string
	programs   map[string]bool

	landlockABI int
	landlockErr error

	limits map[string]error // controller to what creating a limit said
	cgroup bool             // version 2 is mounted

	stateDir  string
	free      uint64
	freeErr   error
	writable  error
	trial     error
	trialTime time.Duration
	tried     bool
}

// Namespaces of a sandbox, as the supervisor asks for them.
const allNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

const probeTime = 20 * time.Second

func collect(ctx context.Context, o Options) *facts {
	f := &facts{uid: os.Getuid(), container: inContainer(),
		maxUserNS: sysctl("user/max_user_namespaces"), cloneKnob: sysctl("kernel/unprivileged_userns_clone"),
		apparmor: sysctl("kernel/apparmor_restrict_unprivileged_userns")}
	f.child(ctx, o)
	f.landlockABI, f.landlockErr = landlock.Probe()
	f.limit()
	f.disk(o.StateDir)
	f.siblings()
	if o.Trial != nil && f.clone == nil && f.programs[brand.Launcher] && f.programs[brand.CLI] {
		begin := time.Now()
		f.tried, f.trial = true, o.Trial(ctx)
		f.trialTime = time.Since(begin)
	}
	return f
}

func sysctl(name string) int {
	body, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(body)))
	if err != nil {
		return -1
	}
	return n
}

func inContainer() bool {
	for _, path := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return os.Getenv("container") != ""
}

// child runs the probe in namespaces like those of a sandbox.
func (f *facts) child(ctx context.Context, o Options) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	runtime.LockOSThread() // Pdeathsig follows the thread
	defer runtime.UnlockOSThread()
	inside := f.uid
	if inside == 0 {
		inside = 1000
	}
	insideGroup := os.Getgid()
	if insideGroup == 0 {
		insideGroup = 1000
	}
	cmd := exec.CommandContext(ctx, o.Probe[0], o.Probe[1:]...)
	cmd.Args[0] = brand.CLI
	cmd.Env = append([]string{}, o.ProbeEnv...)
	cmd.Dir = "/"
	caps := make([]uintptr, unix.CAP_LAST_CAP+1)
	for i := range caps {
		caps[i] = uintptr(i)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: allNamespaces, Pdeathsig: syscall.SIGKILL, AmbientCaps: caps,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: inside, HostID: f.uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: insideGroup, HostID: os.Getgid(), Size: 1}}}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if f.clone = cmd.Start(); f.clone != nil {
		return
	}
	err := cmd.Wait()
	body := out.Bytes()
	if at := bytes.IndexByte(body, '{'); at >= 0 {
		body = body[at:]
	}
	if json.NewDecoder(bytes.NewReader(body)).Decode(&f.probed) != nil {
		f.probeErr = errors.Join(fmt.Errorf("no report: %s", strings.TrimSpace(complaint.String())), err)
	}
}

// limit tries each controller in a group of its own.
func (f *facts) limit() {
	f.limits = map[string]error{}
	for name, limits := range map[string]cgroup.Limits{"cpu": {MilliCPU: 1000}, "memory": {Memory: 64 << 20}, "pids": {Pids: 64}} {
		g, err := cgroup.Create(fmt.Sprintf("doctor-%d-%s", os.Getpid(), name), limits)
		if err == nil && g != nil {
			err = g.Remove()
		}
		f.limits[name] = err
	}
	var st unix.Statfs_t
	f.cgroup = unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// disk looks at the nearest directory that exists.
func (f *facts) disk(dir string) {
	f.stateDir = dir
	for dir != "" {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if errors.Is(err, unix.ENOENT) && dir != "/" {
			dir = filepath.Dir(dir)
			continue
		}
		f.freeErr = err
		f.free = st.Bavail * uint64(st.Bsize)
		break
	}
	if dir != "" {
		f.writable = unix.Access(dir, unix.W_OK)
	}
}

func (f *facts) siblings() {
	f.programs = map[string]bool{}
	self, err := os.Executable()
	if err != nil {
		return
	}
	f.programDir = filepath.Dir(self)
	for _, name := range []string{brand.CLI, brand.Client, brand.Gateway, brand.Supervisor, brand.Launcher} {
		f.programs[name] = unix.Access(filepath.Join(f.programDir, name), unix.X_OK) == nil
	}
}
