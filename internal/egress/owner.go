package egress

import (
	"context"
	"errors"
	"fmt"
	"os"

	"openshell.dev/openshell/internal/identity"
)

// Executable is one program of a chain, as found behind a process.
type Executable struct {
	Path    string           // as the sandbox names it
	Version identity.Version // of the file behind the process
	// Open gives a descriptor of that very file, for its digest.
	Open func() (*os.File, error)
}

// Holder is one process that holds a connection.
type Holder struct {
	PID int
	// Chain is the process's executable, then its ancestors', nearest first.
	// An executable without a path is not known: as the first it denies, as an
	// ancestor it matches no rule.
	Chain []Executable
}

// Program returns the path of the holder's own executable.
func (h Holder) Program() string {
	if len(h.Chain) == 0 {
		return ""
	}
	return h.Chain[0].Path
}

// Owner is everybody who holds one connection. All of them must be allowed.
// The zero Owner is nobody, and nobody is denied.
type Owner struct{ Holders []Holder }

// first returns the holder that events name.
func (o Owner) first() Holder {
	if len(o.Holders) == 0 {
		return Holder{}
	}
	return o.Holders[0]
}

// errNobody says that no process holds the connection any more.
var errNobody = errors.New("no process of the sandbox could be found behind the connection")

// owner finds and checks the owner of an arrival: each executable of each
// holder must be the content its path had at first use.
func (p *Proxy) owner(ctx context.Context, a *Arrival) (Owner, error) {
	if a.Owner == nil {
		return Owner{}, errNobody
	}
	ctx, cancel := context.WithTimeout(ctx, p.limits.OwnerWait)
	defer cancel()
	o, err := a.Owner(ctx)
	if err != nil {
		p.opts.Log.Warn("owner of a connection not found", "err", err)
		return Owner{}, errNobody
	}
	if len(o.Holders) == 0 {
		return Owner{}, errNobody
	}
	for _, h := range o.Holders {
		if len(h.Chain) == 0 {
			return o, errNobody
		}
		for i, x := range h.Chain {
			if i > 0 && x.Path == "" {
				continue // an ancestor whose file is gone grants nothing
			}
			if _, err := p.opts.Pins.Check(x.Path, x.Version, x.Open); err != nil {
				if i > 0 {
					return o, fmt.Errorf("ancestor integrity check failed for %s: %w", h.Program(), err)
				}
				return o, fmt.Errorf("binary integrity check failed: %w", err)
			}
		}
	}
	return o, nil
}
