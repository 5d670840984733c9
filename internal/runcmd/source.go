package runcmd

import (
	"context"
	"io"
	"os"

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
