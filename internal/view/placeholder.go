package view

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/fault"
)

// ensure makes sure that the guarded path exists, with placeholders where it
// does not, and that it can be protected. skip says that it cannot come into
// being: nobody with the caller's rights can make it.
func (j *journal) ensure(g guard, rel string) (made, skip bool, err error) {
	root, err := openReal(g.share.host)
	if err != nil {
		return false, false, fault.New(fault.FailedPrecondition, "%q cannot be opened without following links", g.share.host).Cause(err)
	}
	dir := root
	defer func() { unix.Close(dir) }()
	parts := components(rel)
	at := g.share.host
	for i, name := range parts {
		at = join(at, name)
		last := i == len(parts)-1
		fd, err := openBelow(dir, name)
		if errors.Is(err, unix.ENOENT) {
			if g.ifThere {
				return false, true, nil
			}
			e := entry{path: at, file: last && g.file, content: g.content}
			if err := j.make(dir, name, e); err != nil {
				if cannotAppear(dir, err) {
					return false, true, nil
				}
				f := fault.New(fault.FailedPrecondition, "cannot make the placeholder %q, without which the sandbox could create it", at).Cause(err)
				if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
					return false, false, f.Hint("free some space: df -h %s", quote(g.share.host))
				}
				return false, false, f.Hint("allow changes with --rw %s", quote(rel))
			}
			made = true
			fd, err = openBelow(dir, name)
		} else if err == nil {
			made = j.shared(at) && last
		}
		switch {
		case errors.Is(err, unix.ELOOP):
			return false, false, linkError(g, rel)
		case errors.Is(err, unix.ENOTDIR) && g.def:
			return false, true, nil // a file stands where the directory would be
		case err != nil:
			return false, false, fault.New(fault.FailedPrecondition, "%q cannot be protected", g.path).Cause(err)
		}
		unix.Close(dir)
		dir = fd
	}
	return made, false, checkTarget(dir, g)
}

// make records the placeholder, then makes it.
func (j *journal) make(dir int, name string, e entry) error {
	if err := j.record(e); err != nil {
		return err
	}
	if done, err := j.pool.take(e, dir, name); done || err != nil {
		return err
	}
	if !e.file {
		return unix.Mkdirat(dir, name, 0o755)
	}
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(e.content))
	return err
}

// shared notes an existing placeholder of another live sandbox as ours, too.
func (j *journal) shared(path string) bool {
	if slices.ContainsFunc(j.mine, func(e entry) bool { return e.path == path }) {
		return true
	}
	for _, e := range j.other {
		if e.path == path {
			return j.record(e) == nil
		}
	}
	return false
}

func (j *journal) record(e entry) error {
	if _, err := j.file.WriteString(e.line()); err != nil {
		return err
	}
	j.mine = append(j.mine, e)
	return nil
}

// cannotAppear reports whether the failure to make an entry holds for the
// sandbox as well: it has our number and no capability, and cannot change the
// mode of a directory that is not ours.
func cannotAppear(dir int, err error) bool {
	if errors.Is(err, unix.EROFS) {
		return true
	}
	var st unix.Stat_t
	return errors.Is(err, unix.EACCES) && unix.Fstat(dir, &st) == nil && int(st.Uid) != os.Geteuid()
}

// remove takes the placeholder away if it is as it was made. A directory in
// use is not empty and stays; a file with another content is somebody's.
func (e entry) remove(p *pool) {
	parent, err := openReal(filepath.Dir(e.path))
	if err != nil {
		return // gone, or reached by a link now: not ours to follow
	}
	defer unix.Close(parent)
	name := filepath.Base(e.path)
	if !pristine(parent, name, e) || p.put(e, parent, name) {
		return
	}
	if e.file {
		unix.Unlinkat(parent, name, 0)
		return
	}
	unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}
