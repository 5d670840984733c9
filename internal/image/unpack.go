package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"openshell.dev/openshell/internal/fault"
)

const nonblock = syscall.O_NONBLOCK

// Markers of the layer format (OCI image specification, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // other AUFS bookkeeping: ignored
)

// unpacker applies layers, lowest first, to one directory.
type unpacker struct {
	tree    *tree
	disk    *rootDisk
	meter   *meter
	dropped Dropped
	buf     []byte
}

func newUnpacker(root *os.Root, l Limits) *unpacker {
	d := &rootDisk{root: root}
	return &unpacker{tree: newTree(d, l), disk: d, meter: &meter{limits: l}, buf: make([]byte, 256<<10)}
}

// layer applies one uncompressed archive and reads it to its end. An entry
// that names a place outside the image is an error. Special files are left
// out and counted.
func (u *unpacker) layer(ctx context.Context, r io.Reader) error {
	u.tree.layer++
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return archiveError(err)
		}
		if err := u.meter.entry(); err != nil {
			return err
		}
		if err := u.entry(ctx, hdr, tr); err != nil {
			return err
		}
	}
	// What follows the end of the archive still belongs to the digest.
	_, err := io.CopyBuffer(io.Discard, ctxReader{ctx, r}, u.buf)
	return archiveError(err)
}

func archiveError(err error) error {
	var f *fault.Error
	if err == nil || errors.As(err, &f) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
		return malformed("a layer is not a complete tar archive (%v)", err)
	}
	return fmt.Errorf("reading a layer: %w", err)
}

func (u *unpacker) entry(ctx context.Context, hdr *tar.Header, body io.Reader) error {
	parts, err := u.tree.split(hdr.Name)
	if err != nil {
		return err
	}
	u.count(hdr)
	if len(parts) == 0 {
		return u.rootEntry(hdr)
	}
	base := parts[len(parts)-1]
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(parts, base)
	}
	switch hdr.Typeflag {
	case tar.TypeDir, tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont, tar.TypeSymlink, tar.TypeLink:
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		u.dropped.Devices++
		return nil // a 0/0 device would even read as a whiteout to the overlay
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return malformed("%.80q is of unknown kind %q", hdr.Name, string(hdr.Typeflag))
	}
	at, err := u.tree.parent(parts, true)
	if err != nil {
		return u.wrap(hdr, err)
	}
	return u.wrap(hdr, u.put(ctx, hdr, at, body))
}

func (u *unpacker) put(ctx context.Context, hdr *tar.Header, at place, body io.Reader) error {
	old := at.get()
	switch hdr.Typeflag {
	case tar.TypeDir:
		if old == nil || old.kind != kindDir {
			if err := u.tree.clear(at); err != nil {
				return err
			}
			made, err := u.tree.mkdir(at)
			if err != nil {
				return err
			}
			old = made
		}
		old.layer, old.perm, old.mtime = u.tree.layer, uint32(hdr.Mode)&0o1777, unixTime(hdr)
		return nil
	case tar.TypeSymlink:
		if hdr.Linkname == "" || len(hdr.Linkname) > u.tree.limits.PathLen || strings.IndexByte(hdr.Linkname, 0) >= 0 {
			return malformed("%.80q is a symbolic link to nowhere", hdr.Name)
		}
		if err := u.tree.clear(at); err != nil {
			return err
		}
		if err := u.disk.symlink(hdr.Linkname, at.full()); err != nil {
			return err
		}
		at.dir.kids[at.name] = &node{kind: kindLink, layer: u.tree.layer, target: hdr.Linkname}
		return nil
	case tar.TypeLink:
		return u.hardlink(hdr, at)
	}
	if hdr.Size < 0 {
		return malformed("%.80q has a negative size", hdr.Name)
	}
	if err := u.tree.clear(at); err != nil {
		return err
	}
	// Even where the image says otherwise the owner can read it: in a user
	// namespace with one id nobody else is there to.
	perm := os.FileMode(hdr.Mode)&0o777 | 0o400
	n, err := u.disk.create(at.full(), perm, unixTime(hdr), u.budget(ctx, body), u.buf)
	if err != nil {
		return err
	}
	if n != hdr.Size {
		return malformed("%.80q is cut short", hdr.Name)
	}
	at.dir.kids[at.name] = &node{kind: kindFile, layer: u.tree.layer}
	return nil
}

