package image

import (
	"path"
	"strings"

	"openshell.dev/openshell/internal/brand"
)

// kind is what a place in the tree holds.
type kind uint8

const (
	kindDir kind = iota + 1
	kindFile
	kindLink
)

// node is one place in the image's file system as far as it is unpacked.
type node struct {
	kind   kind
	layer  int32  // the last layer that put this, or something below it
	opaque int32  // directories: the last layer that hid what was below
	perm   uint32 // directories: mode to set at the end
	mtime  int64  // directories: seconds to set at the end, 0 if not known
	target string // symbolic links
	kids   map[string]*node
}

// tree is the image's file system in memory. Symbolic links in a path are
// resolved here, inside the image's own root, so that what is handed to the
// disk is a path of real directories only. The disk then refuses to follow
// any link on its own: two walls, of which either would do.
type tree struct {
	root   *node
	layer  int32 // 1 is the lowest
	steps  int   // of path resolution, over all entries
	limits Limits
	disk   disk
}

// disk is where the tree's decisions are carried out. Paths are relative,
// clean, and have only real directories before the last component.
type disk interface {
	mkdir(name string) error
	symlink(target, name string) error
	link(old, name string) error
	remove(name string) error // a file or a symbolic link
	removeAll(name string) error
}

func newTree(d disk, l Limits) *tree {
	return &tree{root: &node{kind: kindDir, perm: 0o755, kids: map[string]*node{}}, limits: l, disk: d}
}

const (
	maxLinks = 40         // as the kernel
	maxSteps = 64_000_000 // a million entries at an honest depth, not links within links
)

// split turns an archive name into components. A leading slash means the
// image's root; ".." is refused, because no builder writes it.
func (t *tree) split(name string) ([]string, error) {
	if len(name) > t.limits.PathLen {
		return nil, malformed("a path is longer than %d bytes", t.limits.PathLen)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return nil, malformed("a path contains a zero byte")
	}
	var parts []string
	for p := range strings.SplitSeq(name, "/") {
		switch {
		case p == "" || p == ".":
		case p == "..":
			return nil, malformed("the path %.80q leaves the image", name)
		case len(p) > componentMax:
			return nil, malformed("a name is longer than %d bytes", componentMax)
		default:
			parts = append(parts, p)
		}
	}
	if len(parts) > t.limits.Depth {
		return nil, malformed("a path is deeper than %d directories", t.limits.Depth)
	}
	if len(parts) > 0 && "/"+parts[0] == brand.ReservedRoot {
		return nil, malformed("it uses the reserved directory %s", brand.ReservedRoot)
	}
	return parts, nil
}

// place is a canonical position: a real directory and a name in it.
type place struct {
	dir  *node
	path string // of dir, "" for the root
	name string
}

func (p place) full() string { return path.Join(p.path, p.name) }
func (p place) get() *node   { return p.dir.kids[p.name] }

