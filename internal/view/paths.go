package view

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/mounts"
)

// kernelDirs are never shared: what is in them is not files.
var kernelDirs = []string{"/proc", "/dev", "/sys"}

// crowded are directories that hold everybody's things. As a workspace they
// are a mistake; named with --rw they are shown.
var crowded = []string{"/", "/bin", "/boot", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/nix", "/opt", "/root", "/run", "/sbin", "/srv", "/tmp", "/usr", "/usr/local", "/var", "/var/tmp"}

// maxShares bounds each list of a Spec, as the policy language does.
const maxShares = 256

// normalize fills the defaults and makes every path absolute.
func (b *building) normalize() error {
	s := &b.spec
	if s.ID == "" || strings.ContainsAny(s.ID, "/\x00\n") || s.ID[0] == '.' || len(s.ID) > 128 {
		return fault.New(fault.Internal, "a view needs the id of its sandbox, not %q", s.ID)
	}
	if len(s.ReadOnly) > maxShares || len(s.ReadWrite) > maxShares || len(s.Hidden) > maxShares {
		return fault.New(fault.InvalidArgument, "more than %d paths of one kind", maxShares)
	}
	if s.State == "" {
		dir, err := StateDir()
		if err != nil {
			return err
		}
		s.State = dir
	}
	if err := os.MkdirAll(s.State, 0o700); err != nil {
		return stateError(s.State, err)
	}
	real, err := filepath.EvalSymlinks(s.State)
	if err != nil {
		return stateError(s.State, err)
	}
	s.State = real
	if s.TmpSize == 0 {
		s.TmpSize = defaultTmp
	}
	if s.Hostname == "" {
		s.Hostname = "sandbox"
	}
	if err := b.normalizeWho(); err != nil {
		return err
	}
	if s.Workdir == "" {
		b.v.Dir = b.v.Home
		return nil
	}
	return b.normalizeWorkdir()
}

// StateDir is where the journals of this account are, whoever makes sandboxes.
func StateDir() (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil || !filepath.IsAbs(home) {
			return "", fault.New(fault.FailedPrecondition, "no directory for our own records: neither XDG_STATE_HOME nor HOME is set").Hint("export HOME=/home/you")
		}
		dir = join(home, ".local/state")
	}
	return join(dir, brand.ConfigDir), nil
}

func (b *building) normalizeWho() error {
	w := &b.spec.Who
	if w.User == "" {
		w.User = "sandbox"
	}
	if w.Group == "" {
		w.Group = w.User
	}
	if w.Shell == "" {
		w.Shell = "/bin/sh"
		if _, err := os.Stat(join(b.spec.Base.Dir, "/bin/bash")); err == nil && len(b.spec.Base.Lower) == 0 {
			w.Shell = "/bin/bash"
		}
	}
	for _, word := range []string{w.User, w.Group, w.Shell, b.spec.Home, b.spec.Hostname} {
		if strings.ContainsAny(word, ":\n\x00 ") {
			return fault.New(fault.InvalidArgument, "%q cannot stand in the password file", word)
		}
	}
	home := b.spec.Home
	if home == "" && b.spec.Base.host() {
		home, _ = os.UserHomeDir()
	}
	if !usableHome(home) {
		home = "/home/" + w.User
	}
	b.v.Home = filepath.Clean(home)
	return nil
}

// usableHome refuses homes such as / or /var/lib/daemon or /usr/games, which
// would put a writable directory over a part of the system.
func usableHome(home string) bool {
	if home == "/root" {
		return true
	}
	if !filepath.IsAbs(home) || home == "/home" {
		return false
	}
	clean := filepath.Clean(home)
	for _, c := range crowded {
		if c == clean {
			return false
		}
	}
	for _, sys := range append([]string{"/usr", "/etc", "/bin", "/sbin", "/lib", "/run", "/boot", "/nonexistent", brand.ReservedRoot}, kernelDirs...) {
		if _, in := below(sys, clean); in {
			return false
		}
	}
	return true
}