// hardlink gives a second name to a file of the image. The last component of
// the old name is not followed, as link(2) does not.
func (u *unpacker) hardlink(hdr *tar.Header, at place) error {
	parts, err := u.tree.split(hdr.Linkname)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return malformed("%.80q is a hard link to the root", hdr.Name)
	}
	from, err := u.tree.parent(parts, false)
	if err != nil {
		return err
	}
	if from.dir == nil || from.get() == nil {
		return malformed("%.80q is a hard link to %.80q, which is not there", hdr.Name, hdr.Linkname)
	}
	target := from.get()
	if target.kind == kindDir {
		return malformed("%.80q is a hard link to a directory", hdr.Name)
	}
	if from.full() == at.full() {
		target.layer = u.tree.layer
		return nil
	}
	if old := at.get(); old != nil && old.kind == kindDir && strings.HasPrefix(from.full(), at.full()+"/") {
		return malformed("%.80q would replace the directory of what it links to", hdr.Name)
	}
	if err := u.tree.clear(at); err != nil {
		return err
	}
	if err := u.disk.link(from.full(), at.full()); err != nil {
		return err
	}
	at.dir.kids[at.name] = &node{kind: target.kind, layer: u.tree.layer, target: target.target}
	return nil
}

func (u *unpacker) whiteout(parts []string, base string) error {
	opaque := base == whiteoutOpaque
	if !opaque && strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if !opaque && (name == "" || name == "." || name == "..") {
		return malformed("the whiteout %.80q names no file", base)
	}
	dir, full, err := u.tree.walk(parts[:len(parts)-1], false)
	if err != nil || dir == nil {
		return err
	}
	if opaque {
		return u.tree.opaque(dir, full)
	}
	return u.tree.whiteout(place{dir, full, name})
}

func (u *unpacker) rootEntry(hdr *tar.Header) error {
	if hdr.Typeflag == tar.TypeDir {
		u.tree.root.perm, u.tree.root.mtime = uint32(hdr.Mode)&0o1777, unixTime(hdr)
		return nil
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	return malformed("the entry %.80q would replace the root", hdr.Name)
}

// count notes what an entry carries and we do not keep.
func (u *unpacker) count(hdr *tar.Header) {
	if hdr.Mode&0o6000 != 0 {
		u.dropped.SetID++
	}
	if hdr.Uid != 0 || hdr.Gid != 0 {
		u.dropped.Owners++
	}
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "SCHILY.xattr.") || strings.HasPrefix(key, "LIBARCHIVE.xattr.") {
			u.dropped.Xattrs++
			break
		}
	}
}

// finish sets the directories' modes and times, which must wait until nothing
// is written below them any more.
func (u *unpacker) finish() error {
	return u.tree.dirs(func(name string, n *node) error {
		return u.disk.chdir(name, os.FileMode(n.perm&0o777)|0o700, n.perm&0o1000 != 0, n.mtime)
	})
}

func (u *unpacker) wrap(hdr *tar.Header, err error) error {
	var f *fault.Error
	if err == nil || errors.As(err, &f) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("unpacking %.120q: %w", hdr.Name, err)
}

// budget counts what is really written, which a sparse entry makes larger
// than what it carries.
func (u *unpacker) budget(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.Read(p)
		u.meter.written += int64(n)
		u.meter.total += int64(n)
		if over := u.meter.check(); over != nil {
			return 0, over
		}
		return n, archiveErrorUnlessEOF(err)
	})
}

func archiveErrorUnlessEOF(err error) error {
	if err == io.EOF {
		return err
	}
	return archiveError(err)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// ctxReader ends a long copy when the caller leaves.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// unixTime returns the entry's time in seconds, 0 where it is not one that
// every file system can hold.
func unixTime(hdr *tar.Header) int64 {
	if s := hdr.ModTime.Unix(); s > 0 && s < 1<<33 {
		return s
	}
	return 0
}
