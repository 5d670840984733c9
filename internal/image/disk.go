package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// rootDisk carries out the tree's decisions below one directory. It opens
// nothing that exists and follows no link.
type rootDisk struct {
	root *os.Root
	// The directory used last stays open: entries of one directory follow
	// each other in almost every archive.
	dir  *os.Root
	path string
}

func (d *rootDisk) in(name string) (*os.Root, string, error) {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if dir == "" {
		return d.root, base, nil
	}
	if d.dir != nil && d.path == dir {
		return d.dir, base, nil
	}
	d.close()
	r, err := d.root.OpenRoot(dir)
	if err != nil {
		return nil, "", err
	}
	d.dir, d.path = r, dir
	return r, base, nil
}

func (d *rootDisk) close() {
	if d.dir != nil {
		d.dir.Close()
		d.dir = nil
	}
}

func (d *rootDisk) mkdir(name string) error {
	r, base, err := d.in(name)
	if err != nil {
		return err
	}
	return r.Mkdir(base, 0o700)
}

func (d *rootDisk) symlink(target, name string) error {
	r, base, err := d.in(name)
	if err != nil {
		return err
	}
	return r.Symlink(target, base)
}

func (d *rootDisk) link(old, name string) error {
	err := d.root.Link(old, name)
	if errors.Is(err, syscall.EMLINK) {
		return fmt.Errorf("too many hard links: %w", err)
	}
	return err
}

func (d *rootDisk) remove(name string) error {
	r, base, err := d.in(name)
	if err != nil {
		return err
	}
	return r.Remove(base)
}

func (d *rootDisk) removeAll(name string) error {
	d.close() // it may be below
	return d.root.RemoveAll(name)
}

func (d *rootDisk) create(name string, perm os.FileMode, mtime int64, body io.Reader, buf []byte) (int64, error) {
	r, base, err := d.in(name)
	if err != nil {
		return 0, err
	}
	f, err := r.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, body, buf)
	if err == nil {
		err = f.Chmod(perm)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && mtime > 0 {
		at := time.Unix(mtime, 0)
		err = r.Chtimes(base, at, at)
	}
	return n, err
}

// chdir sets a directory's final mode and time.
func (d *rootDisk) chdir(name string, perm os.FileMode, sticky bool, mtime int64) error {
	d.close()
	if name == "" {
		name = "."
	}
	if sticky {
		perm |= os.ModeSticky
	}
	if err := d.root.Chmod(name, perm); err != nil {
		return err
	}
	if mtime == 0 {
		return nil
	}
	at := time.Unix(mtime, 0)
	return d.root.Chtimes(name, at, at)
}
