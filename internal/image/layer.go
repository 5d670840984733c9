package image

import (
	"os"
	"path/filepath"

	"openshell.dev/openshell/internal/fault"
)

const layerDir = "layer"

// Layer makes, or finds again, the writable layer of a sandbox: what it
// changes in its files is kept in upper over stop and start. work is scratch
// space of the overlay on the same file system and is emptied of what an
// unclean end left. rootMode is the mode of the image's root directory, which
// the overlay takes from upper.
func Layer(sandboxDir string, rootMode os.FileMode) (upper, work string, err error) {
	base := filepath.Join(sandboxDir, layerDir)
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", "", layerFault(base, err)
	}
	upper, work = filepath.Join(base, "upper"), filepath.Join(base, "work")
	info, err := os.Lstat(upper)
	switch {
	case err == nil && !info.IsDir():
		return "", "", fault.New(fault.Internal, "%q is not a directory", upper)
	case err != nil:
		if err := os.Mkdir(upper, 0o700); err != nil {
			return "", "", layerFault(upper, err)
		}
		if err := os.Chmod(upper, rootMode.Perm()|0o700); err != nil {
			return "", "", layerFault(upper, err)
		}
	}
	if err := removeTree(work); err != nil {
		return "", "", layerFault(work, err)
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		return "", "", layerFault(work, err)
	}
	return upper, work, nil
}

// RemoveLayer removes the writable layer. The sandbox must have ended.
func RemoveLayer(sandboxDir string) error {
	base := filepath.Join(sandboxDir, layerDir)
	if err := removeTree(base); err != nil {
		return layerFault(base, err)
	}
	return nil
}

// RemoveTree removes a directory of ours even where an agent has closed
// directories in it. It follows no link and crosses no mount.
func RemoveTree(dir string) error { return removeTree(dir) }

func layerFault(dir string, err error) error {
	c := Cache{dir: dir}
	if f, ok := faultOf(c.diskFault(err)); ok && f.Kind == fault.Exhausted {
		return fault.New(fault.Exhausted, "no space left for the sandbox's files in %q", dir).
			Hint("df -h %s", dir).Because("DISK_FULL").Cause(err)
	}
	return fault.New(fault.Internal, "the sandbox's files in %q cannot be prepared", dir).Cause(err)
}
