package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"openshell.dev/openshell/internal/fault"
)

// Survey is what the files of an unpacked image amount to. An image is not
// forced to the disk when it is published: on a busy machine that waits for
// everybody's data. A power cut soon after may then leave files empty or
// missing. So the first use after a restart counts again, once.
type Survey struct {
	Files int    `json:"files"` // of every kind
	Bytes int64  `json:"bytes"` // of regular files
	Boot  string `json:"boot"`  // the boot in which this was last found true
}

var bootID = sync.OnceValue(func() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // then every process is a boot of its own: slower, not weaker
	}
	return strings.TrimSpace(string(data))
})

// surveyOf counts a tree.
func surveyOf(dir string) (Survey, error) {
	s := Survey{Boot: bootID()}
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		s.Files++
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		s.Bytes += info.Size()
		return nil
	})
	return s, err
}

// intact reports whether an image is what was published.
func (c *Cache) intact(img *Image) bool {
	if img.Survey.Boot == bootID() && img.Survey.Boot != "" {
		return true
	}
	now, err := surveyOf(img.RootfsDir)
	if err != nil || now.Files != img.Survey.Files || now.Bytes != img.Survey.Bytes {
		return false
	}
	img.Survey = now
	if data, err := img.marshal(); err == nil {
		if err := c.writeFile(filepath.Join(filepath.Dir(img.RootfsDir), "image.json"), data); err != nil {
			c.log.Debug("survey not noted", "err", err)
		}
	}
	return true
}

// dropDamaged removes an image that is not what was published, so that the
// next pull makes it again. Its references and holds stay.
func (c *Cache) dropDamaged(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), leaseWait)
	defer cancel()
	use, err := waitLock(ctx, c.path("locks", fileID(id)+".use"), false, nil)
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Unavailable, "the image %s is damaged and in use", id).
			Hint("stop the sandboxes that use it and try again")
	}
	if err != nil {
		return c.diskFault(err)
	}
	defer use.unlock()
	if img, err := c.read(id); err == nil && img != nil && c.intact(img) {
		return nil // somebody else made it again
	}
	c.log.Warn("an image that a power cut damaged was removed", "image", id)
	if err := c.evict(id); err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	return nil
}
