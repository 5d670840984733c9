package supervisor

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"

	"openshell.dev/openshell/internal/egress"
	"openshell.dev/openshell/internal/identity"
	"openshell.dev/openshell/internal/launch/wire"
	"openshell.dev/openshell/internal/sockdiag"
)

// owners finds who holds a connection: the socket by its exact tuple from
// outside, its holders by the launcher, which sees the processes. Recent
// owners are looked at first, so that a busy program costs the same however
// many others run.
type owners struct {
	sb   *Sandbox
	diag *sockdiag.Diag

	mu     sync.Mutex
	recent []int // pids that owned something lately, newest first
}

const recentOwners = 16

// Owner implements egress.Owners. Nobody found is the zero Owner.
func (o *owners) Owner(ctx context.Context, client, original netip.AddrPort) (egress.Owner, error) {
	sock, err := o.diag.Lookup(client, original)
	if errors.Is(err, sockdiag.ErrNoSocket) || (err == nil && sock.Inode == 0) {
		return egress.Owner{}, nil
	}
	if err != nil {
		return egress.Owner{}, err
	}
	f, err := o.sb.ask(ctx, nil, &wire.Owner{Inode: sock.Inode, Hints: o.hints()})
	if err != nil {
		return egress.Owner{}, err
	}
	var m wire.Owners
	if err := f.Unmarshal(&m); err != nil {
		return egress.Owner{}, err
	}
	var out egress.Owner
	for _, chain := range m.Holders {
		if len(chain) == 0 {
			return egress.Owner{}, nil // one that cannot be named makes the whole unknown
		}
		h := egress.Holder{PID: chain[0].PID}
		for _, p := range chain {
			h.Chain = append(h.Chain, o.executable(ctx, p))
		}
		out.Holders = append(out.Holders, h)
		o.remember(h.PID)
	}
	return out, nil
}

func (o *owners) executable(ctx context.Context, p wire.Process) egress.Executable {
	path := p.Exe
	if p.Deleted {
		path = "" // a program without a file has no name that a rule could mean
	}
	return egress.Executable{
		Path:    path,
		Version: identity.Version{Dev: p.Dev, Ino: p.Inode, Size: p.Size, Mtime: p.Mtime, Ctime: p.Ctime},
		Open: func() (*os.File, error) {
			fd, err := o.sb.opened(ctx, &wire.OpenExe{PID: p.PID, Start: p.Start})
			if err != nil {
				return nil, err
			}
			return os.NewFile(uintptr(fd), path), nil
		},
	}
}

func (o *owners) hints() []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.recent)
}

func (o *owners) remember(pid int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.recent = slices.DeleteFunc(o.recent, func(p int) bool { return p == pid })
	o.recent = slices.Insert(o.recent, 0, pid)
	if len(o.recent) > recentOwners {
		o.recent = o.recent[:recentOwners]
	}
}
