// Package sibling finds the other programs of one release.
//
// They stand beside each other; only a program that is not there is looked
// for on PATH. It starts nothing. Whoever executes a program of ours calls it.
package sibling

import (
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/fault"
)

// Find returns the path of the program name: beside this one, then on PATH.
func Find(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fault.New(fault.FailedPrecondition, "%s is neither beside this program nor on PATH", name).
			Hint("install all programs of one release into one directory").Cause(err)
	}
	return path, nil
}
