// Package computetest is the suite that every driver passes.
//
// It owns the contract of compute.Driver as tests and a fake driver for tests
// of the gateway. Nothing of the product links it.
package computetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/secret"
)

// Fixture is a driver under test.
type Fixture struct {
	Driver compute.Driver
	// Endpoint and Token go into every run.
	Endpoint string
	// Kill ends the run of a sandbox from outside, as a crash would.
	Kill func(t *testing.T, id model.SandboxID)
	// Left lists what exists on the host for the sandbox; used after Delete.
	Left func(t *testing.T, id model.SandboxID) []string
	// Reopen returns a driver over the same state, as after a restart of the
	// gateway; the old one is not used any more. Nil skips those tests.
	Reopen func(t *testing.T) compute.Driver
}

// Run checks the contract. open is called once for each test.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	for _, tt := range []struct {
		name string
		body func(t *testing.T, f Fixture)
	}{
		{"a life", life},
		{"everything is idempotent", idempotent},
		{"a crash is observed with a reason", crash},
		{"start replaces a run", replace},
		{"two sandboxes are apart", apart},
		{"a restart of the gateway adopts", adopt},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.body(t, open(t)) })
	}
}

func desired(f Fixture, id, instance string) compute.Desired {
	return compute.Desired{ID: model.SandboxID(id), Name: "n-" + id, Workspace: "default", Command: []string{"sleep", "600"},
		Run: compute.Run{InstanceID: instance, Endpoint: f.Endpoint, Token: secret.New("token-" + id)}}
}

// watcher collects observations.
type watcher struct {
	mu   sync.Mutex
	seen []compute.Observation
	wake chan struct{}
}

func watch(t *testing.T, d compute.Driver) *watcher {
	t.Helper()
	w := &watcher{wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Watch(ctx, func(e compute.Event) {
			if e.Observation == nil {
				return
			}
			w.mu.Lock()
			w.seen = append(w.seen, *e.Observation)
			w.mu.Unlock()
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}); err != nil && ctx.Err() == nil {
			t.Errorf("Watch: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *watcher) until(t *testing.T, what string, ok func(compute.Observation) bool) compute.Observation {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		w.mu.Lock()
		for _, o := range w.seen {
			if ok(o) {
				w.mu.Unlock()
				return o
			}
		}
		seen := fmt.Sprintf("%+v", w.seen)
		w.mu.Unlock()
		select {
		case <-w.wake:
		case <-limit:
			t.Fatalf("never seen: %s; seen %s", what, seen)
		}
	}
}

func (w *watcher) running(t *testing.T, instance string) {
	t.Helper()
	w.until(t, instance+" running", func(o compute.Observation) bool {
		if o.InstanceID == instance && o.State == compute.Failed {
			t.Fatalf("%s failed: %s: %s", instance, o.Reason, o.Message)
		}
		return o.InstanceID == instance && o.State == compute.Running
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func state(t *testing.T, d compute.Driver, id string) compute.State {
	t.Helper()
	list, err := d.List(t.Context())
	must(t, err)
	for _, o := range list {
		if string(o.ID) == id {
			return o.State
		}
	}
	return compute.Unknown
}

func life(t *testing.T, f Fixture) {
	ctx, w := t.Context(), watch(t, f.Driver)
	must(t, f.Driver.Create(ctx, desired(f, "a", "run1")))
	w.running(t, "run1")
	if got := state(t, f.Driver, "a"); got != compute.Running {
		t.Errorf("state = %v, want Running", got)
	}
	must(t, f.Driver.Stop(ctx, "a", time.Second))
	if got := state(t, f.Driver, "a"); got != compute.Stopped {
		t.Errorf("state = %v, want Stopped", got)
	}
	must(t, f.Driver.Start(ctx, desired(f, "a", "run2")))
	w.running(t, "run2")
	must(t, f.Driver.Delete(ctx, "a"))
	if got := state(t, f.Driver, "a"); got != compute.Unknown {
		t.Errorf("state after Delete = %v", got)
	}
	if left := f.Left(t, "a"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func idempotent(t *testing.T, f Fixture) {
	ctx, w := t.Context(), watch(t, f.Driver)
	must(t, f.Driver.Stop(ctx, "never", time.Second))
	must(t, f.Driver.Delete(ctx, "never"))
	for range 2 {
		must(t, f.Driver.Create(ctx, desired(f, "a", "run1")))
	}
	w.running(t, "run1")
	for range 2 {
		must(t, f.Driver.Stop(ctx, "a", time.Second))
	}
	for range 2 {
		must(t, f.Driver.Delete(ctx, "a"))
	}
}

func crash(t *testing.T, f Fixture) {
	ctx, w := t.Context(), watch(t, f.Driver)
	must(t, f.Driver.Create(ctx, desired(f, "a", "run1")))
	w.running(t, "run1")
	f.Kill(t, "a")
	o := w.until(t, "the crash", func(o compute.Observation) bool { return o.InstanceID == "run1" && o.State == compute.Failed })
	if o.Reason == "" || o.Message == "" {
		t.Errorf("a crash without a reason: %+v", o)
	}
	must(t, f.Driver.Delete(ctx, "a"))
	if left := f.Left(t, "a"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func replace(t *testing.T, f Fixture) {
	ctx, w := t.Context(), watch(t, f.Driver)
	must(t, f.Driver.Create(ctx, desired(f, "a", "run1")))
	w.running(t, "run1")
	must(t, f.Driver.Start(ctx, desired(f, "a", "run2")))
	w.running(t, "run2")
	list, err := f.Driver.List(ctx)
	must(t, err)
	if len(list) != 1 || list[0].InstanceID != "run2" {
		t.Errorf("list = %+v, want run2 only", list)
	}
	must(t, f.Driver.Delete(ctx, "a"))
}

func apart(t *testing.T, f Fixture) {
	ctx, w := t.Context(), watch(t, f.Driver)
	must(t, f.Driver.Create(ctx, desired(f, "a", "run-a")))
	must(t, f.Driver.Create(ctx, desired(f, "b", "run-b")))
	w.running(t, "run-a")
	w.running(t, "run-b")
	must(t, f.Driver.Delete(ctx, "a"))
	if got := state(t, f.Driver, "b"); got != compute.Running {
		t.Errorf("b is %v after a was deleted", got)
	}
	must(t, f.Driver.Delete(ctx, "b"))
}

func adopt(t *testing.T, f Fixture) {
	if f.Reopen == nil {
		t.Skip("needs a driver that outlives its process")
	}
	ctx, w := t.Context(), watch(t, f.Driver)
	must(t, f.Driver.Create(ctx, desired(f, "a", "run1")))
	w.running(t, "run1")
	d := f.Reopen(t)
	if got := state(t, d, "a"); got != compute.Running {
		t.Fatalf("state after reopening = %v, want Running", got)
	}
	again := watch(t, d)
	f.Kill(t, "a")
	again.until(t, "the crash after reopening", func(o compute.Observation) bool { return o.State == compute.Failed })
	must(t, d.Delete(ctx, "a"))
	if left := f.Left(t, "a"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