func (b *building) normalizeWorkdir() error {
	s := &b.spec
	real, err := realDir(s.Workdir, "the working directory")
	if err != nil {
		return err
	}
	s.Workdir = real
	named := false
	for _, p := range s.ReadWrite {
		if r, err := filepath.EvalSymlinks(p); err == nil && filepath.IsAbs(p) && r == real {
			named = true
		}
	}
	home, _ := os.UserHomeDir()
	if h, err := filepath.EvalSymlinks(home); err == nil {
		home = h
	}
	if !named {
		if home != "" && home != "/" {
			if _, holds := below(real, home); holds {
				return fault.New(fault.InvalidArgument, "%q is or holds your home directory: the sandbox could read your keys and change your settings", real).
					Hint("change to a project directory, or insist with --rw %s", quote(real))
			}
		}
		for _, c := range crowded {
			if c == real {
				return fault.New(fault.InvalidArgument, "%q is not a working directory: it holds other people's and the system's files", real).
					Hint("change to a project directory, or insist with --rw %s", quote(real))
			}
		}
	}
	if err := notKernel(real); err != nil {
		return err
	}
	if s.WorkdirAt == "" {
		s.WorkdirAt = real
	}
	if !filepath.IsAbs(s.WorkdirAt) || filepath.Clean(s.WorkdirAt) != s.WorkdirAt || s.WorkdirAt == "/" {
		return fault.New(fault.InvalidArgument, "the working directory inside must be an absolute path, not %q", s.WorkdirAt)
	}
	if err := notKernel(s.WorkdirAt); err != nil {
		return err
	}
	b.v.Dir = s.WorkdirAt
	return nil
}

func realDir(path, what string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fault.New(fault.InvalidArgument, "%s %q has no absolute path", what, path).Cause(err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", notThere(path, what, err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", notThere(path, what, err)
	}
	if !info.IsDir() {
		return "", fault.New(fault.InvalidArgument, "%s %q is not a directory", what, path)
	}
	return real, nil
}

func notThere(path, what string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.NotFound, "%s %q does not exist", what, path).Hint("mkdir -p %s", quote(path)).Cause(err)
	}
	return fault.New(fault.PermissionDenied, "%s %q cannot be opened", what, path).Cause(err)
}

func notKernel(path string) error {
	for _, k := range kernelDirs {
		if _, in := below(k, path); in {
			return fault.New(fault.InvalidArgument, "%q cannot be shared: the sandbox has a %s of its own", path, k)
		}
	}
	if _, in := below(brand.ReservedRoot, path); in {
		return fault.New(fault.InvalidArgument, "%q is reserved", path)
	}
	return nil
}

// home adds the private home directory.
func (b *building) home() error {
	if b.spec.HomeDir != "" {
		real, err := realDir(b.spec.HomeDir, "the kept home directory")
		if err != nil {
			return err
		}
		b.late = append(b.late, mounts.Op{Kind: mounts.Bind, Source: real, Target: b.v.Home, Flags: mounts.NoFollow, Why: "a home of the sandbox's own, kept"})
		b.see(b.v.Home, real, true)
		return nil
	}
	if b.v.Home == b.v.Dir && b.spec.Workdir != "" {
		return nil // the caller insisted on working in this very directory
	}
	for _, p := range b.spec.ReadWrite {
		if real, err := filepath.EvalSymlinks(p); err == nil && real == b.v.Home {
			return nil // named: the real home is shown
		}
	}
	if b.spec.Base.Upper != "" {
		b.late = append(b.late, mounts.Op{Kind: mounts.Dir, Target: b.v.Home, Mode: 0o700, Why: "the home directory, kept with the image's changes"})
		return nil
	}
	b.late = append(b.late, mounts.Op{Kind: mounts.Tmpfs, Target: b.v.Home, Size: b.spec.TmpSize, Mode: 0o700, Why: "a home of the sandbox's own, gone at the end"})
	return nil
}

// quote makes a path safe to paste into a shell.
func quote(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r == '/' || r == '.' || r == '_' || r == '-' || r == '+' || r == '@' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
