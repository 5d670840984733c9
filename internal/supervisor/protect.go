package supervisor

import (
	"context"
	"strings"
	"time"

	"openshell.dev/openshell/internal/event"
	"openshell.dev/openshell/internal/launch/wire"
)

// sendPlan sends the plan together with the lock of the placeholders, which
// pid 1 keeps: they stay as long as the sandbox, even without this process.
func (s *Sandbox) sendPlan(plan *wire.Plan) error {
	if lock := s.view.Lock(); lock != nil {
		return s.launch.conn.Send(0, plan, int(lock.Fd()))
	}
	return s.launch.conn.Send(0, plan)
}

// watchAfter is when a sandbox begins to watch its protections. What the host
// lifted before then is put back at that moment.
const watchAfter = 250 * time.Millisecond

// keepProtections watches for programs of the host that replace a protected
// file (git config does): the kernel then takes our mount away with the old
// one, and pid 1 puts it back on the new one.
func (s *Sandbox) keepProtections() {
	if len(s.view.Carved) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.onClose(cancel)
	s.finish.Go(func() {
		select { // ending a watch costs milliseconds: a short run has none
		case <-ctx.Done():
			return
		case <-time.After(watchAfter):
		}
		s.renew(ctx) // what happened before
		if err := s.view.Watch(ctx, func() { s.renew(ctx) }); err != nil && ctx.Err() == nil {
			s.events.Emit(event.Degraded("protections", "replacement of a protected file by the host will not be noticed"))
			s.log.Warn("protections are not watched", "err", err)
		}
	})
}

func (s *Sandbox) renew(ctx context.Context) {
	f, err := s.ask(ctx, nil, &wire.Renew{})
	if err != nil {
		return // the sandbox has ended
	}
	var m wire.Done
	if err := f.Unmarshal(&m); err != nil || !m.OK {
		s.events.Emit(event.Degraded("protections", strings.TrimSpace("a protection that the host lifted could not be renewed: "+m.Detail)))
	}
}

// ExplainMissing says why a program of the host is not found inside, with the
// flag that would show it, or nil.
func (s *Sandbox) ExplainMissing(path string) error { return s.view.Explain(path) }
