package view

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// What remains open, and no mount can close: a repository that the sandbox
// makes in a directory of its own inside the workspace. Git of the host runs
// what its config names when a person works there, and git status at the top
// enters it once it is in the index. The list of changes must flag such ones.

// What git of the host acts on, below a git directory. Everything else in it
// (objects, refs, index, HEAD, logs) stays writable, so that commits work.
var gitDirRules = []rule{
	{path: "hooks", why: "git of the host runs them"},
	{path: "config", file: true, why: "names programs that git of the host runs"},
	// With this file git takes its config from elsewhere; "." means here.
	{path: "commondir", file: true, content: ".\n", why: "would redirect git to another config"},
}

// Git takes a directory with HEAD, refs and objects for a repository, config
// and all, as soon as the .git in it is broken; a sandbox can break it. A plain
// file under one of these names stops that.
const notBare = "keeps the workspace itself from being taken for a repository"

const (
	maxGitConfig = 256 << 10
	maxModules   = 128
)

// rulesFor returns the default protections of a writable share.
func (b *building) rulesFor(s share) ([]rule, error) {
	dir, err := openReal(s.host)
	if err != nil {
		return nil, fault.New(fault.FailedPrecondition, "%q cannot be opened without following links", s.host).Cause(err)
	}
	defer unix.Close(dir)
	if kindAt(dir, ".") != unix.S_IFDIR {
		return nil, nil
	}
	rules := append([]rule(nil), workspaceRules...)
	refs, objects := kindAt(dir, "refs"), kindAt(dir, "objects")
	switch {
	case kindAt(dir, "HEAD") == unix.S_IFREG && (objects == unix.S_IFDIR || kindAt(dir, "commondir") == unix.S_IFREG):
		rules = gitRules(dir, "", nil) // the share is itself a git directory
	case b.isLifted(join(s.inside, ".git")): // a repository of its own was allowed: nothing is left to stop
	case refs == 0:
		rules = append(rules, rule{path: "refs", file: true, why: notBare})
	case objects == 0:
		rules = append(rules, rule{path: "objects", file: true, why: notBare})
	case refs == unix.S_IFDIR && objects == unix.S_IFDIR:
		rules = gitRules(dir, "", rules) // one file short of a git directory
	}
	if kindAt(dir, ".hg") == unix.S_IFDIR {
		rules = append(rules, rule{path: ".hg/hgrc", file: true, why: "names programs that Mercurial of the host runs"})
	}
	switch kindAt(dir, ".git") {
	case 0:
		rules = append(rules, b.noRepository(s))
	case unix.S_IFDIR:
		rules = gitRules(dir, ".git", rules)
	case unix.S_IFREG:
		rules = append(rules, rule{path: ".git", file: true, why: "says where the repository is"})
		b.noteWorktree(s)
	default:
		rules = append(rules, rule{path: ".git", why: "the repository"}) // a link: refused when resolved, unless lifted
	}
	return rules, nil
}

// noRepository keeps a repository from being made. A plain file, in git's own
// form for "the repository is elsewhere", makes git say why, and tools that
// look for a directory (go build, to stamp its result) find none. Inside a
// repository of the host it must be a directory: git of the host passes over
// an empty one and works on; go build inside needs a flag then.
func (b *building) noRepository(s share) rule {
	r := rule{path: ".git", why: "a repository made here could run programs on the host"}
	for dir := filepath.Dir(s.host); dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(join(dir, ".git")); err == nil {
			b.v.Env = append(b.v.Env, "GOFLAGS=-buildvcs=false")
			return r
		}
	}
	r.file = true
	r.content = "gitdir: /nonexistent (a sandbox of " + brand.Name + " may not make a repository here; to allow it: --rw .git)\n"
	return r
}

// gitRules appends the rules of the git directory at rel and of the modules in it.
func gitRules(dir int, rel string, rules []rule) []rule {
	add := func(at string) {
		for _, r := range gitDirRules {
			r.path = filepath.Join(at, r.path)
			rules = append(rules, r)
		}
	}
	add(rel)
	config := readBelow(dir, filepath.Join(rel, "config"))
	if strings.Contains(strings.ToLower(config), "worktreeconfig") {
		rules = append(rules, rule{path: filepath.Join(rel, "config.worktree"), file: true, why: "a second config of git"})
	}
	if rel == ".git" {
		for _, p := range configPaths(config) {
			rules = append(rules, rule{path: p, ifThere: true, why: "the config of git names it"})
		}
	}
	left := maxModules
	var walk func(at string, depth int)
	walk = func(at string, depth int) {
		for _, name := range namesBelow(dir, at) {
			sub := filepath.Join(at, name)
			if left == 0 || depth > 8 || kindAt(dir, sub) != unix.S_IFDIR {
				continue
			}
			left--
			if kindAt(dir, sub+"/HEAD") == unix.S_IFREG {
				add(sub)
				if kindAt(dir, sub+"/modules") == unix.S_IFDIR {
					walk(sub+"/modules", depth+1)
				}
				continue
			}
			walk(sub, depth+1) // a module's name may have slashes
		}
	}
	if modules := filepath.Join(rel, "modules"); kindAt(dir, modules) == unix.S_IFDIR {
		walk(modules, 0)
	}
	return rules
}

// configPaths returns the places in the workspace from which the config takes
// hooks or further config. It understands the usual form, one key a line.
func configPaths(config string) []string {
	var out []string
	section := ""
	for line := range strings.Lines(config) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.ToLower(strings.Trim(line, "[]"))
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		key = strings.ToLower(strings.TrimSpace(key))
		value = strings.Trim(strings.TrimSpace(value), `"`)
		base := ""
		switch {
		case section == "core" && key == "hookspath":
		case key == "path" && strings.HasPrefix(section, "include"):
			base = ".git"
		default:
			continue
		}
		p := filepath.Join(base, value)
		if value == "" || filepath.IsAbs(value) || value[0] == '~' || p == "." || p == ".." || strings.HasPrefix(p, "../") || len(out) >= 16 {
			continue
		}
		out = append(out, p)
	}
	return out
}

// noteWorktree tells where the repository of a worktree or submodule is when
// the sandbox cannot see it.
func (b *building) noteWorktree(s share) {
	text, err := os.ReadFile(join(s.host, ".git"))
	if err != nil || len(text) > 4096 {
		return
	}
	dir, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "gitdir: ")
	if !ok {
		return
	}
	if !filepath.IsAbs(dir) {
		dir = join(s.host, dir)
	}
	dir = filepath.Clean(dir)
	repo := dir
	if i := strings.LastIndex(dir, "/.git/"); i >= 0 {
		repo = dir[:i+len("/.git")]
	}
	if b.inWritable(resolvePrefix(dir)) == nil {
		b.v.Notes = append(b.v.Notes, "the workspace is a worktree or submodule of "+repo+", which the sandbox does not see; to let git work: --rw "+quote(repo))
	}
}

// kindAt returns the file type of rel, 0 if there is nothing.
func kindAt(dir int, rel string) uint32 {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, rel, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0
	}
	return st.Mode & unix.S_IFMT
}

func readBelow(dir int, rel string) string {
	f, err := reopenBelow(dir, rel, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, maxGitConfig)
	n := 0
	for n < len(buf) {
		m, err := f.Read(buf[n:])
		n += m
		if err != nil {
			break
		}
	}
	return string(buf[:n])
}

func namesBelow(dir int, rel string) []string {
	f, err := reopenBelow(dir, rel, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxModules)
	return names
}

func reopenBelow(dir int, rel string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(dir, rel, &how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), rel), nil
}
