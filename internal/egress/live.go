package egress

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// live is one connection with an upstream.
type live struct {
	client   Stream
	upstream net.Conn
	passage  atomic.Pointer[passage] // as the newest policy saw it
	remote   netip.AddrPort          // the address dialled
	early    []byte                  // sent by the client before the upstream was open

	up, down atomic.Uint64 // bytes from and to the sandbox
	half     atomic.Bool   // one side has ended
	dead     atomic.Bool   // cut was called

	seen  uint64    // bytes at the last sweep; the sweeper's own
	quiet time.Time // since when nothing moved; the sweeper's own
}

// cut ends both sides at once with a reset, so that nobody takes what was
// received for the whole. It returns false if it was cut before.
func (l *live) cut() bool {
	if l.dead.Swap(true) {
		return false
	}
	reset(l.upstream)
	reset(l.client)
	return true
}

// reset closes c with a TCP reset where it can.
func reset(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// registry is the set of live connections and what the finished ones moved.
type registry struct {
	mu       sync.Mutex
	set      map[*live]struct{} // connections with an upstream
	allowed  uint64             // connections ever added
	sent     uint64             // bytes of connections that ended
	received uint64             // bytes of connections that ended
	closed   bool               // cutAll was called: what is added now is cut
}

func newRegistry() *registry { return &registry{set: map[*live]struct{}{}} }

func (r *registry) add(l *live) {
	r.mu.Lock()
	r.set[l] = struct{}{}
	r.allowed++
	closed := r.closed
	r.mu.Unlock()
	if closed {
		l.cut()
	}
}

func (r *registry) remove(l *live) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.set, l)
	r.sent += l.up.Load()
	r.received += l.down.Load()
}

func (r *registry) all() []*live {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*live, 0, len(r.set))
	for l := range r.set {
		out = append(out, l)
	}
	return out
}

func (r *registry) cutAll() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	for _, l := range r.all() {
		l.cut()
	}
}

// sweep cuts the connections on which nothing moved for too long. Reading two
// counters here spares the relay a clock on every read.
func (r *registry) sweep(now time.Time, idle, half time.Duration) {
	for _, l := range r.all() {
		moved := l.up.Load() + l.down.Load()
		if moved != l.seen || l.quiet.IsZero() {
			l.seen, l.quiet = moved, now
			continue
		}
		limit := idle
		if l.half.Load() {
			limit = half
		}
		if now.Sub(l.quiet) >= limit {
			l.cut()
		}
	}
}

func (r *registry) stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stats{Relayed: len(r.set), Allowed: r.allowed, Sent: r.sent, Received: r.received}
	for l := range r.set {
		s.Sent += l.up.Load()
		s.Received += l.down.Load()
	}
	return s
}

// tracker counts what is running. Unlike a WaitGroup it may be waited for
// while more is still being added.
type tracker struct {
	mu    sync.Mutex
	n     int             // running now
	zeros []chan struct{} // closed when n is next zero
}

// enter counts one more unless limit are running.
func (t *tracker) enter(limit int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n >= limit {
		return false
	}
	t.n++
	return true
}

func (t *tracker) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 {
		for _, z := range t.zeros {
			close(z)
		}
		t.zeros = nil
	}
}

func (t *tracker) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// empty returns a channel that is closed once nothing runs.
func (t *tracker) empty() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	z := make(chan struct{})
	if t.n == 0 {
		close(z)
	} else {
		t.zeros = append(t.zeros, z)
	}
	return z
}
