package privs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Status is what /proc/PID/status says about privileges and identity. Sets and
// masks are bit n for capability n, bit n-1 for signal n.
type Status struct {
	Name                       string
	Pid, PPid, Tgid, TracerPid int
	UID, GID                   [4]int // real, effective, saved, file system
	Groups                     []int
	NSPid                      []int // as seen from each nested namespace, outermost first
	Threads                    int
	Umask                      int

	CapInh, CapPrm, CapEff, CapBnd, CapAmb uint64
	SigBlk, SigIgn, SigCgt                 uint64
	NoNewPrivs                             bool
	Seccomp                                int // 0 off, 1 strict, 2 filter
	SeccompFilters                         int // -1 where the kernel does not say
}

// ReadStatus reads and parses a status file, such as /proc/self/status or, for
// the calling thread, /proc/thread-self/status.
func ReadStatus(path string) (Status, error) {
	text, err := os.ReadFile(path) // written by the kernel, which bounds it
	if err != nil {
		return Status{}, fmt.Errorf("read the process status: %w", err)
	}
	return ParseStatus(text)
}

// ParseStatus parses the text of a status file. Lines it does not know are
// skipped; a line it knows and cannot read is an error, and so is the absence of
// one that states a privilege.
func ParseStatus(text []byte) (Status, error) {
	s := Status{SeccompFilters: -1}
	seen := make(map[string]bool, 64)
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok {
			return Status{}, fmt.Errorf("parse the process status: line %q has no colon", line)
		}
		if seen[key] {
			return Status{}, fmt.Errorf("parse the process status: %s comes twice", key)
		}
		seen[key] = true
		if err := s.set(key, strings.TrimSpace(value)); err != nil {
			return Status{}, fmt.Errorf("parse the process status: %s: %w", key, err)
		}
	}
	for _, key := range statusKeys {
		if !seen[key] {
			return Status{}, fmt.Errorf("parse the process status: no line %s", key)
		}
	}
	return s, nil
}

// statusKeys are the lines without which a status says nothing about privileges.
var statusKeys = [...]string{"Pid", "Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"}

func (s *Status) set(key, value string) (err error) {
	switch key {
	case "Name":
		s.Name = value
	case "Tgid":
		s.Tgid, err = strconv.Atoi(value)
	case "Pid":
		s.Pid, err = strconv.Atoi(value)
	case "PPid":
		s.PPid, err = strconv.Atoi(value)
	case "TracerPid":
		s.TracerPid, err = strconv.Atoi(value)
	case "Threads":
		s.Threads, err = strconv.Atoi(value)
	case "Umask":
		s.Umask, err = octal(value)
	case "Uid":
		err = fourIDs(&s.UID, value)
	case "Gid":
		err = fourIDs(&s.GID, value)
	case "Groups":
		s.Groups, err = numbers(value)
	case "NSpid":
		s.NSPid, err = numbers(value)
	case "SigBlk":
		s.SigBlk, err = hex(value)
	case "SigIgn":
		s.SigIgn, err = hex(value)
	case "SigCgt":
		s.SigCgt, err = hex(value)
	case "CapInh":
		s.CapInh, err = hex(value)
	case "CapPrm":
		s.CapPrm, err = hex(value)
	case "CapEff":
		s.CapEff, err = hex(value)
	case "CapBnd":
		s.CapBnd, err = hex(value)
	case "CapAmb":
		s.CapAmb, err = hex(value)
	case "NoNewPrivs":
		s.NoNewPrivs, err = strconv.ParseBool(value)
	case "Seccomp":
		s.Seccomp, err = strconv.Atoi(value)
	case "Seccomp_filters":
		s.SeccompFilters, err = strconv.Atoi(value)
	}
	return err
}

func hex(s string) (uint64, error) { return strconv.ParseUint(s, 16, 64) }

func octal(s string) (int, error) {
	n, err := strconv.ParseUint(s, 8, 16)
	return int(n), err
}

func numbers(s string) ([]int, error) {
	fields := strings.Fields(s)
	out := make([]int, 0, len(fields))
	for _, f := range fields {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

func fourIDs(ids *[4]int, s string) error {
	n, err := numbers(s)
	if err != nil {
		return err
	}
	if len(n) != len(ids) {
		return fmt.Errorf("%d numbers, not %d", len(n), len(ids))
	}
	copy(ids[:], n)
	return nil
}
