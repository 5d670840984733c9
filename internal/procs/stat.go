package procs

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

var errMalformed = errors.New("malformed /proc file")

// stat is what is used of /proc/PID/stat.
type stat struct {
	pid, ppid int
	state     byte
	comm      string
	threads   int
	start     uint64
}

// Positions of fields behind the name, as proc(5) numbers them, less three.
const (
	fieldPPID    = 4 - 3
	fieldThreads = 20 - 3
	fieldStart   = 22 - 3
)

// parseStat reads the line "PID (NAME) STATE PPID ...". The name may hold
// anything, closing brackets and line ends too; the fields behind it hold
// only numbers, so the last bracket ends it.
func parseStat(b []byte) (stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || b[open-1] != ' ' || end < open {
		return stat{}, errMalformed
	}
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) <= fieldStart || len(fields[0]) != 1 {
		return stat{}, errMalformed
	}
	pid, err1 := strconv.Atoi(string(b[:open-1]))
	ppid, err2 := strconv.Atoi(fields[fieldPPID])
	threads, err3 := strconv.Atoi(fields[fieldThreads])
	start, err4 := strconv.ParseUint(fields[fieldStart], 10, 64)
	if err := errors.Join(err1, err2, err3, err4); err != nil || pid <= 0 || ppid < 0 || threads < 0 {
		return stat{}, errMalformed
	}
	name := b[open+1 : end]
	return stat{pid: pid, ppid: ppid, state: fields[0][0], comm: string(name[:min(len(name), maxComm)]), threads: threads, start: start}, nil
}

// parseFDSize returns the number of descriptor slots from /proc/PID/status.
// The first line is the program's name with line ends escaped by the kernel,
// so a line that begins with the key is the kernel's.
func parseFDSize(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "FDSize:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil || n < 0 {
				return 0, errMalformed
			}
			return n, nil
		}
	}
	return 0, errMalformed
}

// parseSocket returns the inode of a link target "socket:[123]".
func parseSocket(target []byte) (inode uint64, ok bool) {
	rest, found := bytes.CutPrefix(target, []byte("socket:["))
	if !found || len(rest) < 2 || rest[len(rest)-1] != ']' {
		return 0, false
	}
	for _, c := range rest[:len(rest)-1] {
		if c < '0' || c > '9' || inode > (1<<64-1)/10-1 {
			return 0, false
		}
		inode = inode*10 + uint64(c-'0')
	}
	return inode, true
}

// trimDeleted removes what the kernel appends to the path of a nameless file.
func trimDeleted(path string) string { return strings.TrimSuffix(path, " (deleted)") }
