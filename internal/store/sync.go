package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// syncer makes what is in the write-ahead log durable. Callers that arrive
// while one wait for the disk is under way share the next.
type syncer struct {
	path string

	mu      sync.Mutex
	running *round // under way; later callers may not join it
	next    *round // those who wait for running to end
}

type round struct {
	done chan struct{}
	err  error
}

// Sync waits until the log as it is now is on the disk.
func (s *SQLite) Sync(ctx context.Context) error {
	r := s.syncer.join()
	select {
	case <-r.done:
		return storageFault("write to disk", r.err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (y *syncer) join() *round {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.next == nil {
		y.next = &round{done: make(chan struct{})}
	}
	r := y.next
	if y.running == nil {
		y.start()
	}
	return r
}

// start begins the waiting round; mu is held.
func (y *syncer) start() {
	y.running, y.next = y.next, nil
	r := y.running
	go func() { // ends with the disk's answer
		r.err = syncFile(y.path)
		close(r.done)
		y.mu.Lock()
		y.running = nil
		if y.next != nil {
			y.start()
		}
		y.mu.Unlock()
	}()
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // checkpointed and removed: all of it is in the main file, synced
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fdatasync(int(f.Fd()))
}