// walk follows parts from the root to a directory. Links are followed inside
// the image. With create, what is missing is made; without, a missing part
// gives a nil node and no error.
func (t *tree) walk(parts []string, create bool) (*node, string, error) {
	type level struct {
		n    *node
		name string
	}
	stack := []level{{n: t.root}}
	todo := append([]string(nil), parts...)
	links := 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		cur := stack[len(stack)-1].n
		if t.steps++; t.steps > maxSteps {
			return nil, "", malformed("its paths take too long to follow")
		}
		switch part {
		case "", ".":
			continue
		case "..": // from a link only; the root is its own parent
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		next := cur.kids[part]
		if next == nil {
			if !create {
				return nil, "", nil
			}
			if len(part) > componentMax {
				return nil, "", malformed("a name is longer than %d bytes", componentMax)
			}
			if len(stack) == 1 && "/"+part == brand.ReservedRoot {
				return nil, "", malformed("it uses the reserved directory %s", brand.ReservedRoot)
			}
			names := make([]string, 0, len(stack))
			for _, l := range stack[1:] {
				names = append(names, l.name)
			}
			made, err := t.mkdir(place{dir: cur, path: strings.Join(names, "/"), name: part})
			if err != nil {
				return nil, "", err
			}
			next = made
		}
		switch next.kind {
		case kindDir:
			if len(stack) > t.limits.Depth {
				return nil, "", malformed("a path is deeper than %d directories", t.limits.Depth)
			}
			if create {
				next.layer = t.layer
			}
			stack = append(stack, level{next, part})
		case kindLink:
			if links++; links > maxLinks {
				if !create {
					return nil, "", nil
				}
				return nil, "", malformed("too many symbolic links in %.80q", path.Join(parts...))
			}
			if strings.HasPrefix(next.target, "/") {
				stack = stack[:1]
			}
			todo = append(strings.Split(next.target, "/"), todo...)
			if len(todo) > 4096 {
				return nil, "", malformed("too many symbolic links in %.80q", path.Join(parts...))
			}
		default:
			if !create {
				return nil, "", nil
			}
			return nil, "", malformed("%.80q lies below a file", path.Join(parts...))
		}
	}
	names := make([]string, 0, len(stack))
	for _, l := range stack[1:] {
		names = append(names, l.name)
	}
	full := strings.Join(names, "/")
	if len(full) > t.limits.PathLen {
		return nil, "", malformed("a path is longer than %d bytes", t.limits.PathLen)
	}
	return stack[len(stack)-1].n, full, nil
}

// parent returns the place that an entry name stands for.
func (t *tree) parent(parts []string, create bool) (place, error) {
	dir, full, err := t.walk(parts[:len(parts)-1], create)
	if err != nil || dir == nil {
		return place{}, err
	}
	at := place{dir, full, parts[len(parts)-1]}
	if len(full)+1+len(at.name) > t.limits.PathLen {
		return place{}, malformed("a path is longer than %d bytes", t.limits.PathLen)
	}
	if full == "" && "/"+at.name == brand.ReservedRoot {
		return place{}, malformed("it uses the reserved directory %s", brand.ReservedRoot)
	}
	return at, nil
}

func (t *tree) mkdir(at place) (*node, error) {
	if err := t.disk.mkdir(at.full()); err != nil {
		return nil, err
	}
	n := &node{kind: kindDir, layer: t.layer, perm: 0o755, kids: map[string]*node{}}
	at.dir.kids[at.name] = n
	return n, nil
}

// clear removes whatever is at a place.
func (t *tree) clear(at place) error {
	n := at.get()
	if n == nil {
		return nil
	}
	delete(at.dir.kids, at.name)
	if n.kind == kindDir {
		return t.disk.removeAll(at.full())
	}
	return t.disk.remove(at.full())
}

// whiteout removes what lower layers put at a place and keeps what this
// layer put there: a whiteout speaks of lower layers, wherever it stands in
// the archive.
func (t *tree) whiteout(at place) error {
	n := at.get()
	switch {
	case n == nil:
		return nil
	case n.layer != t.layer:
		return t.clear(at)
	case n.kind == kindDir:
		return t.opaque(n, at.full())
	}
	return nil
}

// opaque removes the content of a directory as far as it is of lower layers.
func (t *tree) opaque(dir *node, full string) error {
	if dir.opaque == t.layer {
		return nil // done; lower layers do not come back
	}
	dir.opaque = t.layer
	for name := range dir.kids {
		if err := t.whiteout(place{dir, full, name}); err != nil {
			return err
		}
	}
	return nil
}

// dirs calls f for every directory, children before their parents.
func (t *tree) dirs(f func(name string, n *node) error) error {
	var visit func(n *node, full string) error
	visit = func(n *node, full string) error {
		for name, kid := range n.kids {
			if kid.kind == kindDir {
				if err := visit(kid, path.Join(full, name)); err != nil {
					return err
				}
			}
		}
		return f(full, n)
	}
	return visit(t.root, "")
}
