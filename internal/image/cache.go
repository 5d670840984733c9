package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// Cache is a directory of unpacked images. Several processes may use one at
// the same time.
//
//	images/ID/rootfs       the files, published by one rename and never changed
//	images/ID/image.json   what is known of them
//	refs/HASH.json         reference -> ID, as last pulled
//	holds/ID/HASH          path of a sandbox directory that needs the image
//	locks/ID.{pull,use}    empty; the lock is the kernel's
//	tmp/NAME/, NAME.lock   work in progress; swept when its lock is free
type Cache struct {
	dir    string
	limits Limits
	log    *slog.Logger
}

// CacheOptions configure a cache; the zero value is usable.
type CacheOptions struct {
	Limits Limits
	Log    *slog.Logger // nil: discarded
}

// DefaultDir is where the cache is unless configured: below XDG_CACHE_HOME,
// or ~/.cache.
func DefaultDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fault.New(fault.FailedPrecondition, "there is no place for the image cache: neither XDG_CACHE_HOME nor HOME is set").Cause(err)
	}
	return filepath.Join(base, brand.ConfigDir, "images"), nil
}

// Open opens or makes a cache and removes what a crash left in it. An empty
// dir means DefaultDir.
func Open(dir string, o CacheOptions) (*Cache, error) {
	if dir == "" {
		d, err := DefaultDir()
		if err != nil {
			return nil, err
		}
		dir = d
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{dir: dir, limits: o.Limits.withDefaults(), log: o.Log}
	for _, sub := range []string{"", "images", "refs", "holds", "locks", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, c.diskFault(err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, c.diskFault(err)
	}
	// Another account that owns or can write the cache could put files into a
	// sandbox, or have us write where it points.
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != os.Geteuid() {
		return nil, fault.New(fault.PermissionDenied, "the image cache %q belongs to another account", dir).
			Hint("XDG_CACHE_HOME=$(mktemp -d) %s ...", brand.CLI)
	}
	if info.Mode()&0o022 != 0 {
		return nil, fault.New(fault.PermissionDenied, "the image cache %q can be written by others", dir).
			Hint("chmod go-w %s", dir)
	}
	if n := c.sweep(); n > 0 {
		c.log.Info("unfinished images removed", "count", n)
	}
	return c, nil
}

// Dir returns the cache's directory.
func (c *Cache) Dir() string { return c.dir }

func (c *Cache) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

// fileID is an image id as a file name.
func fileID(id string) string { return strings.Replace(id, ":", "-", 1) }

// leaseWait is how long a removal or a look may hold an image's lock.
const leaseWait = 10 * time.Second

// isID reports whether a string is a digest, and so safe as a file name.
func isID(s string) bool {
	_, err := v1.NewHash(s)
	return err == nil
}

// load returns a published image with a lease on it, or nil if it is not
// there.
func (c *Cache) load(id string) (*Image, error) {
	if !isID(id) {
		return nil, fault.New(fault.InvalidArgument, "%q is not an image id", id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaseWait)
	defer cancel()
	lease, err := waitLock(ctx, c.path("locks", fileID(id)+".use"), true, nil)
	if err != nil {
		return nil, c.diskFault(err)
	}
	img, err := c.read(id)
	if err != nil || img == nil {
		lease.unlock()
		return nil, err
	}
	if !c.intact(img) {
		lease.unlock()
		return nil, c.dropDamaged(id)
	}
	img.lease = lease
	return img, nil
}

// read returns a published image without a lease.
func (c *Cache) read(id string) (*Image, error) {
	dir := c.path("images", fileID(id))
	data, err := os.ReadFile(filepath.Join(dir, "image.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, c.diskFault(err)
	}
	img := &Image{}
	if err := json.Unmarshal(data, img); err != nil || img.ID != id {
		return nil, fault.New(fault.Internal, "the cached image %s is damaged", id).
			Hint("rm -rf %s", dir).Cause(err)
	}
	img.locate(filepath.Join(dir, "rootfs"))
	return img, nil
}

type refRecord struct {
	Reference string    `json:"reference"`
	Platform  string    `json:"platform"`
	ID        string    `json:"id"`
	Manifest  string    `json:"manifest"`
	Pulled    time.Time `json:"pulled"`
}

func (c *Cache) refPath(reference, platform string) string {
	sum := sha256.Sum256([]byte(reference + "\x00" + platform))
	return c.path("refs", fmt.Sprintf("%x.json", sum[:16]))
}

func (c *Cache) lookup(reference, platform string) (refRecord, bool) {
	r, ok := readRef(c.refPath(reference, platform))
	return r, ok && r.Reference == reference && r.Platform == platform
}

func readRef(file string) (refRecord, bool) {
	var r refRecord
	data, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(data, &r) != nil {
		return refRecord{}, false
	}
	return r, true
}

func (c *Cache) remember(r refRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return c.writeFile(c.refPath(r.Reference, r.Platform), data)
}

// writeFile replaces a file by rename.
func (c *Cache) writeFile(name string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return c.diskFault(err)
	}
	_, err = tmp.Write(data)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return c.diskFault(err)
	}
	return nil
}

// workplace is a directory for work in progress.
type workplace struct {
	dir  string
	lock *lock
}

func (c *Cache) newWorkplace() (*workplace, error) {
	// The name is reserved by its lock file, so that a sweep never sees a
	// directory whose owner has not locked it yet.
	for n := 0; ; n++ {
		base := c.path("tmp", fmt.Sprintf("%d-%d-%d", os.Getpid(), time.Now().UnixNano(), n))
		l, err := tryLock(base+".lock", false)
		if errors.Is(err, errBusy) && n < 100 {
			continue
		}
		if err != nil {
			return nil, c.diskFault(err)
		}
		if err := os.Mkdir(base, 0o700); err != nil {
			l.unlock()
			return nil, c.diskFault(err)
		}
		return &workplace{base, l}, nil
	}
}

// discard removes the workplace and what is left in it.
func (w *workplace) discard() error {
	err := removeTree(w.dir)
	if rerr := os.Remove(w.dir + ".lock"); err == nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = rerr
	}
	w.lock.unlock()
	return err
}

// sweep removes work in progress whose owner is gone, and returns how much.
func (c *Cache) sweep() int {
	entries, err := os.ReadDir(c.path("tmp"))
	if err != nil {
		return 0
	}
	n := 0
	seen := map[string]bool{}
	for _, e := range entries {
		base := strings.TrimSuffix(e.Name(), ".lock")
		if seen[base] {
			continue
		}
		seen[base] = true
		l, err := tryLock(c.path("tmp", base+".lock"), false)
		if err != nil {
			continue // its owner lives
		}
		w := &workplace{c.path("tmp", base), l}
		if w.discard() == nil {
			n++
		}
	}
	return n
}

// diskFault gives trouble with the cache's disk a public face.
func (c *Cache) diskFault(err error) error {
	if err == nil {
		return nil
	}
	if f, ok := faultOf(err); ok {
		return f
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.New(fault.Exhausted, "no space left for images in %q", c.dir).
			Hint("df -h %s; free some space, or point XDG_CACHE_HOME to another disk", c.dir).
			Because("DISK_FULL").Cause(err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fault.New(fault.PermissionDenied, "the image cache %q cannot be written", c.dir).
			Hint("XDG_CACHE_HOME=$(mktemp -d) %s ...", brand.CLI).Cause(err)
	}
	return err
}

func faultOf(err error) (*fault.Error, bool) { return errors.AsType[*fault.Error](err) }
