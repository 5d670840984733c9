package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/model"
)

// orphanGrace is how long compute without a record is left alone.
const orphanGrace = 5 * time.Minute

// run follows the driver until ctx ends. A watch that fails is begun again.
func (f *fleet) run(ctx context.Context) error {
	for {
		err := f.g.opts.Driver.Watch(ctx, func(e compute.Event) { f.observe(ctx, e) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.g.log.Warn("the driver's watch ended, beginning again", "err", err)
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// observe takes in what a driver saw.
func (f *fleet) observe(ctx context.Context, e compute.Event) {
	if n := e.Note; n != nil {
		if b, err := f.byID(string(n.ID)); err == nil {
			b.hub.event(n.Time, f.g.driver.Name, n.Type, n.Reason, n.Message, nil)
			if _, err := f.life(ctx, b, func(l *model.Lifecycle) bool {
				return l.Reason == model.ReasonPreparingImage && l.Progress(f.g.now(), n.InstanceID, model.ReasonPreparingImage, n.Message)
			}); err != nil {
				f.g.log.Error("progress not stored", "sandbox", b.id, "err", err)
			}
		}
		return
	}
	o := e.Observation
	b, err := f.byID(string(o.ID))
	if err != nil {
		f.orphan(o)
		return
	}
	if _, err := f.life(ctx, b, func(l *model.Lifecycle) bool { return f.apply(l, o) }); err != nil {
		f.g.log.Error("observation not stored", "sandbox", b.id, "err", fault.Detail(err))
	}
}

// apply moves a lifecycle by an observation.
func (f *fleet) apply(l *model.Lifecycle, o *compute.Observation) bool {
	now := f.g.now()
	switch o.State {
	case compute.Preparing:
		return l.Progress(now, o.InstanceID, model.ReasonPreparingImage, o.Message)
	case compute.Running:
		// From here on the start limit counts, not the image's.
		changed := l.Running(now, o.InstanceID)
		if changed && !l.Deadline.IsZero() {
			l.Deadline = now.Add(f.g.opts.StartLimit)
		}
		return changed
	case compute.Stopped:
		return l.Gone(now, o.InstanceID, model.ReasonComputeMissing, "the compute of the sandbox was stopped from outside")
	case compute.Failed:
		return l.Gone(now, o.InstanceID, o.Reason, o.Message)
	}
	return false
}

// orphan deletes compute that nobody asked for, after a while in which a
// record might still appear.
func (f *fleet) orphan(o *compute.Observation) {
	f.g.log.Warn("compute without a record", "sandbox", string(o.ID))
	f.g.detached(func(ctx context.Context) {
		select {
		case <-time.After(orphanGrace):
		case <-ctx.Done():
			return
		}
		if _, err := f.byID(string(o.ID)); err == nil {
			return
		}
		if err := f.g.opts.Driver.Delete(ctx, o.ID); err != nil {
			f.g.log.Error("orphan not deleted", "sandbox", string(o.ID), "err", fault.Detail(err))
		}
	})
}

// tick does what is due by the clock.
func (f *fleet) tick(b *box) {
	if f.g.base.Err() != nil {
		return
	}
	r := b.get()
	l := &r.s.Life
	if !l.NextRestart.IsZero() {
		f.g.detached(func(ctx context.Context) { f.restart(ctx, b) })
		return
	}
	expired := false
	if _, err := f.life(f.g.base, b, func(l *model.Lifecycle) bool {
		expired = l.Expired(f.g.now())
		return expired
	}); err != nil {
		f.g.log.Error("deadline not stored", "sandbox", b.id, "err", err)
	}
	if expired { // the compute is given back, the record stays
		f.g.detached(func(ctx context.Context) {
			b.ops.Lock()
			defer b.ops.Unlock()
			f.drop(b, "the sandbox took too long to start")
			if err := f.g.opts.Driver.Stop(ctx, model.SandboxID(b.id), 0); err != nil {
				f.g.log.Error("compute not stopped", "sandbox", b.id, "err", fault.Detail(err))
			}
		})
	}
}

// restart begins the run that the restart policy asked for.
func (f *fleet) restart(ctx context.Context, b *box) {
	b.ops.Lock()
	defer b.ops.Unlock()
	begun := false
	r, err := f.life(ctx, b, func(l *model.Lifecycle) bool {
		now := f.g.now()
		begun = !now.Before(l.NextRestart) && l.Restart(now, newID(), now.Add(f.g.opts.StartLimit))
		return begun
	})
	if err != nil {
		f.g.log.Error("restart not stored", "sandbox", b.id, "err", fault.Detail(err))
		return
	}
	if begun {
		f.drop(b, "the main process is restarted")
		f.launch(ctx, b, r, f.g.opts.Driver.Start)
	}
}

// launch asks the driver for the current run; b.ops is held. A driver that
// refuses makes the run a failed one.
func (f *fleet) launch(ctx context.Context, b *box, r *record, start func(context.Context, compute.Desired) error) error {
	d, err := f.g.desired(ctx, r)
	if err == nil {
		err = start(ctx, d)
	}
	if err == nil {
		return nil
	}
	f.g.log.LogAttrs(ctx, slog.LevelError, "run not started", slog.String("sandbox", b.id), slog.String("err", fault.Detail(err)))
	text := "the run could not be started"
	if k := fault.KindOf(err); k != fault.Internal {
		text = err.Error()
	}
	if _, uerr := f.life(ctx, b, func(l *model.Lifecycle) bool {
		return l.Gone(f.g.now(), r.s.Life.InstanceID, model.ReasonStartFailed, text)
	}); uerr != nil {
		f.g.log.Error("failed start not stored", "sandbox", b.id, "err", fault.Detail(uerr))
	}
	return err
}

// recover resumes what an earlier process left: what ran is waited for, what
// was being stopped or deleted is, and what a reboot took is started again.
func (f *fleet) recover(ctx context.Context) error {
	observed := map[string]compute.Observation{}
	list, err := f.g.opts.Driver.List(ctx)
	if err != nil {
		return fmt.Errorf("ask the driver what it has: %w", err)
	}
	for _, o := range list {
		observed[string(o.ID)] = o
	}
	for _, b := range f.all() {
		o, known := observed[b.id]
		f.recoverOne(ctx, b, o, known)
	}
	return nil
}

// doubt takes back, before anybody asks, what an earlier process knew and we
// do not: that a supervisor is connected.
func (f *fleet) doubt(ctx context.Context) error {
	now := f.g.now()
	for _, b := range f.all() {
		if _, err := f.life(ctx, b, func(l *model.Lifecycle) bool { return l.Recover(now, now.Add(f.g.opts.StartLimit)) }); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) recoverOne(ctx context.Context, b *box, o compute.Observation, known bool) {
	switch l := b.get().s.Life; l.Phase {
	case model.PhaseDeleting:
		f.g.detached(func(ctx context.Context) { f.finishDelete(ctx, b) })
	case model.PhaseStopping:
		f.g.detached(func(ctx context.Context) { f.finishStop(ctx, b) })
	case model.PhaseProvisioning, model.PhaseStarting:
		if !l.NextRestart.IsZero() || (known && o.InstanceID == l.InstanceID && !o.Rebooted && o.State != compute.Unknown) {
			return // the watch tells the rest
		}
		f.g.log.Info("starting a sandbox again after a restart of the host", "sandbox", b.id)
		f.g.detached(func(ctx context.Context) {
			b.ops.Lock()
			defer b.ops.Unlock()
			start := f.g.opts.Driver.Start
			if !known {
				start = f.g.opts.Driver.Create
			}
			r, err := f.life(ctx, b, func(l *model.Lifecycle) bool {
				l.InstanceID, l.Reported, l.MainStarted = newID(), false, time.Time{}
				return true
			})
			if err == nil {
				err = f.launch(ctx, b, r, start)
			}
			if err != nil {
				f.g.log.Error("sandbox not started again", "sandbox", b.id, "err", fault.Detail(err))
			}
		})
	}
}

// finishStop ends the compute of a sandbox in phase Stopping.
func (f *fleet) finishStop(ctx context.Context, b *box) error {
	b.ops.Lock()
	defer b.ops.Unlock()
	if err := f.g.opts.Driver.Stop(ctx, model.SandboxID(b.id), f.g.opts.StopGrace); err != nil {
		return err
	}
	f.drop(b, "the sandbox is stopped")
	if err := f.g.dropSSH(ctx, b.id); err != nil {
		return err
	}
	_, err := f.life(ctx, b, func(l *model.Lifecycle) bool { return l.Stopped(f.g.now()) })
	return err
}

// finishDelete ends a sandbox in phase Deleting.
func (f *fleet) finishDelete(ctx context.Context, b *box) error {
	b.ops.Lock()
	defer b.ops.Unlock()
	f.drop(b, "the sandbox is deleted")
	if err := f.g.opts.Driver.Delete(ctx, model.SandboxID(b.id)); err != nil {
		f.g.log.Error("sandbox not deleted", "sandbox", b.id, "err", fault.Detail(err))
		return err
	}
	return f.forget(ctx, b)
}

// desired is what the driver is told about a record's current run.
func (g *Gateway) desired(ctx context.Context, r *record) (compute.Desired, error) {
	token, _, err := g.opts.Tokens.Mint(model.SandboxID(r.id), r.s.Life.InstanceID)
	if err != nil {
		return compute.Desired{}, fmt.Errorf("mint a sandbox token: %w", err)
	}
	spec := r.spec
	d := compute.Desired{
		ID: model.SandboxID(r.id), Name: r.name, Workspace: r.workspace, Image: spec.GetTemplate().GetImage(),
		Command: spec.GetCommand(), TTY: spec.GetTty() || len(spec.GetCommand()) == 0, Env: map[string]string{},
		Run: compute.Run{InstanceID: r.s.Life.InstanceID, Endpoint: g.opts.SupervisorEndpoint, CAFile: g.opts.SupervisorCA, Token: token,
			AwaitAttachment: r.s.Await && r.s.Life.RestartCount == 0, OutageLimit: g.opts.OutageLimit},
	}
	maps.Copy(d.Env, spec.GetTemplate().GetEnvironment())
	maps.Copy(d.Env, spec.GetEnvironment())
	if d.Limits, err = limitsOf(spec); err != nil {
		return compute.Desired{}, err
	}
	if c, ok := spec.GetTemplate().GetDriverConfig().AsMap()[g.driver.Name].(map[string]any); ok {
		d.Config = c
	}
	d.Policy, d.PolicyVersion, err = g.effectivePolicy(ctx, r)
	return d, err
}
