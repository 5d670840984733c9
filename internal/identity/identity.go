// Package identity pins what a program is to what its path says it is.
//
// The first content seen under a path inside a sandbox is remembered by its
// SHA-256; other content under the same path later is refused, so that
// replacing an allowed program does not inherit its permissions. Content is
// read from a descriptor by the outside half and hashed once per version of a
// file (device, inode, size, times). It decides nothing about permissions and
// never opens a path itself. A Pins belongs to one sandbox and is safe for use
// by many goroutines.
package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"
)

// Digest is the SHA-256 of an executable.
type Digest [sha256.Size]byte

// String returns the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Version names one version of one file, as stat(2) sees it. A content change
// changes at least the change time, which no unprivileged process can set.
type Version struct {
	Dev, Ino     uint64
	Size         int64
	Mtime, Ctime int64 // nanoseconds
}

// ErrReplaced says that a path holds other content than at its first use.
var ErrReplaced = errors.New("the executable was replaced after its first use")

// ErrChanging says that a file changed while it was read.
var ErrChanging = errors.New("the executable changed while it was read")

const (
	maxFile  = 4 << 30 // a larger executable is refused, not hashed
	maxPaths = 65536   // pinned paths of one sandbox
	maxCache = 4096    // digests by version; forgotten together when full
)

// Pins holds the pinned executables of one sandbox.
type Pins struct {
	group singleflight.Group

	mu      sync.Mutex
	byPath  map[string]Digest  // first content seen under each path
	digests map[Version]Digest // content by file version
}

// NewPins returns an empty set.
func NewPins() *Pins {
	return &Pins{byPath: map[string]Digest{}, digests: map[Version]Digest{}}
}

// Check pins path at its first use and compares at each later one. v is the
// version the caller found; open gives a descriptor of exactly that file and
// is called only if the version was not hashed before. The descriptor is
// closed here. Errors: ErrReplaced, ErrChanging, or why it could not be read.
func (p *Pins) Check(path string, v Version, open func() (*os.File, error)) (Digest, error) {
	if path == "" {
		return Digest{}, errors.New("an executable without a path")
	}
	d, ok := p.cached(v)
	if !ok {
		var err error
		if d, err = p.hash(path, v, open); err != nil {
			return Digest{}, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	first, known := p.byPath[path]
	switch {
	case known && first != d:
		return d, fmt.Errorf("%s: %w", path, ErrReplaced)
	case known:
		return d, nil
	case len(p.byPath) >= maxPaths:
		return d, fmt.Errorf("more than %d different executables in one sandbox", maxPaths)
	}
	p.byPath[path] = d
	return d, nil
}

func (p *Pins) cached(v Version) (Digest, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.digests[v]
	return d, ok
}

func (p *Pins) hash(path string, v Version, open func() (*os.File, error)) (Digest, error) {
	key := fmt.Sprintf("%+v", v)
	got, err, _ := p.group.Do(key, func() (any, error) {
		f, err := open()
		if err != nil {
			return Digest{}, fmt.Errorf("open executable %s: %w", path, err)
		}
		defer f.Close()
		return digest(path, f, v)
	})
	if err != nil {
		return Digest{}, err
	}
	d := got.(Digest)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.digests) >= maxCache {
		clear(p.digests) // pins stay; only the saving of a second hash is lost
	}
	p.digests[v] = d
	return d, nil
}

func digest(path string, f *os.File, v Version) (Digest, error) {
	if now, err := Stat(f); err != nil {
		return Digest{}, err
	} else if now != v {
		return Digest{}, fmt.Errorf("%s: %w", path, ErrChanging)
	}
	if v.Size > maxFile {
		return Digest{}, fmt.Errorf("executable %s has %d bytes, too large to identify", path, v.Size)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, v.Size)); err != nil {
		return Digest{}, fmt.Errorf("read executable %s: %w", path, err)
	}
	if now, err := Stat(f); err != nil {
		return Digest{}, err
	} else if now != v {
		return Digest{}, fmt.Errorf("%s: %w", path, ErrChanging)
	}
	return Digest(h.Sum(nil)), nil
}

// Stat returns the version of an open regular file. Anything else is an error.
func Stat(f *os.File) (Version, error) {
	var st unix.Stat_t
	raw, err := f.SyscallConn()
	if err != nil {
		return Version{}, fmt.Errorf("identify executable: %w", err)
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.Fstat(int(fd), &st) }); err != nil {
		return Version{}, fmt.Errorf("identify executable: %w", err)
	}
	if serr != nil {
		return Version{}, fmt.Errorf("identify executable: %w", serr)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Version{}, errors.New("an executable that is not a regular file")
	}
	return Version{Dev: st.Dev, Ino: st.Ino, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}, nil
}
