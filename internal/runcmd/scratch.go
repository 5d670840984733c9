package runcmd

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// holdScratch locks the scratch directory of this run for as long as the
// process lives, after it has removed those that a crash left unlocked.
func holdScratch(state, id string) (release func()) {
	sweepScratch(state)
	own := filepath.Join(state, id)
	d, err := os.Open(own)
	if err != nil {
		return func() {} // this run needs none
	}
	_ = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) // nobody else knows the name
	return func() {
		removeScratch(own)
		_ = d.Close()
	}
}

// sweepScratch removes the directories whose owner is gone.
func sweepScratch(state string) {
	entries, _ := os.ReadDir(state)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() || len(e.Name()) != 2*idBytes || time.Since(info.ModTime()) < time.Minute {
			continue // a young one may not be locked yet
		}
		path := filepath.Join(state, e.Name())
		d, err := os.Open(path)
		if err != nil {
			continue
		}
		if syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			removeScratch(path)
		}
		_ = d.Close()
	}
}

// removeScratch removes what only one run needed. Programs may have closed
// directories in it; all of it is ours, so they are opened first. Links are
// not followed.
func removeScratch(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir) // what is left now is swept by the next run
}
