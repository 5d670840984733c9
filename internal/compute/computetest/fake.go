package computetest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/model"
)

// Fake is a driver that runs nothing. OnRun, if set, is called for every run
// and plays the supervisor; its context ends with the run.
type Fake struct {
	// OnRun must not block.
	OnRun func(ctx context.Context, d compute.Desired)
	// CreateErr, if set, is what Create answers.
	CreateErr error
	// Image makes the driver prepare until Prepared is called.
	Slow bool

	mu    sync.Mutex
	boxes map[model.SandboxID]*fakeBox
	sinks map[int]func(compute.Event)
	next  int
	tell  sync.Mutex // one event at a time
}

type fakeBox struct {
	obs  compute.Observation
	d    compute.Desired
	stop context.CancelFunc
}

var _ compute.Driver = (*Fake)(nil)

// Describe implements compute.Driver.
func (f *Fake) Describe(context.Context) (compute.Description, error) {
	return compute.Description{Name: "fake", Version: "0", DefaultImage: "host", CPULimits: true, MemoryLimits: true}, nil
}

// Create implements compute.Driver.
func (f *Fake) Create(ctx context.Context, d compute.Desired) error {
	if f.CreateErr != nil {
		return f.CreateErr
	}
	f.mu.Lock()
	b := f.boxes[d.ID]
	f.mu.Unlock()
	if b != nil && b.obs.InstanceID == d.Run.InstanceID {
		return nil
	}
	return f.Start(ctx, d)
}

// Start implements compute.Driver.
func (f *Fake) Start(_ context.Context, d compute.Desired) error {
	ctx, cancel := context.WithCancel(context.Background())
	f.mu.Lock()
	if f.boxes == nil {
		f.boxes = map[model.SandboxID]*fakeBox{}
	}
	if old := f.boxes[d.ID]; old != nil {
		old.stop()
	}
	state := compute.Running
	if f.Slow {
		state = compute.Preparing
	}
	b := &fakeBox{d: d, stop: cancel, obs: compute.Observation{ID: d.ID, InstanceID: d.Run.InstanceID, State: state}}
	f.boxes[d.ID] = b
	f.mu.Unlock()
	f.emit(compute.Event{Observation: &compute.Observation{ID: d.ID, InstanceID: d.Run.InstanceID, State: state}})
	if f.OnRun != nil && !f.Slow {
		f.OnRun(ctx, d)
	}
	return nil
}

// Stop implements compute.Driver.
func (f *Fake) Stop(_ context.Context, id model.SandboxID, _ time.Duration) error {
	f.end(id, compute.Stopped, "", "")
	return nil
}

// Delete implements compute.Driver.
func (f *Fake) Delete(_ context.Context, id model.SandboxID) error {
	f.end(id, compute.Stopped, "", "")
	f.mu.Lock()
	delete(f.boxes, id)
	f.mu.Unlock()
	return nil
}

// List implements compute.Driver.
func (f *Fake) List(context.Context) ([]compute.Observation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []compute.Observation
	for _, b := range f.boxes {
		out = append(out, b.obs)
	}
	return out, nil
}

// Watch implements compute.Driver.
func (f *Fake) Watch(ctx context.Context, sink func(compute.Event)) error {
	f.tell.Lock()
	f.mu.Lock()
	if f.sinks == nil {
		f.sinks = map[int]func(compute.Event){}
	}
	f.next++
	key := f.next
	f.sinks[key] = sink
	var now []compute.Observation
	for _, b := range f.boxes {
		now = append(now, b.obs)
	}
	f.mu.Unlock()
	for _, o := range now {
		sink(compute.Event{Observation: &o})
	}
	f.tell.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	delete(f.sinks, key)
	f.mu.Unlock()
	return ctx.Err()
}

// Kill ends a run as a crash would.
func (f *Fake) Kill(id model.SandboxID) {
	f.end(id, compute.Failed, model.ReasonProcessExited, "the supervisor was ended by signal 9 (killed)")
}

// Desired returns what was last asked for.
func (f *Fake) Desired(id model.SandboxID) (compute.Desired, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.boxes[id]
	if b == nil {
		return compute.Desired{}, false
	}
	return b.d, true
}

// Note tells the watchers about progress.
func (f *Fake) Note(n compute.Note) { f.emit(compute.Event{Note: &n}) }

func (f *Fake) end(id model.SandboxID, state compute.State, reason, message string) {
	f.mu.Lock()
	b := f.boxes[id]
	if b == nil || b.obs.State == compute.Stopped || b.obs.State == compute.Failed {
		f.mu.Unlock()
		return
	}
	b.obs.State, b.obs.Reason, b.obs.Message = state, reason, message
	o := b.obs
	f.mu.Unlock()
	b.stop()
	f.emit(compute.Event{Observation: &o})
}

func (f *Fake) emit(e compute.Event) {
	f.mu.Lock()
	sinks := slices.Collect(maps.Values(f.sinks))
	f.mu.Unlock()
	f.tell.Lock()
	defer f.tell.Unlock()
	for _, s := range sinks {
		s(e)
	}
}
