// Package trim gives memory back that an idle process does not need.
//
// A Go program that waits holds its whole binary (the kernel maps around every
// fault) and the peak of its heap. Once gives both back: clean pages of
// read-only file mappings, which are read again from the page cache when
// needed, and free heap. It changes no behaviour and reports no error, because
// nothing depends on it. Any long-lived program of ours may call it.
package trim

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Once trims the calling process now.
func Once() {
	debug.FreeOSMemory()
	Files()
}

// Files gives back only the clean pages of the program's own file, which every
// short wake-up maps again: cheap enough to follow each.
func Files() {
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, m := range clean(string(text)) {
		// Private, read-only, backed by a file and without a page of its own:
		// DONTNEED loses nothing.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.size, unix.MADV_DONTNEED)
	}
}

type mapping struct{ from, size uintptr }

// clean returns the mappings of /proc/self/smaps that can be dropped. A dynamic
// loader leaves read-only mappings with pages of its own (relocations): those
// stay. Dirty says nothing: a file that was just written is dirty too.
func clean(smaps string) []mapping {
	var out []mapping
	var at mapping
	candidate := false
	for line := range strings.Lines(smaps) {
		if from, size, ok := cleanFileMapping(line); ok {
			at, candidate = mapping{from, size}, true
			continue
		}
		key, value, found := strings.Cut(line, ":")
		if !found || strings.Contains(key, " ") {
			candidate = false // the head of a mapping that stays
			continue
		}
		if key == "Anonymous" && candidate {
			if strings.TrimSpace(value) == "0 kB" {
				out = append(out, at)
			}
			candidate = false
		}
	}
	return out
}

// cleanFileMapping reads a line of /proc/self/maps (proc_pid_maps(5)):
//
//	address           perms offset  dev   inode   pathname
//	00400000-00452000 r-xp 00000000 08:02 173521  /usr/bin/dbus-daemon
func cleanFileMapping(line string) (from, size uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || !strings.HasPrefix(f[5], "/") || (f[1] != "r-xp" && f[1] != "r--p") {
		return 0, 0, false
	}
	lo, hi, found := strings.Cut(f[0], "-")
	a, err1 := strconv.ParseUint(lo, 16, 64)
	b, err2 := strconv.ParseUint(hi, 16, 64)
	if !found || err1 != nil || err2 != nil || b <= a {
		return 0, 0, false
	}
	return uintptr(a), uintptr(b - a), true
}
