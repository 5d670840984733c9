package view

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/mounts"
)

// guard is a protection to be set up inside a writable share.
type guard struct {
	share   share
	path    string // on the host
	inside  string
	hide    bool
	def     bool   // from our table
	file    bool   // the placeholder is a file
	content string // of the placeholder file
	ifThere bool   // no placeholder: protected only if it exists
	why     string
}

// rule is a path of a workspace that programs of the host read and act on
// without asking. Left out on purpose: what a person runs knowingly (Makefile,
// package.json), and .envrc, which direnv runs only after asking again.
type rule struct {
	path    string
	file    bool
	content string
	ifThere bool
	why     string
}

var workspaceRules = []rule{
	{path: ".vscode", why: "the editor runs its tasks and takes programs from its settings"},
	{path: ".idea", why: "the editor runs its run configurations"},
	{path: ".cursor", why: "starts servers and hooks named in its settings"},
	{path: ".claude", why: "runs hooks named in its settings, with the person's rights"},
	{path: ".codex", why: "starts servers named in its settings"},
	{path: ".gemini", why: "starts servers named in its settings"},
	{path: ".mcp.json", file: true, content: "{\"mcpServers\": {}}\n", why: "names programs that agents start"},
	{path: ".zed", ifThere: true, why: "the editor runs its tasks"},
	{path: ".windsurf", ifThere: true, why: "starts servers and hooks named in its settings"},
	{path: ".opencode", ifThere: true, why: "loads plugins as code"},
	{path: ".devcontainer", ifThere: true, why: "its commands run on the host at start"},
}

// carve resolves the default and the named protections, makes the placeholders
// and adds the operations.
func (b *building) carve() error {
	var all []guard
	if !b.spec.Trusting {
		for _, s := range b.writes {
			rules, err := b.rulesFor(s)
			if err != nil {
				return err
			}
			for _, r := range rules {
				g := guard{share: s, path: join(s.host, r.path), inside: join(s.inside, r.path), def: true, file: r.file, content: r.content, ifThere: r.ifThere, why: r.why}
				if !b.isLifted(g.inside) && !slices.ContainsFunc(b.guard, func(x guard) bool { return x.inside == g.inside }) {
					all = append(all, g)
				}
			}
		}
	}
	all = append(all, b.guard...)
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(x, y guard) int { return len(x.path) - len(y.path) })
	j, err := openJournal(b.spec.State, b.spec.ID)
	if err != nil {
		return err
	}
	b.v.journal = j
	defer j.unlock()
	pinned := map[string]bool{}
	for _, g := range all {
		if err := b.carveOne(j, g, pinned); err != nil {
			return err
		}
	}
	b.exclude()
	return b.reopen(all)
}

var globEscaper = strings.NewReplacer("\\", "\\\\", "*", "\\*", "?", "\\?", "[", "\\[", " ", "\\ ", "\n", "?")

// exclude keeps the placeholders out of git's sight inside, so that the agent
// neither commits them nor stumbles over them in git clean.
func (b *building) exclude() {
	for _, s := range b.writes {
		var lines strings.Builder
		for _, c := range b.v.Carved {
			if rel, in := below(s.inside, c.Path); c.Made && in && !strings.HasPrefix(rel, ".git") {
				lines.WriteString("/" + globEscaper.Replace(rel) + "\n")
			}
		}
		if lines.Len() == 0 || lines.Len() > mounts.MaxData/4 {
			continue
		}
		path := "/.git/info/exclude"
		text, err := readIn(s.host, path, mounts.MaxData/2)
		if errors.Is(err, unix.ENOENT) && b.isLifted(join(s.inside, ".git")) && b.ownHome() {
			// A repository is to be made: git reads this one for all of them.
			b.late = append(b.late, mounts.Op{Kind: mounts.File, Target: b.v.Home + "/.config/git/ignore", Mode: 0o644,
				Data: []byte("# placeholders of protected paths of the workspace\n" + lines.String()), Flags: mounts.Optional, Why: "git must not see our placeholders"})
			continue
		}
		if err != nil {
			continue
		}
		text = append(append(text, "\n# placeholders of protected paths, gone after the end\n"...), lines.String()...)
		b.late = append(b.late, mounts.Op{Kind: mounts.File, Target: s.inside + path, Mode: 0o644, Data: text,
			Flags: mounts.Cover | mounts.IfThere | mounts.NoFollow | mounts.Optional, Why: "git must not see our placeholders"})
	}
}

