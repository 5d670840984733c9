package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"openshell.dev/openshell/internal/fault"
)

// Listed is one image of the cache.
type Listed struct {
	Image
	References []string // that were last pulled as this image
	Holders    []string // sandbox directories that need it
	Leased     bool     // a process uses it now
}

// Hold notes that a sandbox directory needs the image for as long as the
// directory exists. The sandbox's owner calls it before it relies on the
// image beyond this process. Images without an id need no hold.
func (c *Cache) Hold(id, sandboxDir string) error {
	if id == "" {
		return nil
	}
	if !isID(id) {
		return fault.New(fault.InvalidArgument, "%q is not an image id", id)
	}
	dir, err := filepath.Abs(sandboxDir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.path("holds", fileID(id)), 0o700); err != nil {
		return c.diskFault(err)
	}
	return c.writeFile(c.holdPath(id, dir), []byte(dir))
}

// Unhold takes a hold back. Removing the sandbox directory does the same.
func (c *Cache) Unhold(id, sandboxDir string) error {
	dir, err := filepath.Abs(sandboxDir)
	if err != nil || !isID(id) {
		return err
	}
	err = os.Remove(c.holdPath(id, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (c *Cache) holdPath(id, dir string) string {
	return c.path("holds", fileID(id), fmt.Sprintf("%x", sha256.Sum256([]byte(dir)))[:32])
}

// holders returns the sandbox directories that need an image, and forgets
// those that are gone.
func (c *Cache) holders(id string) []string {
	dir := c.path("holds", fileID(id))
	entries, _ := os.ReadDir(dir)
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		name := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if _, err := os.Lstat(string(data)); errors.Is(err, fs.ErrNotExist) {
			os.Remove(name)
			continue
		}
		out = append(out, string(data))
	}
	return out
}

// Get returns one image with a lease, by id.
func (c *Cache) Get(id string) (*Image, error) {
	img, err := c.load(id)
	if err == nil && img == nil {
		err = fault.New(fault.NotFound, "there is no image %s here", id)
	}
	return img, err
}

// List returns the images of the cache, newest first.
func (c *Cache) List() ([]Listed, error) {
	entries, err := os.ReadDir(c.path("images"))
	if err != nil {
		return nil, c.diskFault(err)
	}
	refs := c.references()
	var out []Listed
	for _, e := range entries {
		id := strings.Replace(e.Name(), "-", ":", 1)
		img, err := c.read(id)
		if err != nil || img == nil {
			continue // damaged, or just removed
		}
		l := Listed{Image: *img, References: refs[id], Holders: c.holders(id)}
		if free, err := tryLock(c.path("locks", fileID(id)+".use"), false); err == nil {
			free.unlock()
		} else {
			l.Leased = true
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Listed) int { return b.Created.Compare(a.Created) })
	return out, nil
}

func (c *Cache) references() map[string][]string {
	out := map[string][]string{}
	files, _ := filepath.Glob(c.path("refs", "*.json"))
	for _, f := range files {
		if r, ok := readRef(f); ok {
			out[r.ID] = append(out[r.ID], r.Reference)
		}
	}
	return out
}

// Remove takes an image out of the cache. An image that a sandbox needs, or
// that a process uses, is a FailedPrecondition fault.
func (c *Cache) Remove(id string) error {
	if !isID(id) {
		return fault.New(fault.InvalidArgument, "%q is not an image id", id)
	}
	if h := c.holders(id); len(h) > 0 {
		return fault.New(fault.FailedPrecondition, "the image %s is used by the sandbox in %q", id, h[0])
	}
	use, err := tryLock(c.path("locks", fileID(id)+".use"), false)
	if errors.Is(err, errBusy) {
		return fault.New(fault.FailedPrecondition, "the image %s is in use", id)
	}
	if err != nil {
		return c.diskFault(err)
	}
	defer use.unlock()
	if h := c.holders(id); len(h) > 0 { // since we looked
		return fault.New(fault.FailedPrecondition, "the image %s is used by the sandbox in %q", id, h[0])
	}
	if err := c.evict(id); err != nil {
		return err
	}
	files, _ := filepath.Glob(c.path("refs", "*.json"))
	for _, f := range files {
		if r, ok := readRef(f); ok && r.ID == id {
			os.Remove(f)
		}
	}
	if err := removeTree(c.path("holds", fileID(id))); err != nil {
		c.log.Warn("holds of a removed image are left", "err", err)
	}
	return nil
}

// evict removes the files of an image. The caller holds its use lock.
func (c *Cache) evict(id string) error {
	w, err := c.newWorkplace()
	if err != nil {
		return err
	}
	// Gone in one step; the slow part happens out of sight.
	err = os.Rename(c.path("images", fileID(id)), filepath.Join(w.dir, "image"))
	if derr := w.discard(); derr != nil {
		c.log.Warn("a removed image is not gone from the disk yet", "err", derr)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "there is no image %s here", id)
	}
	return c.diskFault(err)
}

// PruneOptions say what Prune keeps.
type PruneOptions struct {
	// OlderThan keeps images that were unpacked more recently.
	OlderThan time.Duration
	// Keep is asked for each image that nothing holds; nil keeps none.
	Keep func(Listed) bool
	Now  func() time.Time // nil: time.Now
}

// Pruned is what Prune did.
type Pruned struct {
	Removed []string
	Bytes   int64
	Kept    int
}

// Prune removes the images that no sandbox needs and no process uses, and
// work that a crash left.
func (c *Cache) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	c.sweep()
	var out Pruned
	images, err := c.List()
	if err != nil {
		return out, err
	}
	for _, l := range images {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if len(l.Holders) > 0 || l.Leased || o.Now().Sub(l.Created) < o.OlderThan || o.Keep != nil && o.Keep(l) {
			out.Kept++
			continue
		}
		switch err := c.Remove(l.ID); fault.KindOf(err) {
		case fault.FailedPrecondition:
			out.Kept++ // somebody was faster
		case fault.NotFound:
		default:
			if err != nil {
				return out, err
			}
			out.Removed = append(out.Removed, l.ID)
			out.Bytes += l.Bytes
		}
	}
	return out, nil
}
