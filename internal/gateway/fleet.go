package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/store"
)

// fleet is every sandbox of this gateway, in memory and in step with the
// store: one gateway owns its database, so memory is as true as the disk.
type fleet struct {
	g *Gateway

	mu    sync.RWMutex
	boxes map[string]*box // by id; guarded by mu
	named map[string]*box // by workspace and name; guarded by mu
	empty time.Time       // since when there is none; guarded by mu
}

// box is one sandbox of the fleet.
type box struct {
	id     string
	ops    sync.Mutex // one driver call at a time
	policy sync.Mutex // one change of the policy at a time
	hub    *hub       // its logs and events

	mu      sync.Mutex
	rec     *record       // replaced, never changed; guarded by mu, held over its write
	changed chan struct{} // closed and replaced at every change; guarded by mu
	sess    *session      // live supervisor, or nil; guarded by mu
	timer   *time.Timer   // next deadline or restart; guarded by mu
	gone    bool          // deleted; guarded by mu
}

func nameKey(workspace, name string) string { return workspace + "\x00" + name }

// get returns the current record.
func (b *box) get() *record {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rec
}

// watchRecord returns the current record and what is closed when it changes.
func (b *box) watchRecord() (*record, <-chan struct{}, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rec, b.changed, b.gone
}

// session returns the live session, or nil.
func (b *box) session() *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sess
}

// load reads the sandboxes of an earlier process.
func (f *fleet) load(ctx context.Context) error {
	q := store.Query{Kind: kindSandbox, AllWorkspaces: true, Limit: store.MaxLimit}
	for {
		page, err := f.g.opts.Store.List(ctx, q)
		if err != nil {
			return fmt.Errorf("load the sandboxes: %w", err)
		}
		for _, s := range page {
			r, err := fromStore(s)
			if err != nil {
				return err
			}
			f.add(r)
		}
		if len(page) < store.MaxLimit {
			break
		}
		q.After = store.KeyOf(q, page[len(page)-1])
	}
	f.mu.Lock()
	if len(f.boxes) == 0 {
		f.empty = time.Now()
	}
	f.mu.Unlock()
	return nil
}

func (f *fleet) add(r *record) *box {
	b := &box{id: r.id, rec: r, changed: make(chan struct{}), hub: newHub()}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.boxes[r.id], f.named[nameKey(r.workspace, r.name)] = b, b
	f.empty = time.Time{}
	return b
}

// byName finds a sandbox, or a NotFound fault.
func (f *fleet) byName(workspace, name string) (*box, error) {
	if name == "" {
		return nil, invalid("name", "name is required")
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if b := f.named[nameKey(workspace, name)]; b != nil {
		return b, nil
	}
	return nil, fault.New(fault.NotFound, "sandbox not found")
}

// byID finds a sandbox, or a NotFound fault.
func (f *fleet) byID(id string) (*box, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if b := f.boxes[id]; b != nil {
		return b, nil
	}
	return nil, fault.New(fault.NotFound, "sandbox not found")
}

func (f *fleet) all() []*box {
	f.mu.RLock()
	defer f.mu.RUnlock()
	out := make([]*box, 0, len(f.boxes))
	for _, b := range f.boxes {
		out = append(out, b)
	}
	return out
}

func (f *fleet) idleSince() time.Time {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.empty
}

// create stores a new sandbox.
func (f *fleet) create(ctx context.Context, r *record) (*box, error) {
	s, err := r.toStore()
	if err != nil {
		return nil, err
	}
	stored, err := f.g.opts.Store.Put(ctx, s)
	if errors.Is(err, store.ErrExists) {
		return nil, fault.New(fault.AlreadyExists, "sandbox '%s' already exists", r.name)
	}
	if err != nil {
		return nil, err
	}
	r.version, r.created = stored.Version, stored.Created
	b := f.add(r)
	b.mu.Lock()
	f.arm(b)
	b.mu.Unlock()
	return b, nil
}

// update changes a sandbox: change gets a copy and reports whether it did
// anything. What it returns is stored before anybody sees it.
func (f *fleet) update(ctx context.Context, b *box, change func(*record) (bool, error)) (*record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return nil, fault.New(fault.NotFound, "sandbox not found")
	}
	next := b.rec.clone()
	changed, err := change(next)
	if err != nil || !changed {
		return b.rec, err
	}
	s, err := next.toStore()
	if err != nil {
		return b.rec, err
	}
	stored, err := f.g.opts.Store.Put(context.WithoutCancel(ctx), s)
	if err != nil {
		return b.rec, err
	}
	next.version = stored.Version
	before := b.rec.s.Life
	b.rec = next
	close(b.changed)
	b.changed = make(chan struct{})
	f.arm(b)
	if l := next.s.Life; l.Phase != before.Phase || l.Reason != before.Reason {
		f.g.log.LogAttrs(ctx, slog.LevelInfo, "sandbox phase changed", slog.String("sandbox", b.id),
			slog.String("phase", l.Phase.String()), slog.String("reason", l.Reason))
		b.hub.platform(f.g.now(), l.Phase, l.Reason, l.Message)
	}
	return next, nil
}

