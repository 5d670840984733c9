package launch

import (
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/confine"
	"openshell.dev/openshell/internal/launch/wire"
)

// forge is the one thread every process is forked from. It confined itself
// once and can never undo it, so each child inherits exactly the state that
// was measured.
type forge struct {
	jobs    chan func()
	checks  []wire.Check
	skipped []string
	abi     int
}

func (l *launcher) raiseWalls() error {
	f := &forge{jobs: make(chan func())}
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with its restrictions
		failed <- f.confine(&l.plan)
		for job := range f.jobs {
			job()
		}
	}()
	if err := <-failed; err != nil {
		return err
	}
	l.forge = f
	return nil
}

func (f *forge) confine(plan *wire.Plan) error {
	rep, err := confine.Thread(confineSpec(plan))
	for _, c := range rep.Checks {
		f.checks = append(f.checks, wire.Check{Name: c.Name, Want: c.Want, Got: c.Got, OK: c.OK})
	}
	f.skipped, f.abi = skipped(rep.Landlock), rep.Landlock.Used
	return err
}

// spawn starts a process and answers with its pid or with why not.
func (l *launcher) spawn(f wire.Frame) error {
	defer closeAll(f.FDs)
	var m wire.Spawn
	if err := f.Unmarshal(&m); err != nil {
		return err
	}
	if m.TTY != (len(f.FDs) == 0) || (!m.TTY && len(f.FDs) != 3) || len(m.Argv) == 0 {
		return wire.ErrMalformed
	}
	if m.Dir == "" {
		m.Dir = l.plan.Dir
	}
	ownNull(f.FDs)
	std, master := f.FDs, -1
	if m.TTY {
		var slave int
		var err error
		if master, slave, err = openTerminal(m.Rows, m.Cols); err != nil {
			return l.refuse(f.ID, "terminal", err)
		}
		defer unix.Close(master)
		defer unix.Close(slave)
		std = []int{slave, slave, slave}
	}
	if err := unix.Access(m.Dir, unix.X_OK); err != nil {
		return l.refuse(f.ID, "working directory", err)
	}
	path, err := lookPath(m.Argv[0], m.Dir, m.Env)
	if err != nil {
		return l.refuse(f.ID, "command", err)
	}
	attr := &syscall.ProcAttr{
		Dir: m.Dir, Env: m.Env, Files: []uintptr{uintptr(std[0]), uintptr(std[1]), uintptr(std[2])},
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: m.TTY},
	}
	pid, ended, err := l.table.fork(f.ID, func() (pid int, err error) {
		done := make(chan struct{})
		l.forge.jobs <- func() {
			pid, err = syscall.ForkExec(path, m.Argv, attr)
			close(done)
		}
		<-done
		return pid, err
	})
	if err != nil {
		return l.refuse(f.ID, "command", err)
	}
	answer := []int{}
	if master >= 0 {
		answer = append(answer, master)
	}
	if err := l.conn.Send(f.ID, &wire.Spawned{PID: pid}, answer...); err != nil {
		return err
	}
	if ended != nil {
		l.exited(f.ID, *ended)
	}
	l.wakeReaper()
	return nil
}

// ownNull puts the sandbox's /dev/null in the place of the host's, which is
// another file to Landlock: a program could use it but not open it again as
// /dev/stdin or /dev/stdout. Anything else stays what it is.
func ownNull(fds []int) {
	for _, fd := range fds {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			continue
		}
		if own, err := unix.Open("/dev/null", flags&unix.O_ACCMODE|unix.O_CLOEXEC, 0); err == nil {
			_ = unix.Dup3(own, fd, unix.O_CLOEXEC)
			_ = unix.Close(own)
		}
	}
}

func (l *launcher) refuse(id uint32, step string, err error) error {
	return l.conn.Send(id, &wire.Spawned{Step: step, Errno: errnoOf(err)})
}

// lookPath finds a program as a shell would, inside: EACCES if something of
// that name exists and cannot be executed, ENOENT if nothing does.
func lookPath(name, dir string, env []string) (string, error) {
	if name == "" {
		return "", unix.ENOENT
	}
	if strings.Contains(name, "/") {
		return name, nil // exec itself says what is wrong with it
	}
	path := "/usr/local/bin:/usr/bin:/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	found := error(unix.ENOENT)
	for d := range strings.SplitSeq(path, ":") {
		if !strings.HasPrefix(d, "/") {
			continue // an empty or relative element is the workspace: never searched
		}
		full := d + "/" + name
		st, err := os.Stat(full)
		if err != nil || st.IsDir() {
			continue
		}
		if unix.Access(full, unix.X_OK) == nil {
			return full, nil
		}
		found = unix.EACCES
	}
	return "", found
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
