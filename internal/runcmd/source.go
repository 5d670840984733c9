package runcmd

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"openshell.dev/openshell/internal/supervisor"
)

var stdout io.Writer = os.Stdout

// Source fills in where a sandbox's files come from when --from names
// something other than the host or a directory. The light program has none
// and hands the whole command to its sibling instead.
type Source func(ctx context.Context, from string, spec *supervisor.Spec) error

// source applies --from.
func (f *flags) source(ctx context.Context, s *supervisor.Spec) error {
	if f.from == "" || f.from == supervisor.HostRoot {
		return nil
	}
	return f.fetch(ctx, f.from, s)
}

// hintFor says where a command that is not visible inside stands outside.
func (f *flags) hintFor(command string) string {
	path, err := exec.LookPath(command)
	if err != nil || f.from != "" && f.from != supervisor.HostRoot {
		return ""
	}
	if path, err = filepath.Abs(path); err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil && !strings.HasPrefix(real, "/usr/") {
		path = real
	}
	dir := filepath.Dir(path)
	if filepath.Base(dir) == "bin" || filepath.Base(dir) == "shims" {
		dir = filepath.Dir(dir)
	}
	return "it is at " + path + ", which the sandbox does not see: add --ro " + quote(dir)
}
