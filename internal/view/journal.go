package view

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/fault"
)

// A journal records the placeholders of one live sandbox. Its file is locked
// by its owner as long as it lives; a journal that can be locked is a crash's.
// Each line is written before the object is made:
//
//	dir "/w/.vscode"
//	file "/w/.mcp.json" "{}\n"
//
// Two sandboxes on one workspace both list a placeholder; the last one out
// removes it. The file "lock" in the directory orders all of this.
type journal struct {
	dir   string
	name  string
	file  *os.File // locked while the owner lives
	lock  *os.File // held during Build, Close and Sweep
	pool  *pool    // as long as the lock is held
	mine  []entry
	other []entry
}

type entry struct {
	path    string
	file    bool
	content string
}

const (
	journalDir    = "placeholders"
	journalSuffix = ".journal"
	maxJournal    = 1 << 20
)

func (e entry) line() string {
	if e.file {
		return "file " + strconv.Quote(e.path) + " " + strconv.Quote(e.content) + "\n"
	}
	return "dir " + strconv.Quote(e.path) + "\n"
}

func parseEntry(line string) (entry, error) {
	kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if kind != "dir" && kind != "file" {
		return entry{}, fmt.Errorf("unknown kind %q", kind)
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil || quoted[0] != '"' {
		return entry{}, fmt.Errorf("no path in %q", line)
	}
	path, err := strconv.Unquote(quoted)
	if err != nil || !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return entry{}, fmt.Errorf("no clean path in %q", line)
	}
	rest = rest[len(quoted):]
	e := entry{path: path, file: kind == "file"}
	if !e.file {
		if rest != "" {
			return entry{}, fmt.Errorf("words after the path in %q", line)
		}
		return e, nil
	}
	if !strings.HasPrefix(rest, ` "`) {
		return entry{}, fmt.Errorf("no content in %q", line)
	}
	e.content, err = strconv.Unquote(rest[1:])
	return e, err
}

// openJournal takes the lock, sweeps what crashes left, and starts a journal.
func openJournal(state, id string) (*journal, error) {
	j, err := lockJournals(state)
	if err != nil {
		return nil, err
	}
	if err := j.sweep(); err != nil {
		j.unlock()
		return nil, err
	}
	j.name = join(j.dir, id+journalSuffix)
	f, err := j.begin(id + journalSuffix)
	if err != nil {
		j.unlock()
		if errors.Is(err, os.ErrExist) {
			return nil, fault.New(fault.AlreadyExists, "a sandbox with the id %q is running", id)
		}
		return nil, stateError(j.dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		j.unlock()
		return nil, stateError(j.dir, err)
	}
	j.file = f
	return j, nil
}

// begin makes the journal's file, from an unused one if there is any.
func (j *journal) begin(name string) (*os.File, error) {
	dir, err := unix.Open(j.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	flags := os.O_CREATE | os.O_EXCL | os.O_RDWR
	if done, err := j.pool.take(entry{file: true}, dir, name); err != nil {
		return nil, err
	} else if done {
		flags = os.O_RDWR
	}
	return os.OpenFile(j.name, flags, 0o600)
}

// end takes the journal's file away. The lock goes first: pid 1 may still hold
// a copy of the descriptor.
func (j *journal) end(f *os.File, name string) {
	defer f.Close()
	unix.Flock(int(f.Fd()), unix.LOCK_UN)
	dir, err := unix.Open(j.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(dir)
		if f.Truncate(0) == nil && j.pool.put(entry{file: true}, dir, filepath.Base(name)) {
			return
		}
	}
	os.Remove(name)
}

func lockJournals(state string) (*journal, error) {
	j := &journal{dir: join(state, journalDir)}
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return nil, stateError(j.dir, err)
	}
	f, err := os.OpenFile(join(j.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, stateError(j.dir, err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, stateError(j.dir, err)
	}
	j.lock = f
	j.pool = openPool(j.dir)
	return j, nil
}

func stateError(dir string, err error) error {
	return fault.New(fault.FailedPrecondition, "cannot keep a record of placeholders in %q", dir).Cause(err)
}

func (j *journal) unlock() {
	if j.lock != nil {
		j.pool.close()
		j.lock.Close()
		j.lock, j.pool = nil, nil
	}
}

// sweep reads all journals, removes those whose owner is gone, and what they
// list, unless a living one lists it, too.
func (j *journal) sweep() error {
	names, err := filepath.Glob(join(j.dir, "*"+journalSuffix))
	if err != nil {
		return err
	}
	var dead []string
	var left []entry
	j.other = nil
	for _, n := range names {
		if n == j.name {
			continue
		}
		entries, alive, err := readJournal(n)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return stateError(j.dir, err)
		case alive:
			j.other = append(j.other, entries...)
		default:
			dead = append(dead, n)
			left = append(left, entries...)
		}
	}
	j.remove(left)
	for _, n := range dead {
		os.Remove(n)
	}
	return nil
}

func readJournal(name string) (entries []entry, alive bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		alive = true
	case err != nil:
		return nil, false, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	text := make([]byte, min(info.Size(), maxJournal))
	n, _ := f.ReadAt(text, 0)
	for line := range strings.Lines(string(text[:n])) {
		// A torn last line names nothing that was made.
		if e, err := parseEntry(line); err == nil && strings.HasSuffix(line, "\n") {
			entries = append(entries, e)
		}
	}
	return entries, alive, nil
}

// remove deletes untouched placeholders that no living sandbox needs, inner
// ones first.
func (j *journal) remove(entries []entry) {
	slices.SortStableFunc(entries, func(x, y entry) int { return len(y.path) - len(x.path) })
	for _, e := range entries {
		if !slices.ContainsFunc(j.other, func(o entry) bool { return o.path == e.path }) {
			e.remove(j.pool)
		}
	}
}

// release removes the journal and its placeholders. Called by the owner at the end.
func (j *journal) release() error {
	mine, name, file := j.mine, j.name, j.file
	if file == nil {
		j.unlock()
		return nil
	}
	if j.lock == nil {
		l, err := lockJournals(filepath.Dir(j.dir))
		if err != nil {
			return err
		}
		j.lock, j.pool = l.lock, l.pool
	}
	defer j.unlock()
	err := j.sweep() // reads the others; ours is skipped by name
	j.remove(mine)
	j.end(file, name)
	return err
}

// Sweep removes what crashed sandboxes left on the host. Build does it, too.
// state is as in Spec.
func Sweep(state string) error {
	if state == "" {
		var err error
		if state, err = StateDir(); err != nil {
			return err
		}
	}
	if _, err := os.Stat(join(state, journalDir)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	j, err := lockJournals(state)
	if err != nil {
		return err
	}
	defer j.unlock()
	return j.sweep()
}
