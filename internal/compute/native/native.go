// Package native runs sandboxes as processes of this host.
//
// It owns a directory for each sandbox and the supervisor process in it: it
// writes the description, executes openshell-supervisor in a session of its
// own, watches the process by pidfd, and knows it again after a restart of the
// gateway by pid and start time. Stopping keeps the directory, deleting leaves
// nothing. It enforces nothing itself; what happens inside is the
// supervisor's work, and it links none of it.
package native

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/image"
	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/sibling"
)

// Options set the driver up.
type Options struct {
	Dir          string // one directory for each sandbox below it; mode 0700
	Supervisor   string // the program; empty: beside this one, then on PATH
	DefaultImage string // what an empty image means; empty: host
	PullPolicy   string
	CacheDir     string // of images; empty: the account's
	Catalogue    string // a file that extends the shipped catalogue
	Registry     string // prefix of community images
	AllowConfig  bool   // driver_config of callers is taken
	// PrepareLimit bounds the preparation of an image; 0: 30 minutes.
	PrepareLimit time.Duration
	Log          *slog.Logger
}

// Driver is the native driver. Use Open.
type Driver struct {
	o    Options
	pull image.Policy

	mu    sync.Mutex
	boxes map[model.SandboxID]*box // guarded by mu
	sinks []chan compute.Event     // guarded by mu
	cache *image.Cache             // opened when the first image is asked for; guarded by mu
	work  sync.WaitGroup
	base  context.Context
	end   context.CancelFunc
}

var _ compute.Driver = (*Driver)(nil)

// Open reads what an earlier process left and watches what still runs.
func Open(o Options) (*Driver, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.DefaultImage == "" {
		o.DefaultImage = image.Host.String()
	}
	if o.PrepareLimit <= 0 {
		o.PrepareLimit = 30 * time.Minute
	}
	if o.Supervisor == "" {
		path, err := sibling.Find(brand.Supervisor)
		if err != nil {
			return nil, err
		}
		o.Supervisor = path
	}
	policy, err := image.ParsePolicy(strings.ReplaceAll(o.PullPolicy, "_", ""))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fault.New(fault.PermissionDenied, "cannot make %s", o.Dir).Cause(err)
	}
	base, end := context.WithCancel(context.Background())
	d := &Driver{o: o, pull: policy, boxes: map[model.SandboxID]*box{}, base: base, end: end}
	return d, d.load()
}

// Close ends watching. Sandboxes go on.
func (d *Driver) Close() {
	d.end()
	d.work.Wait()
}

// Describe implements compute.Driver.
func (d *Driver) Describe(context.Context) (compute.Description, error) {
	return compute.Description{Name: "native", Version: brand.Version, DefaultImage: d.o.DefaultImage, CPULimits: true, MemoryLimits: true}, nil
}

// load reads the directories of an earlier process.
func (d *Driver) load() error {
	entries, err := os.ReadDir(d.o.Dir)
	if err != nil {
		return fault.New(fault.PermissionDenied, "cannot list %s", d.o.Dir).Cause(err)
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		b := &box{d: d, id: model.SandboxID(e.Name()), dir: filepath.Join(d.o.Dir, e.Name())}
		if err := b.adopt(); err != nil {
			d.o.Log.Warn("sandbox directory not understood", "sandbox", e.Name(), "err", err)
		}
		d.boxes[b.id] = b
	}
	return nil
}

// box returns the sandbox, made if need be.
func (d *Driver) box(id model.SandboxID, create bool) *box {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.boxes[id]
	if b == nil && create {
		b = &box{d: d, id: id, dir: filepath.Join(d.o.Dir, string(id))}
		d.boxes[id] = b
	}
	return b
}

// Create implements compute.Driver.
func (d *Driver) Create(ctx context.Context, want compute.Desired) error {
	if err := checkID(want.ID); err != nil {
		return err
	}
	b := d.box(want.ID, true)
	b.op.Lock()
	defer b.op.Unlock()
	if o := b.observe(); o.InstanceID == want.Run.InstanceID && o.State != compute.Unknown {
		return nil
	}
	return b.begin(ctx, want)
}

// Start implements compute.Driver.
func (d *Driver) Start(ctx context.Context, want compute.Desired) error {
	if err := checkID(want.ID); err != nil {
		return err
	}
	b := d.box(want.ID, true)
	b.op.Lock()
	defer b.op.Unlock()
	if err := b.stop(ctx, 0); err != nil {
		return err
	}
	return b.begin(ctx, want)
}

// Stop implements compute.Driver.
func (d *Driver) Stop(ctx context.Context, id model.SandboxID, grace time.Duration) error {
	b := d.box(id, false)
	if b == nil {
		return nil
	}
	b.op.Lock()
	defer b.op.Unlock()
	return b.stop(ctx, grace)
}

// Delete implements compute.Driver.
func (d *Driver) Delete(ctx context.Context, id model.SandboxID) error {
	b := d.box(id, false)
	if b == nil {
		return nil
	}
	b.op.Lock()
	defer b.op.Unlock()
	if err := b.stop(ctx, 0); err != nil {
		return err
	}
	if err := b.remove(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.boxes[id] == b {
		delete(d.boxes, id)
	}
	return nil
}

// List implements compute.Driver.
func (d *Driver) List(context.Context) ([]compute.Observation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]compute.Observation, 0, len(d.boxes))
	for _, b := range d.boxes {
		out = append(out, b.observe())
	}
	return out, nil
}

// watchBuffer is how far a watcher may lag before it is cut off and has to
// begin again with a fresh look at everything.
const watchBuffer = 1024

// Watch implements compute.Driver.
func (d *Driver) Watch(ctx context.Context, f func(compute.Event)) error {
	ch := make(chan compute.Event, watchBuffer)
	d.mu.Lock()
	d.sinks = append(d.sinks, ch)
	var now []compute.Observation
	for _, b := range d.boxes {
		now = append(now, b.observe())
	}
	d.mu.Unlock()
	defer d.unwatch(ch)
	for _, o := range now {
		f(compute.Event{Observation: &o})
	}
	for {
		select {
		case e, ok := <-ch:
			if !ok {
				return errors.New("the watcher was too slow")
			}
			f(e)
		case <-ctx.Done():
			return ctx.Err()
		case <-d.base.Done():
			return nil
		}
	}
}

func (d *Driver) unwatch(ch chan compute.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, c := range d.sinks {
		if c == ch {
			d.sinks = append(d.sinks[:i], d.sinks[i+1:]...)
			return
		}
	}
}

func (d *Driver) emit(e compute.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.sinks[:0]
	for _, ch := range d.sinks {
		select {
		case ch <- e:
			kept = append(kept, ch)
		default:
			close(ch)
		}
	}
	d.sinks = kept
}

// checkID refuses what would not be one path element.
func checkID(id model.SandboxID) error {
	s := string(id)
	if s == "" || len(s) > 128 || strings.HasPrefix(s, ".") || strings.ContainsAny(s, "/\x00") {
		return fault.New(fault.InvalidArgument, "sandbox id %q is not valid", s)
	}
	return nil
}
