package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/model"
)

// Files of a sandbox's directory.
const (
	fileRun     = "run.json"  // the run as we know it
	fileSpec    = "spec.json" // what the supervisor is told
	fileToken   = "token"     // its token
	fileLog     = "supervisor.log"
	fileOutcome = "outcome.json" // why it ended, in its own words
	dirWork     = "workspace"
	dirHome     = "home"
	dirUpper    = "upper"
	dirScratch  = "work"
)

// quickEnd is what a supervisor may take to end at once before it is killed.
const quickEnd = 3 * time.Second

// box is one sandbox of the driver.
type box struct {
	d   *Driver
	id  model.SandboxID
	dir string
	op  sync.Mutex // one operation at a time

	mu   sync.Mutex
	run  run                // guarded by mu
	proc *proc              // the supervisor while it lives; guarded by mu
	prep context.CancelFunc // ends a preparation under way; guarded by mu
	done chan struct{}      // closed when that preparation has ended; guarded by mu
}

// run is what is kept of a run, so that another process can go on with it.
type run struct {
	InstanceID string        `json:"instance_id"`
	State      compute.State `json:"state"`
	Reason     string        `json:"reason,omitempty"`
	Message    string        `json:"message,omitempty"`
	PID        int           `json:"pid,omitempty"`
	StartTime  uint64        `json:"start_time,omitempty"` // in clock ticks since boot
	Boot       string        `json:"boot,omitempty"`
	Image      string        `json:"image,omitempty"` // held in the cache
	Stopping   bool          `json:"-"`               // its end was asked for
	rebooted   bool
}

// outcome is what a supervisor leaves behind when it ends by itself.
type outcome struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

func (b *box) observe() compute.Observation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.observation()
}

func (b *box) observation() compute.Observation {
	return compute.Observation{ID: b.id, InstanceID: b.run.InstanceID, State: b.run.State, Reason: b.run.Reason, Message: b.run.Message, Rebooted: b.run.rebooted}
}

// set changes the run, keeps it on disk and tells the watchers.
func (b *box) set(change func(*run)) {
	b.mu.Lock()
	change(&b.run)
	o := b.observation()
	err := b.save()
	b.mu.Unlock()
	if err != nil {
		b.d.o.Log.Error("run not kept", "sandbox", string(b.id), "err", err)
	}
	b.d.emit(compute.Event{Observation: &o})
}

// save writes run.json; b.mu is held.
func (b *box) save() error {
	body, err := json.Marshal(b.run)
	if err != nil {
		return err
	}
	return replaceFile(b.path(fileRun), body)
}

// adopt reads a directory that an earlier process left.
func (b *box) adopt() error {
	body, err := os.ReadFile(b.path(fileRun))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // killed before the first run: unknown, the gateway decides
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &b.run); err != nil {
		return fmt.Errorf("%s: %w", fileRun, err)
	}
	switch b.run.State {
	case compute.Preparing:
		b.run.rebooted = true // whoever prepared it is gone: to be begun again
	case compute.Running:
		boot, err := bootID()
		if err != nil {
			return err
		}
		if boot != b.run.Boot {
			b.run.rebooted, b.run.State = true, compute.Failed
			b.run.Reason, b.run.Message = model.ReasonComputeMissing, "the host was started anew"
			return nil
		}
		p, err := adoptProc(b.run.PID, b.run.StartTime)
		if err != nil {
			b.run.State = compute.Failed
			b.run.Reason, b.run.Message = b.explain("it ended while the gateway was away")
			return nil
		}
		b.proc = p
		b.follow(p, b.run.InstanceID)
	}
	return nil
}

// begin starts a run; b.op is held and nothing runs.
func (b *box) begin(ctx context.Context, want compute.Desired) error {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return storage(err)
	}
	for _, stale := range []string{fileOutcome} {
		if err := os.Remove(b.path(stale)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return storage(err)
		}
	}
	spec, err := b.spec(want)
	if err != nil {
		return err
	}
	src, err := b.d.source(want.Image)
	if err != nil {
		return err
	}
	if src.host() {
		if err := b.hostFiles(spec); err != nil {
			return err
		}
		return b.spawn(ctx, spec, want)
	}
	prep, cancel := context.WithTimeout(b.d.base, b.d.o.PrepareLimit)
	done := make(chan struct{})
	b.mu.Lock()
	b.prep, b.done = cancel, done
	held := b.run.Image
	b.mu.Unlock()
	b.set(func(r *run) {
		*r = run{InstanceID: want.Run.InstanceID, State: compute.Preparing, Reason: model.ReasonPreparingImage, Message: "preparing " + src.String(), Image: held}
	})
	b.d.work.Go(func() {
		defer close(done)
		defer cancel()
		b.prepare(prep, src, spec, want)
	})
	return nil
}

