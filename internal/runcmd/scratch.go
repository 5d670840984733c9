package runcmd

import (
	"io/fs"
	"os"
	"path/filepath"
)

// removeScratch removes what only this run needed. Programs may have closed
// directories in it; all of it is ours, so they are opened first. Links are
// not followed.
func removeScratch(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil && d != nil && d.IsDir() || err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir) // what is left is swept by hand: it holds no secret
}