// ownHome reports whether the home is new and empty. Whatever is shown inside
// it, a mount never makes a file on the host.
func (b *building) ownHome() bool {
	return slices.ContainsFunc(b.late, func(o mounts.Op) bool { return o.Kind == mounts.Tmpfs && o.Target == b.v.Home })
}

func (b *building) isLifted(inside string) bool {
	return slices.ContainsFunc(b.lifted, func(l string) bool { _, in := below(l, inside); return in })
}

// reopen makes a path writable again that was named so and lies below a
// protected one.
func (b *building) reopen(all []guard) error {
	for _, l := range b.lifted {
		for _, g := range all {
			rel, in := below(g.inside, l)
			if !in || rel == "." && g.hide {
				continue
			}
			if rel == "." {
				return fault.New(fault.InvalidArgument, "%q is named both writable and read-only", l)
			}
			host := join(g.path, rel)
			if _, err := os.Lstat(host); err != nil {
				return notThere(host, "the writable path", err)
			}
			b.late = append(b.late, mounts.Op{Kind: mounts.Bind, Source: host, Target: l, Flags: mounts.NoFollow, Why: "named writable"})
			break
		}
	}
	return nil
}

func (b *building) carveOne(j *journal, g guard, pinned map[string]bool) error {
	rel, _ := below(g.share.host, g.path)
	made, skip, err := j.ensure(g, rel)
	if err != nil {
		return err
	}
	if skip {
		return nil
	}
	// A mount point cannot be renamed, but its parents could be: each
	// directory between the share and the protected path is one, too.
	for dir := filepath.Dir(g.inside); dir != g.share.inside && len(dir) > len(g.share.inside); dir = filepath.Dir(dir) {
		if !pinned[dir] {
			pinned[dir] = true
			b.late = append(b.late, mounts.Op{Kind: mounts.Pin, Target: dir, Flags: mounts.NoFollow, Why: "holds a protected path and must not be renamed"})
		}
	}
	pinned[g.inside] = true
	op := mounts.Op{Kind: mounts.Pin, Target: g.inside, Flags: mounts.ReadOnly | mounts.NoFollow, Why: g.why}
	if g.hide {
		op.Kind, op.Flags = mounts.Mask, mounts.NoFollow
	}
	b.late = append(b.late, op)
	b.v.hosts = append(b.v.hosts, g.path)
	b.v.Carved = append(b.v.Carved, Carve{Path: g.inside, Hidden: g.hide, Default: g.def, Made: made, Why: g.why})
	return nil
}

// checkTarget refuses a protected object that has another door.
func checkTarget(fd int, g guard) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fault.New(fault.Internal, "cannot look at %q", g.path).Cause(err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return nil
	case unix.S_IFREG:
		if st.Nlink > 1 && !g.hide {
			return fault.New(fault.FailedPrecondition, "%q cannot be kept read-only: the file has %d names, and another one may be writable", g.path, st.Nlink).
				Hint("cp -p %[1]s %[1]s.copy && mv %[1]s.copy %[1]s", quote(g.path))
		}
		return nil
	}
	return fault.New(fault.FailedPrecondition, "%q is neither a file nor a directory and cannot be protected", g.path)
}

func linkError(g guard, rel string) error {
	return fault.New(fault.FailedPrecondition, "%q is or passes a symbolic link, which the sandbox could replace, so it cannot be protected", g.path).
		Hint("replace the link by what it points to, or allow changes with --rw %s", quote(rel))
}

// openBelow opens rel below the directory without following any link.
func openBelow(dir int, rel string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(dir, rel, &how)
		if err == nil {
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
				unix.Close(fd)
				return -1, unix.ELOOP
			}
			return fd, nil
		}
		if !errors.Is(err, unix.EAGAIN) || tries == 64 {
			return -1, err
		}
	}
}

// openReal opens an absolute canonical path; a link in it is an error.
func openReal(path string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	return unix.Openat2(unix.AT_FDCWD, path, &how)
}

func components(rel string) []string { return strings.Split(rel, "/") }
