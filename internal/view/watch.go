package view

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/fault"
)

// Watch calls lifted whenever a program of the host may have lifted a
// protection by replacing the protected object, until ctx ends. The caller
// then asks pid 1 for mounts.Renew. Between the replacement and the renewal
// lies a moment in which the sandbox can write the new object; a note in the
// documentation says so.
func (v *View) Watch(ctx context.Context, lifted func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fault.New(fault.Exhausted, "cannot watch the protected files").
			Hint("sudo sysctl fs.inotify.max_user_instances=1024").Cause(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	names := map[int32]map[string]bool{}
	for _, path := range v.hosts {
		// The protected path and everything above it within reach of its parent.
		dir, name := filepath.Dir(path), filepath.Base(path)
		wd, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR)
		if err != nil {
			return fault.New(fault.Exhausted, "cannot watch %q", dir).
				Hint("sudo sysctl fs.inotify.max_user_watches=524288").Cause(err)
		}
		if names[int32(wd)] == nil {
			names[int32(wd)] = map[string]bool{}
		}
		names[int32(wd)][name] = true
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	buf := make([]byte, 16<<10)
	for {
		n, err := f.Read(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
				return nil
			}
			return fault.New(fault.Internal, "watching the protected files ended").Cause(err)
		}
		if concerns(buf[:n], names) {
			lifted()
		}
	}
}

// concerns reads inotify events: i32 watch, u32 mask, u32 cookie, u32 length
// of the name, which is padded with zeros.
func concerns(b []byte, names map[int32]map[string]bool) bool {
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		size := int(binary.NativeEndian.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			return true
		}
		if size > len(b) {
			return true
		}
		name, _, _ := strings.Cut(string(b[:size]), "\x00")
		b = b[size:]
		if names[wd][name] {
			return true
		}
	}
	return false
}
