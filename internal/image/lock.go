package image

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lock is an advisory lock on a file. The kernel lets go of it when the
// process ends, however it ends. Lock files are empty. Only those of
// workplaces are removed, by the holder.
type lock struct{ f *os.File }

var errBusy = errors.New("in use by another process")

// tryLock takes the lock or returns errBusy.
func tryLock(name string, shared bool) (*lock, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	for {
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if err == nil {
		if sameFile(f, name) {
			return &lock{f}, nil
		}
		err = unix.EWOULDBLOCK // its last holder removed it; a new one may exist
	}
	f.Close()
	if err == unix.EWOULDBLOCK {
		return nil, errBusy
	}
	return nil, &os.PathError{Op: "flock", Path: name, Err: err}
}

func sameFile(f *os.File, name string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(name)
	return err == nil && os.SameFile(a, b)
}

// waitLock takes the lock, waiting until the context ends. busy is called
// once if there is anything to wait for.
func waitLock(ctx context.Context, name string, shared bool, busy func()) (*lock, error) {
	for wait := 5 * time.Millisecond; ; wait = min(wait*2, 250*time.Millisecond) {
		l, err := tryLock(name, shared)
		if !errors.Is(err, errBusy) {
			return l, err
		}
		if busy != nil {
			busy()
			busy = nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (l *lock) unlock() error {
	if l == nil || l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return f.Close()
}
