package procs

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Exit is how a process ended.
type Exit struct {
	PID    int
	Status unix.WaitStatus
	Usage  unix.Rusage
}

// Reaper collects the ended children of pid 1: those it started, whose end is
// reported, and orphans, which are only buried. NewReaper makes one; a process
// has at most one, and nothing else in it may wait for children.
type Reaper struct {
	mu      sync.Mutex    // held while a child is made, so that none is buried unnamed
	started map[int]bool  // children whose end is to be reported
	wake    chan struct{} // there may be a child again
}

// NewReaper returns a reaper that has started nothing.
func NewReaper() *Reaper {
	return &Reaper{started: map[int]bool{}, wake: make(chan struct{}, 1)}
}

// Start calls fork, which makes a child and returns its number, and has its
// end reported. However soon the child ends, its status is not lost.
func (r *Reaper) Start(fork func() (pid int, err error)) (int, error) {
	r.mu.Lock()
	pid, err := fork()
	if err == nil {
		r.started[pid] = true
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return pid, err
}

// Run buries every child that ends and reports those that were started, one at
// a time, until report returns false. Without children it waits for a Start.
func (r *Reaper) Run(report func(Exit) (more bool)) error {
	for {
		pid, err := waitAny()
		if err == unix.ECHILD {
			<-r.wake
			continue
		}
		if err != nil {
			return fmt.Errorf("waiting for children: %w", err)
		}
		e, wanted, ok := r.bury(pid)
		if ok && wanted && !report(e) {
			return nil
		}
	}
}

// bury collects the status. It is not there (ok false) if fork itself has
// collected a child that could not execute its program.
func (r *Reaper) bury(pid int) (e Exit, wanted, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		got, err := unix.Wait4(pid, &e.Status, unix.WNOHANG, &e.Usage)
		if err == unix.EINTR {
			continue
		}
		if err != nil || got != pid {
			return Exit{}, false, false
		}
		break
	}
	e.PID = pid
	wanted = r.started[pid]
	delete(r.started, pid)
	return e, wanted, true
}
