package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// proc is a supervisor process, a child of ours or adopted.
type proc struct {
	pid      int
	pidfd    *os.File
	cmd      *exec.Cmd // nil if adopted: somebody else reaps it
	followed chan struct{}

	mu   sync.Mutex
	gone bool // guarded by mu: the pid may be somebody else's
}

// startProc executes the supervisor in a session of its own, so that what
// ends the gateway does not end it.
func startProc(path string, args, env []string, log *os.File) (*proc, error) {
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Dir = env, "/"
	cmd.Stdout, cmd.Stderr = log, log
	fd := -1
	// Without namespaces of its own the fork is a vfork, however large the
	// gateway has grown.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &fd}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	if fd < 0 { // before kernel 5.4
		var err error
		if fd, err = unix.PidfdOpen(cmd.Process.Pid, unix.PIDFD_NONBLOCK); err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return nil, fmt.Errorf("watch the supervisor: %w", err)
		}
	}
	p := &proc{pid: cmd.Process.Pid, cmd: cmd, followed: make(chan struct{})}
	return p, p.watch(fd)
}

// adoptProc finds a process that an earlier gateway started. The start time
// tells it from another that got its number.
func adoptProc(pid int, started uint64) (*proc, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	p := &proc{pid: pid, followed: make(chan struct{})}
	if err := p.watch(fd); err != nil {
		return nil, err
	}
	state, at, err := stat(pid)
	if err != nil || at != started || state == 'Z' {
		p.pidfd.Close()
		return nil, errors.New("it is another process, or a dead one")
	}
	return p, nil
}

func (p *proc) watch(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	unix.CloseOnExec(fd)
	p.pidfd = os.NewFile(uintptr(fd), "pidfd") // in the runtime's poller, because it does not block
	return nil
}

// wait returns how the process ended, or false when ctx ended first.
func (p *proc) wait(ctx context.Context) (string, bool) {
	stop := context.AfterFunc(ctx, func() { _ = p.pidfd.SetReadDeadline(time.Now()) })
	defer stop()
	raw, err := p.pidfd.SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool { return ended(int(fd)) })
	}
	if err != nil && ctx.Err() != nil {
		return "", false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	text := "how is not known, because an earlier gateway started it"
	if p.cmd != nil {
		_ = p.cmd.Wait() // reaps it; the state says the rest
		text = describe(p.cmd.ProcessState)
	}
	p.gone = true
	p.pidfd.Close()
	return text, true
}

// ended reports whether a pidfd's process is dead.
func ended(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, 0)
		if err == unix.EINTR {
			continue
		}
		return err != nil || n > 0
	}
}

func describe(s *os.ProcessState) string {
	if s == nil {
		return "how is not known"
	}
	ws, ok := s.Sys().(syscall.WaitStatus)
	switch {
	case ok && ws.Signaled():
		return fmt.Sprintf("it was ended by signal %d (%s)", ws.Signal(), ws.Signal())
	case s.ExitCode() == 0:
		return "it was asked to end from outside"
	}
	return fmt.Sprintf("it exited with code %d, see its log", s.ExitCode())
}

// signal sends a signal if the process is surely still ours.
func (p *proc) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return os.ErrProcessDone
	}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	return inner
}

// end asks the supervisor to stop the sandbox (SIGTERM: the main process gets
// its grace, SIGINT: at once), and kills it when it does not. It returns when
// neither it nor its children are left.
func (p *proc) end(ctx context.Context, grace time.Duration) error {
	children := p.children()
	defer closeAll(children)
	ask, limit := syscall.SIGINT, quickEnd
	if grace > 0 {
		ask, limit = syscall.SIGTERM, grace+quickEnd
	}
	if err := p.signal(ask); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.followed:
	case <-timer.C:
		children = append(children, p.children()...)
		if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		select {
		case <-p.followed:
		case <-ctx.Done():
			return ctx.Err()
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	// A launcher dies with its supervisor, but a moment later; with it go all
	// processes inside, because it is their init.
	for _, c := range children {
		if err := c.SetReadDeadline(time.Now().Add(quickEnd)); err != nil {
			return err
		}
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Read(func(fd uintptr) bool { return ended(int(fd)) }); err != nil {
			return errors.New("a process of the sandbox does not end")
		}
	}
	return nil
}

// children returns pidfds of the supervisor's children, which are launchers.
func (p *proc) children() []*os.File {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid))
	if err != nil {
		return nil
	}
	var out []*os.File
	for _, t := range tasks {
		body, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", p.pid, t.Name()))
		if err != nil {
			continue
		}
		for word := range strings.FieldsSeq(string(body)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				continue
			}
			if fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK); err == nil {
				out = append(out, os.NewFile(uintptr(fd), "pidfd"))
			}
		}
	}
	return out
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// stat returns the state and the start time of a process.
func stat(pid int) (state byte, started uint64, err error) {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name in parentheses may hold anything, so the last one counts.
	i := strings.LastIndexByte(string(body), ')')
	fields := strings.Fields(string(body[i+1:]))
	if i < 0 || len(fields) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	started, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], started, err
}

// bootID identifies this run of the kernel.
func bootID() (string, error) {
	body, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(body)), err
}
