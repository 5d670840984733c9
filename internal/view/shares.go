package view

import (
	"os"
	"path/filepath"
	"slices"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/mounts"
)

// shares adds the workspace and the paths named beside it, and sorts those
// that lie in a writable one into protections (read-only, hidden) and lifted
// protections (read-write).
func (b *building) shares() error {
	s := &b.spec
	if s.Workdir != "" {
		if err := b.share(share{host: s.Workdir, inside: s.WorkdirAt, write: true}); err != nil {
			return err
		}
	}
	// Outer paths first, so that an inner one finds the share it lies in.
	for _, p := range byDepth(s.ReadWrite) {
		host, inside, err := b.locate(p)
		if err != nil {
			return err
		}
		if b.inWritable(host) != nil {
			b.lifted = append(b.lifted, inside)
			continue
		}
		if err := b.named(p, true); err != nil {
			return err
		}
	}
	for _, p := range byDepth(s.ReadOnly) {
		host, inside, err := b.locate(p)
		if err != nil {
			return err
		}
		if in := b.inWritable(host); in != nil {
			b.guard = append(b.guard, guard{share: *in, path: host, inside: inside, why: "named read-only"})
			continue
		}
		if err := b.named(p, false); err != nil {
			return err
		}
	}
	for _, p := range byDepth(s.Hidden) {
		host, inside, err := b.locate(p)
		if err != nil {
			return err
		}
		if in := b.inWritable(host); in != nil {
			b.guard = append(b.guard, guard{share: *in, path: host, inside: inside, hide: true, why: "named hidden"})
			continue
		}
		b.late = append(b.late, mounts.Op{Kind: mounts.Mask, Target: inside, Flags: mounts.IfThere, Why: "named hidden"})
		b.v.Carved = append(b.v.Carved, Carve{Path: inside, Hidden: true, Why: "named hidden"})
	}
	return nil
}

func byDepth(paths []string) []string {
	out := slices.Clone(paths)
	slices.SortStableFunc(out, func(x, y string) int { return len(filepath.Clean(x)) - len(filepath.Clean(y)) })
	return out
}

// locate returns the absolute host path and the path inside. Links are
// resolved only as far as no sandbox could have made them.
func (b *building) locate(p string) (host, inside string, err error) {
	if p == "" {
		return "", "", fault.New(fault.InvalidArgument, "a path is empty")
	}
	host = p
	if !filepath.IsAbs(p) {
		if b.spec.Workdir == "" {
			return "", "", fault.New(fault.InvalidArgument, "%q is relative, and there is no working directory", p)
		}
		host = join(b.spec.Workdir, p)
	}
	host = filepath.Clean(host)
	if b.inWritable(host) == nil {
		host = resolvePrefix(host)
	}
	if err := notKernel(host); err != nil {
		return "", "", err
	}
	inside = host
	if in := b.inWritable(host); in != nil {
		rel, _ := below(in.host, host)
		inside = join(in.inside, rel)
	}
	return host, inside, nil
}

// resolvePrefix resolves the links of the longest existing prefix.
func resolvePrefix(path string) string {
	for dir, rest := path, ""; ; {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return join(real, rest)
		}
		if dir == "/" {
			return path
		}
		rest = join(filepath.Base(dir), rest)
		dir = filepath.Dir(dir)
	}
}

// inWritable returns the innermost writable share that holds the host path.
func (b *building) inWritable(host string) *share {
	var best *share
	for i := range b.writes {
		if _, in := below(b.writes[i].host, host); in && (best == nil || len(b.writes[i].host) > len(best.host)) {
			best = &b.writes[i]
		}
	}
	return best
}

// named shares a path of the host that lies in no writable share.
func (b *building) named(p string, write bool) error {
	host, inside, err := b.locate(p)
	if err != nil {
		return err
	}
	if err := b.share(share{host: host, inside: inside, write: write, named: true}); err != nil {
		return err
	}
	// A path that leads over a link keeps its name inside, where it can be made:
	// in a directory of our own. Elsewhere the host's link is there already.
	if clean := filepath.Clean(p); filepath.IsAbs(p) && clean != inside && clean != host {
		b.late = append(b.late, mounts.Op{Kind: mounts.Symlink, Source: inside, Target: clean, Flags: mounts.Optional, Why: "the name that was given"})
	}
	return nil
}

func (b *building) share(s share) error {
	info, err := os.Lstat(s.host)
	if err != nil {
		return notThere(s.host, "the path", err)
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return fault.New(fault.InvalidArgument, "%q is a socket, a device or a pipe; only directories and files can be shared", s.host)
	}
	if s.host == "/" {
		return fault.New(fault.InvalidArgument, "the whole host cannot be shared").Hint("name the directories that are needed")
	}
	if rel, in := below(s.host, b.spec.State); in && s.write {
		b.guard = append(b.guard, guard{share: s, path: b.spec.State, inside: join(s.inside, rel), hide: true, def: true, why: "our own records"})
	}
	flags := mounts.NoFollow
	why := "named read-only"
	if s.write {
		why = "named writable"
		if !s.named {
			why = "the workspace"
		}
	} else {
		flags |= mounts.ReadOnly
	}
	b.late = append(b.late, mounts.Op{Kind: mounts.Bind, Source: s.host, Target: s.inside, Flags: flags, Why: why})
	b.see(s.inside, s.host, s.write)
	if s.write {
		b.writes = append(b.writes, s)
	} else {
		b.reads = append(b.reads, s)
	}
	return nil
}
