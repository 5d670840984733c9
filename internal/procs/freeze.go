package procs

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStillRunning means that not every process could be brought to the wanted
// state within the bounds. What was done stays done.
var ErrStillRunning = errors.New("processes are still running")

// Sweep says what it took.
type Sweep struct {
	Rounds int
	Tasks  int // threads looked at in the last look
}

const (
	sweepRounds = 60
	sweepPause  = 500 * time.Microsecond // times the round, as tasks need the processor to stop
	sweepLimit  = 20 * time.Millisecond  // of one pause
)

// Freeze stops every process but the caller, which must be pid 1, and returns
// when all are seen to have stopped: in two looks running, because a process
// may be born, or continued by another, during one. ErrStillRunning after a
// bounded number of rounds (about a second).
//
// Programs can see it: a parent is told that its child stopped, and some
// system calls end with EINTR after Thaw.
func Freeze() (Sweep, error) {
	return sweep(unix.SIGSTOP, func(state byte) bool {
		// D: a parent in vfork, or in a file operation; it stops on its way out.
		return state == 'T' || state == 't' || state == 'D' || state == 'Z' || state == 'X'
	})
}

// Thaw continues every process that Freeze stopped, and any that stopped itself.
func Thaw() error {
	return killAll(unix.SIGCONT)
}

// KillAll ends every process but the caller, which must be pid 1, and returns
// when none is left but zombies, which the caller reaps.
func KillAll() (Sweep, error) {
	return sweep(unix.SIGKILL, func(state byte) bool { return state == 'Z' || state == 'X' })
}

func killAll(sig unix.Signal) error {
	if unix.Getpid() != 1 {
		return errors.New("only the first process of a pid namespace may signal all others")
	}
	if err := unix.Kill(-1, sig); err != nil && err != unix.ESRCH {
		return fmt.Errorf("sending %s to all processes: %w", unix.SignalName(sig), err)
	}
	return nil
}

// sweep sends the signal and looks, until two looks in a row find every task
// as wanted. The signal is only sent again after a look that did not.
func sweep(sig unix.Signal, done func(state byte) bool) (Sweep, error) {
	var res Sweep
	clean := 0
	for res.Rounds < sweepRounds {
		res.Rounds++
		if clean == 0 {
			if err := killAll(sig); err != nil {
				return res, err
			}
		}
		tasks, busy, err := look(done)
		if err != nil {
			return res, fmt.Errorf("looking whether all processes obey %s: %w", unix.SignalName(sig), err)
		}
		res.Tasks = tasks
		if busy > 0 {
			clean = 0
			time.Sleep(min(time.Duration(res.Rounds)*sweepPause, sweepLimit))
			continue
		}
		if clean++; clean == 2 {
			return res, nil
		}
	}
	return res, fmt.Errorf("after %s: %w", unix.SignalName(sig), ErrStillRunning)
}

// look counts the tasks of all other processes, and those not as wanted. It
// stops counting at the first process that is busy.
func look(done func(state byte) bool) (tasks, busy int, err error) {
	var s search
	pids, err := s.numbers(unix.AT_FDCWD, "/proc", maxProcesses)
	if err != nil {
		return 0, 0, err
	}
	for _, pid := range pids {
		if pid == 1 {
			continue
		}
		n, b, err := s.lookAt(pid, done)
		if err != nil && !errors.Is(err, ErrGone) {
			return 0, 0, err
		}
		tasks += n
		if busy += b; busy > 0 {
			break
		}
	}
	return tasks, busy, nil
}

func (s *search) lookAt(pid int, done func(state byte) bool) (tasks, busy int, err error) {
	d, err := openDir(pid)
	if err != nil {
		return 0, 0, err
	}
	defer d.close()
	tids, err := s.numbers(d.fd, "task", maxProcesses)
	if err != nil {
		return 0, 0, gone(err)
	}
	for _, tid := range tids {
		raw, err := d.read(taskFile(tid, "stat"), maxStat)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		st, err := parseStat(raw)
		if err != nil {
			return 0, 0, err
		}
		tasks++
		if !done(st.state) {
			return tasks, 1, nil
		}
	}
	return tasks, 0, nil
}
