package egress

import (
	"sync"
	"sync/atomic"
	"time"

	"openshell.dev/openshell/internal/event"
)

// burstKey is what makes two denials alike.
type burstKey struct {
	host    string
	port    uint16
	program string
	code    string
	reason  string
}

// maxBursts bounds the table. When it is full, alike denials are no longer
// recognised: each makes an event of its own, and the sink's bound holds.
const maxBursts = 1024

// bursts emits the first denial of a kind at once and sums up its repetitions
// in one event when the window closes.
type bursts struct {
	sink   event.Sink
	window time.Duration
	total  atomic.Uint64 // denials, repetitions included

	mu   sync.Mutex
	open map[burstKey]*burst // kinds seen within the window
}

type burst struct {
	event   event.Event
	started time.Time
	last    time.Time
	repeats int // since the event that was emitted
}

func newBursts(sink event.Sink, window time.Duration) *bursts {
	return &bursts{sink: sink, window: window, open: map[burstKey]*burst{}}
}

func (b *bursts) emit(key burstKey, e event.Event) {
	b.total.Add(1)
	now := time.Now()
	e.Time = now
	b.mu.Lock()
	if known := b.open[key]; known != nil {
		known.repeats++
		known.last = now
		b.mu.Unlock()
		return
	}
	if len(b.open) < maxBursts {
		b.open[key] = &burst{event: e, started: now, last: now}
	}
	b.mu.Unlock()
	b.sink.Emit(e)
}

// flush sums up the windows that are over at now; all of them for the zero time.
func (b *bursts) flush(now time.Time) {
	var out []event.Event
	b.mu.Lock()
	for key, one := range b.open {
		if !now.IsZero() && now.Sub(one.started) < b.window {
			continue
		}
		delete(b.open, key)
		if one.repeats > 0 {
			e := one.event
			e.Time, e.Count, e.First, e.Last = one.last, one.repeats, one.started, one.last
			out = append(out, e)
		}
	}
	b.mu.Unlock()
	for _, e := range out {
		b.sink.Emit(e)
	}
}
