package runcmd

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/supervisor"
)

// maxPolicy bounds a policy file; the parser has limits of its own.
const maxPolicy = 4 << 20

// spec turns the flags into what the supervisor makes.
func (f *flags) spec(ctx context.Context) (supervisor.Spec, supervisor.Options, error) {
	var opts supervisor.Options
	s := supervisor.Spec{ID: newID(), Name: "run", Timeout: f.timeout, Events: f.events, Allow: f.allow}
	var err error
	if s.StateDir, err = stateDir(); err != nil {
		return s, opts, err
	}
	s.Journals = filepath.Dir(s.StateDir)
	if err = f.files(&s.Files); err != nil {
		return s, opts, err
	}
	if s.Limits, err = f.limits(); err != nil {
		return s, opts, &misuseError{err}
	}
	if f.policy != "" {
		if s.Policy, err = readBounded(f.policy); err != nil {
			return s, opts, err
		}
		s.PolicyName = f.policy
	}
	s.Main = supervisor.Main{Argv: f.command, TTY: f.wantTerminal()}
	if s.Main.Env, err = f.environment(); err != nil {
		return s, opts, &misuseError{err}
	}
	if err = f.source(ctx, &s); err != nil {
		return s, opts, err
	}
	if s.Files.Root == supervisor.HostRoot {
		opts.Path = searchPath(slices.Concat(s.Files.ReadOnly, s.Files.ReadWrite, []string{s.Files.Workspace}))
	}
	return s, opts, nil
}

// files checks every path the caller named: a path that does not exist is an
// error now, not a surprise inside.
func (f *flags) files(out *supervisor.Files) error {
	out.Root = supervisor.HostRoot
	dir := f.workdir
	if dir == "" {
		var err error
		if dir, err = os.Getwd(); err != nil {
			return fault.New(fault.FailedPrecondition, "find the current directory").Cause(err).Hint("cd to a directory that exists")
		}
	}
	abs, err := existing("--workdir", dir, true)
	if err != nil {
		return err
	}
	out.Workspace = abs
	for _, list := range []struct {
		flag  string
		paths []string
		to    *[]string
	}{{"--ro", f.ro, &out.ReadOnly}, {"--rw", f.rw, &out.ReadWrite}, {"--hide", f.hide, &out.Hidden}} {
		for _, p := range list.paths {
			abs, err := named(list.flag, p, out.Workspace)
			if err != nil {
				return err
			}
			*list.to = append(*list.to, abs)
		}
	}
	return nil
}

// named resolves a path flag. Below the workspace it may name something that
// does not exist yet: protecting it is the point.
func named(flag, path, workspace string) (string, error) {
	if path == "" {
		return "", &misuseError{misuse("%s: the path is empty", flag)}
	}
	abs := expand(path)
	if !filepath.IsAbs(abs) {
		abs = filepath.Join(workspace, abs)
	}
	abs = filepath.Clean(abs)
	if strings.HasPrefix(abs, workspace+"/") {
		return abs, nil
	}
	return existing(flag, abs, false)
}

func existing(flag, path string, dir bool) (string, error) {
	abs, err := filepath.Abs(expand(path))
	if err != nil {
		return "", fault.New(fault.InvalidArgument, "%s %q", flag, path).Cause(err)
	}
	st, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fault.New(fault.InvalidArgument, "%s: %q does not exist", flag, path).Hint("mkdir -p %s", quote(abs))
	case err != nil:
		return "", fault.New(fault.InvalidArgument, "%s: %q cannot be looked at", flag, path).Cause(err)
	case dir && !st.IsDir():
		return "", fault.New(fault.InvalidArgument, "%s: %q is not a directory", flag, path).Hint("name the directory that holds it")
	}
	return abs, nil
}

func expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

func quote(s string) string {
	if strings.ContainsAny(s, " '\"\\$`!*?[]{}()<>|&;~#\t\n") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

func readBounded(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err == nil && st.Size() > maxPolicy {
		return nil, fault.New(fault.InvalidArgument, "policy %q has %d bytes, at most %d are allowed", path, st.Size(), maxPolicy)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f := fault.New(fault.InvalidArgument, "read policy %q", path).Cause(err)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, f.Hint("name an existing file, or drop --policy for no network at all")
		}
		return nil, f
	}
	return data, nil
}

// stateDir is where runs keep what must outlive a crash: the journals that a
// later sweep reads. It belongs to the caller and nobody else.
func stateDir() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		if home, err := os.UserHomeDir(); err == nil {
			base = filepath.Join(home, ".local", "state")
		}
	}
	dir := filepath.Join(base, brand.Name, "run")
	err := os.MkdirAll(dir, 0o700)
	if base == "" || err != nil {
		dir = filepath.Join(os.TempDir(), brand.Name+"-"+uidString())
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return "", fault.New(fault.FailedPrecondition, "make the state directory %q", dir).Cause(err).
			Hint("export XDG_STATE_HOME=/a/directory/you/may/write")
	}
	if err := private(dir); err != nil {
		return "", err
	}
	return dir, nil
}