// life is update for those who only move the lifecycle.
func (f *fleet) life(ctx context.Context, b *box, change func(*model.Lifecycle) bool) (*record, error) {
	return f.update(ctx, b, func(r *record) (bool, error) { return change(&r.s.Life), nil })
}

// forget removes a sandbox whose compute is gone, with all that belongs to it.
func (f *fleet) forget(ctx context.Context, b *box) error {
	ctx = context.WithoutCancel(ctx)
	if err := f.g.dropSSH(ctx, b.id); err != nil {
		return err
	}
	if err := f.g.dropPolicies(ctx, b.id); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return nil
	}
	if err := f.g.opts.Store.Delete(ctx, kindSandbox, b.id, 0); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	b.gone = true
	if b.timer != nil {
		b.timer.Stop()
	}
	close(b.changed)
	b.changed = make(chan struct{})
	b.hub.close()
	f.mu.Lock()
	delete(f.boxes, b.id)
	if key := nameKey(b.rec.workspace, b.rec.name); f.named[key] == b {
		delete(f.named, key)
	}
	if len(f.boxes) == 0 {
		f.empty = time.Now()
	}
	f.mu.Unlock()
	return nil
}

// wait returns when ok says so, the sandbox is gone, or ctx ends.
func (b *box) wait(ctx context.Context, ok func(*record) bool) (*record, error) {
	for {
		r, changed, gone := b.watchRecord()
		if gone {
			return r, fault.New(fault.NotFound, "sandbox not found")
		}
		if ok(r) {
			return r, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}

// arm sets the timer for the next moment at which the clock alone changes
// something; b.mu is held.
func (f *fleet) arm(b *box) {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	l := &b.rec.s.Life
	at := l.Deadline
	if !l.NextRestart.IsZero() && (at.IsZero() || l.NextRestart.Before(at)) {
		at = l.NextRestart
	}
	if at.IsZero() || f.g.base.Err() != nil {
		return
	}
	b.timer = time.AfterFunc(max(0, at.Sub(f.g.now())), func() { f.tick(b) })
}

// detached runs work that outlives the call that asked for it; the gateway
// waits for it when it closes.
func (g *Gateway) detached(work func(ctx context.Context)) {
	g.work.Add(1)
	go func() {
		defer g.work.Done()
		work(g.base)
	}()
}

// until runs work detached and waits for it for at most limit. It reports
// whether the work is done.
func (g *Gateway) until(ctx context.Context, limit time.Duration, work func(ctx context.Context) error) (bool, error) {
	done := make(chan error, 1)
	g.detached(func(ctx context.Context) { done <- work(ctx) })
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return true, err
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
