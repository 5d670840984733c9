package launch

import (
	"sync"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/launch/wire"
)

// table knows which process belongs to which Spawn and never loses an exit:
// a child that ends before it was entered is remembered until it is.
type table struct {
	mu      sync.Mutex
	byPID   map[int]uint32          // running processes of Spawn
	byID    map[uint32]int          // the same, the other way
	early   map[int]unix.WaitStatus // ended while a fork was under way
	forking int                     // forks under way
}

// fork runs start, which makes a process, and enters it under id. It returns
// the status if the process has ended already.
func (t *table) fork(id uint32, start func() (int, error)) (pid int, ended *unix.WaitStatus, err error) {
	t.mu.Lock()
	t.forking++
	t.mu.Unlock()
	pid, err = start()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forking--
	if err == nil {
		if ws, ok := t.early[pid]; ok {
			ended = &ws
		} else {
			if t.byPID == nil {
				t.byPID, t.byID = map[int]uint32{}, map[uint32]int{}
			}
			t.byPID[pid], t.byID[id] = id, pid
		}
	}
	if t.forking == 0 {
		t.early = nil
	}
	return pid, ended, err
}

// ended notes that pid was reaped and returns the Spawn it belongs to.
func (t *table) ended(pid int, ws unix.WaitStatus) (id uint32, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id, ok = t.byPID[pid]; ok {
		delete(t.byPID, pid)
		delete(t.byID, id)
		return id, true
	}
	if t.forking > 0 {
		if t.early == nil {
			t.early = map[int]unix.WaitStatus{}
		}
		t.early[pid] = ws
	}
	return 0, false
}

// signal sends sig to the process of id, or its group. The lock keeps the
// number from being reaped and used again meanwhile.
func (t *table) signal(id uint32, sig unix.Signal, group bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	pid, ok := t.byID[id]
	if !ok {
		return unix.ESRCH
	}
	if group {
		pid = -pid
	}
	return unix.Kill(pid, sig)
}

// reap collects every child for ever: ours and the orphans that pid 1
// inherits. Without any child it sleeps until the next fork.
func (l *launcher) reap() {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil: // ECHILD
			<-l.forked
		default:
			if id, ok := l.table.ended(pid, ws); ok {
				l.exited(id, ws)
			}
		}
	}
}

// wakeReaper tells the reaper that there is a child.
func (l *launcher) wakeReaper() {
	select {
	case l.forked <- struct{}{}:
	default:
	}
}

func (l *launcher) exited(id uint32, ws unix.WaitStatus) {
	m := wire.Exited{Code: ws.ExitStatus()}
	if ws.Signaled() {
		m.Signal = int(ws.Signal())
		m.Code = 128 + m.Signal
	}
	_ = l.conn.Send(id, &m) // a lost socket ends serve, which ends everything
}
