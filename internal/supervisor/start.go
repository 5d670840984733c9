package supervisor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/launch/wire"
	"openshell.dev/openshell/internal/sibling"
)

// Namespaces are those a sandbox gets, in the order a person would name them.
var Namespaces = []struct {
	Name string
	Flag uintptr
	Why  string
}{
	{"user", unix.CLONE_NEWUSER, "capabilities over the other namespaces and over nothing else"},
	{"mnt", unix.CLONE_NEWNS, "its own view of the files"},
	{"pid", unix.CLONE_NEWPID, "sees and signals only its own processes; all end with pid 1"},
	{"net", unix.CLONE_NEWNET, "no interface, address or route of the host"},
	{"ipc", unix.CLONE_NEWIPC, "no shared memory, semaphores or queues of the host"},
	{"uts", unix.CLONE_NEWUTS, "its own host name"},
	{"cgroup", unix.CLONE_NEWCGROUP, "does not see where in the host's tree it is limited"},
	{"time", unix.CLONE_NEWTIME, "does not share the host's clock offsets; where the kernel has it"},
}

// InsideID returns the user id a sandbox of this process has inside: the
// caller's own, and 1000 for root, because agents refuse to run as root and
// nothing inside may look like it.
func InsideID(host int) int {
	if host == 0 {
		return 1000
	}
	return host
}

// launcher is the running inside half.
type launcher struct {
	pid  int
	conn *wire.Conn
	gone chan struct{} // closed when the process has been reaped
	ws   syscall.WaitStatus
}

// startLauncher forks pid 1 of a new sandbox. place, if not nil, is told its
// pid before it does anything (cgroup v1).
func startLauncher(cgroupFD int, place func(pid int) error) (*launcher, error) {
	path, err := sibling.Find(brand.Launcher)
	if err != nil {
		return nil, err
	}
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	defer null.Close()
	l := &launcher{conn: conn, gone: make(chan struct{})}
	started := make(chan error, 1)
	go l.own(path, []uintptr{null.Fd(), null.Fd(), os.Stderr.Fd(), theirs.Fd()}, cgroupFD, started)
	if err := <-started; err != nil {
		conn.Release()
		return nil, explainClone(err)
	}
	if place != nil {
		if err := place(l.pid); err != nil {
			l.kill()
			return nil, err
		}
	}
	return l, nil
}

// own forks the launcher and waits for it on one locked thread: the kernel
// ties Pdeathsig to the thread that forked, so that thread must live as long.
func (l *launcher) own(path string, files []uintptr, cgroupFD int, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sys := &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Setsid: true,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: InsideID(os.Getuid()), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: InsideID(os.Getgid()), HostID: os.Getgid(), Size: 1}},
		AmbientCaps: allCapabilities,
	}
	for _, ns := range Namespaces {
		if ns.Flag == unix.CLONE_NEWTIME {
			if haveTimeNamespace() {
				sys.Unshareflags |= ns.Flag // clone(2) has no room for this flag
			}
			continue
		}
		sys.Cloneflags |= ns.Flag
	}
	if cgroupFD >= 0 {
		sys.UseCgroupFD, sys.CgroupFD = true, cgroupFD
	}
	pid, err := syscall.ForkExec(path, []string{brand.Launcher}, &syscall.ProcAttr{
		Dir: "/", Env: []string{}, Files: files, Sys: sys,
	})
	l.pid = pid
	started <- err
	if err != nil {
		return
	}
	for {
		if _, err := syscall.Wait4(pid, &l.ws, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	close(l.gone)
}

// kill ends the launcher and with it everything inside, and waits for it.
func (l *launcher) kill() {
	select {
	case <-l.gone:
	default:
		_ = syscall.Kill(l.pid, syscall.SIGKILL)
		<-l.gone
	}
	_ = l.conn.Close()
}

// allCapabilities keeps the launcher's capabilities over its execve, which
// with an id other than 0 would drop them.
var allCapabilities = func() []uintptr {
	caps := make([]uintptr, unix.CAP_LAST_CAP+1)
	for i := range caps {
		caps[i] = uintptr(i)
	}
	return caps
}()

func haveTimeNamespace() bool {
	_, err := os.Stat("/proc/self/ns/time")
	return err == nil
}

// explainClone says what a refused clone means on this host.
func explainClone(err error) error {
	f := fault.New(fault.Unsupported, "this host does not let an ordinary account make user namespaces").Cause(err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EUSERS):
		return f.Hint("sudo sysctl user.max_user_namespaces=15000")
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return f.Hint("%s doctor", brand.CLI)
	}
	return fmt.Errorf("start %s in new namespaces: %w", brand.Launcher, err)
}
