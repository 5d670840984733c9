// Package imagebuild makes container images for tests out of what this
// machine has: programs of the host with the libraries they need, and Node
// and npm packages from the npm client.
//
// It writes images to a registry on loopback or to an OCI layout. Nothing in
// it runs a container engine or needs privilege. What it fetches and packs is
// kept where package fetched keeps it, because a real agent is hundreds of
// megabytes. Used by tests only.
package imagebuild

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Tree is a file system in the making. Its methods collect the first error,
// which Layer returns. Missing parent directories are made.
type Tree struct {
	nodes map[string]treeNode // by path without the leading slash
	err   error
}

type treeNode struct {
	mode fs.FileMode // with type bits
	data []byte      // of a file that is given here
	host string      // of a file that is copied
	link string
	size int64
}

// NewTree returns an empty tree.
func NewTree() *Tree { return &Tree{nodes: map[string]treeNode{}} }

func (t *Tree) fail(format string, args ...any) *Tree {
	if t.err == nil {
		t.err = fmt.Errorf(format, args...)
	}
	return t
}

// merged are the directories that are links into usr, as on every current
// distribution.
var merged = map[string]bool{"bin": true, "sbin": true, "lib": true, "lib64": true}

// at is the canonical path inside the image.
func at(name string) string {
	name = path.Clean("/" + name)[1:]
	top, _, _ := strings.Cut(name, "/")
	if merged[top] {
		name = "usr/" + name
	}
	return name
}

func (t *Tree) put(name string, n treeNode) *Tree {
	name = at(name)
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := t.nodes[dir]; !ok {
			t.nodes[dir] = treeNode{mode: fs.ModeDir | 0o755}
		}
	}
	t.nodes[name] = n
	return t
}

// File puts a file with the given content.
func (t *Tree) File(name string, mode fs.FileMode, data string) *Tree {
	return t.put(name, treeNode{mode: mode, data: []byte(data), size: int64(len(data))})
}

// Dir puts an empty directory.
func (t *Tree) Dir(name string, mode fs.FileMode) *Tree {
	return t.put(name, treeNode{mode: mode | fs.ModeDir})
}

// Symlink puts a symbolic link.
func (t *Tree) Symlink(name, target string) *Tree {
	return t.put(name, treeNode{mode: fs.ModeSymlink | 0o777, link: target})
}

// Copy puts a file or a whole directory of the host. Symbolic links inside a
// directory stay links; one that is named itself is followed.
func (t *Tree) Copy(name, host string) *Tree {
	real, err := filepath.EvalSymlinks(host)
	if err != nil {
		return t.fail("copying %s: %w", host, err)
	}
	err = filepath.WalkDir(real, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(real, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		to := path.Join(name, filepath.ToSlash(rel))
		switch {
		case d.IsDir():
			t.Dir(to, info.Mode().Perm())
		case info.Mode().IsRegular():
			t.put(to, treeNode{mode: info.Mode().Perm(), host: p, size: info.Size()})
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			t.Symlink(to, target)
		}
		return nil
	})
	if err != nil {
		return t.fail("copying %s: %w", host, err)
	}
	return t
}

// Has reports whether something is at a path.
func (t *Tree) Has(name string) bool {
	_, ok := t.nodes[at(name)]
	return ok
}

var epoch = time.Unix(1_700_000_000, 0)

// writeTar writes the tree in order of names, so that equal trees are equal
// bytes.
func (t *Tree) writeTar(w io.Writer) error {
	if t.err != nil {
		return t.err
	}
	tw := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(t.nodes)) {
		n := t.nodes[name]
		h := &tar.Header{Name: name, Mode: int64(n.mode.Perm()), ModTime: epoch, Size: n.size, Typeflag: tar.TypeReg}
		if n.mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		switch {
		case n.mode.IsDir():
			h.Typeflag, h.Name, h.Size = tar.TypeDir, name+"/", 0
		case n.mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname = tar.TypeSymlink, n.link
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("packing %s: %w", name, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := n.copyTo(tw); err != nil {
			return fmt.Errorf("packing %s: %w", name, err)
		}
	}
	return tw.Close()
}

func (n treeNode) copyTo(w io.Writer) error {
	if n.host == "" {
		_, err := w.Write(n.data)
		return err
	}
	f, err := os.Open(n.host)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := io.Copy(w, f)
	if err == nil && got != n.size {
		err = errors.New("the file changed while it was read")
	}
	return err
}