// prepare gets the image and starts the run.
func (b *box) prepare(ctx context.Context, src source, spec *spec, want compute.Desired) {
	err := b.imageFiles(ctx, src, spec, want)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = b.spawn(ctx, spec, want)
	}
	if err == nil {
		return
	}
	if b.d.base.Err() != nil {
		return // the gateway ends; the next one begins again
	}
	reason, text := model.ReasonStartFailed, err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		reason, text = model.ReasonImagePrepTimedOut, "the image was not ready in time"
	case errors.Is(err, context.Canceled):
		return // stopped or deleted meanwhile
	}
	if h := fault.HintOf(err); h != "" {
		text += " (" + h + ")"
	}
	b.d.o.Log.Warn("image not prepared", "sandbox", string(b.id), "err", fault.Detail(err))
	b.set(func(r *run) { r.State, r.Reason, r.Message = compute.Failed, reason, text })
}

// stop ends the run and returns when no process of it is left; b.op is held.
func (b *box) stop(ctx context.Context, grace time.Duration) error {
	b.mu.Lock()
	prep, prepared := b.prep, b.done
	b.prep = nil
	b.mu.Unlock()
	if prep != nil {
		prep()
		<-prepared
	}
	b.mu.Lock()
	p, state := b.proc, b.run.State
	b.run.Stopping = true
	b.mu.Unlock()
	if p != nil {
		if err := p.end(ctx, grace); err != nil {
			return fault.New(fault.Internal, "the processes of sandbox %s could not be ended", b.id).Cause(err)
		}
		<-p.followed
	} else if state == compute.Preparing || state == compute.Running {
		b.set(func(r *run) { r.State, r.Reason, r.Message = compute.Stopped, "", "" })
	}
	return nil
}

// follow waits for the end of a supervisor and says what it means. It keeps
// no operation waiting: stop waits for it.
func (b *box) follow(p *proc, instance string) {
	b.d.work.Go(func() {
		defer close(p.followed)
		text, ended := p.wait(b.d.base)
		if !ended {
			return // the gateway ends, the sandbox goes on
		}
		b.set(func(r *run) {
			b.proc = nil
			if r.InstanceID != instance {
				return
			}
			if r.Stopping {
				r.State, r.Reason, r.Message = compute.Stopped, "", ""
				return
			}
			r.State = compute.Failed
			r.Reason, r.Message = b.explain(text)
		})
	})
}

// explain says why a supervisor ended: in its own words if it left any.
func (b *box) explain(seen string) (reason, message string) {
	if body, err := os.ReadFile(b.path(fileOutcome)); err == nil {
		var o outcome
		if json.Unmarshal(body, &o) == nil && o.Reason != "" {
			return o.Reason, o.Message
		}
	}
	return model.ReasonProcessExited, "the supervisor of the sandbox ended: " + seen
}

// remove deletes the directory and lets the image go; b.op is held.
func (b *box) remove() error {
	b.mu.Lock()
	held := b.run.Image
	b.mu.Unlock()
	if held != "" {
		if cache, err := b.d.images(); err == nil {
			if err := cache.Unhold(held, b.dir); err != nil {
				b.d.o.Log.Warn("image not released", "sandbox", string(b.id), "err", err)
			}
		}
	}
	if err := removeTree(b.dir); err != nil {
		return fault.New(fault.Internal, "the files of sandbox %s could not be removed", b.id).Cause(err)
	}
	return nil
}

// removeTree deletes a directory, also below directories that were made
// unwritable.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	root, rerr := os.OpenRoot(dir)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	defer root.Close()
	_ = fs.WalkDir(rootFS{root}, ".", func(path string, d fs.DirEntry, err error) error {
		return nil // rootFS opens each directory after it made it writable
	})
	return os.RemoveAll(dir)
}

// rootFS makes every directory it lists writable first. It cannot leave its
// root, whatever links a sandbox made.
type rootFS struct{ root *os.Root }

// Open implements fs.FS.
func (r rootFS) Open(name string) (fs.File, error) { return r.root.Open(name) }

// ReadDir implements fs.ReadDirFS.
func (r rootFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := r.root.Chmod(name, 0o700); err != nil {
		return nil, err
	}
	f, err := r.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

func replaceFile(path string, body []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// storage says what a file operation in the state directory means.
func storage(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.New(fault.Exhausted, "no space is left for the sandbox's files").Hint("free some space, then try again").Cause(err)
	}
	return fault.New(fault.PermissionDenied, "the sandbox's files cannot be written").Cause(err)
}
