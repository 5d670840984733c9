// Package egress is the outside half's proxy: the only way out of a sandbox.
//
// A Source yields what a sandbox sends: connections with the destination the
// program meant, and DNS questions. One adapter per protocol (transparent TCP,
// CONNECT, absolute-form HTTP/1.1, SOCKS5) turns a connection into an Intent;
// from there all go the same way, in this order: owner, intent, verdict, one
// resolution, address rules, dial of exactly a checked address, relay.
//
// It guarantees that an unknown owner is denied, that the name decided is the
// name resolved and the address checked is the address dialled, that a name
// the policy does not know is never asked upstream, that a denial is seen by
// the program at once and by an operator as one event, and that a new policy
// cuts exactly the connections it no longer allows. It does not parse
// policies, look up processes, or make namespaces; it stores nothing and holds
// no credential. The supervisor's body and `run` may call it.
package egress

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"openshell.dev/openshell/internal/event"
	"openshell.dev/openshell/internal/identity"
)

// Options sets up a Proxy. Only Policy is required.
type Options struct {
	Policy   Policy
	Revision uint64 // of Policy, for events
	// Resolver asks for the names the policy allows; the host's by default.
	Resolver Resolver
	// Dial opens a connection to a checked address; plain TCP by default.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Pins holds the executables seen so far; a fresh set by default.
	Pins *identity.Pins
	// Events takes allows and denials; forgotten by default.
	Events event.Sink
	Log    *slog.Logger
	// HostAddress is what the host alias stands for (the host as this sandbox
	// may reach it). Invalid: the alias leads nowhere.
	HostAddress netip.Addr
	// Hostname is the sandbox's own name and Self its own address, for DNS.
	Hostname string
	Self     netip.Addr
	// Own lists the addresses that belong to the sandbox itself; they are
	// never dialled. Loopback needs no mention.
	Own []netip.Prefix
	// UnknownNames says how the policy DNS treats names no rule mentions.
	UnknownNames UnknownNames
	// Change words the narrowest change that would allow a denied intent, in
	// place of what the policy says itself.
	Change func(Intent, Holder) string
	Limits Limits
}

// Limits bounds what a sandbox can make the proxy hold. Zero fields take the
// default beside them.
type Limits struct {
	Connections int           // 4096 at a time; more are reset
	Handshake   time.Duration // 10 s for a proxy request or greeting
	Peek        time.Duration // 300 ms to learn what a denied client speaks
	OwnerWait   time.Duration // 5 s to find the owner
	Resolve     time.Duration // 10 s for one name
	Dial        time.Duration // 10 s for one address, 30 s for all
	Idle        time.Duration // 2 h without a byte (RFC 5382 section 5)
	HalfClosed  time.Duration // 10 min without a byte once one side has ended
	Burst       time.Duration // 10 s in which equal denials count as one event
}

func (l Limits) withDefaults() Limits {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	if l.Connections <= 0 {
		l.Connections = 4096
	}
	def(&l.Handshake, 10*time.Second)
	def(&l.Peek, 300*time.Millisecond)
	def(&l.OwnerWait, 5*time.Second)
	def(&l.Resolve, 10*time.Second)
	def(&l.Dial, 10*time.Second)
	def(&l.Idle, 2*time.Hour)
	def(&l.HalfClosed, 10*time.Minute)
	def(&l.Burst, 10*time.Second)
	return l
}

// Proxy enforces one sandbox's policy on its traffic. Safe for many goroutines.
type Proxy struct {
	opts    Options
	limits  Limits
	current atomic.Pointer[generation]
	names   *names
	denials *bursts
	live    *registry
	conns   tracker       // connections being handled
	closing chan struct{} // closed by Close
	once    sync.Once
	// aborted ends when Close no longer waits for connections.
	aborted context.Context
	abort   context.CancelFunc
}

// New returns a proxy that waits for Serve.
func New(opts Options) *Proxy {
	if opts.Policy == nil {
		opts.Policy = denyAll{}
	}
	if opts.Resolver == nil {
		opts.Resolver = net.DefaultResolver
	}
	if opts.Dial == nil {
		opts.Dial = dialTCP
	}
	if opts.Pins == nil {
		opts.Pins = identity.NewPins()
	}
	if opts.Events == nil {
		opts.Events = event.Discard
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{opts: opts, limits: opts.Limits.withDefaults(), names: newNames(), live: newRegistry(), closing: make(chan struct{})}
	p.aborted, p.abort = context.WithCancel(context.Background())
	p.denials = newBursts(opts.Events, p.limits.Burst)
	p.current.Store(&generation{policy: opts.Policy, revision: opts.Revision})
	return p
}

// Serve handles what the source yields until the context or the source ends,
// then waits until every connection is gone: Close cuts them.
func (p *Proxy) Serve(ctx context.Context, s Source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { p.housekeep(ctx) })
	wg.Go(func() {
		select {
		case <-p.closing:
			cancel()
		case <-ctx.Done():
		}
	})
	err := s.Serve(ctx, p)
	cancel()
	wg.Wait()
	<-p.conns.empty()
	p.denials.flush(time.Time{})
	return err
}

// Close ends Serve: nothing new is taken, and live connections are given until
// the context ends to finish before they are cut. It returns when all are gone.
func (p *Proxy) Close(ctx context.Context) {
	p.once.Do(func() { close(p.closing) })
	done := p.conns.empty()
	select {
	case <-done:
	case <-ctx.Done():
		p.abort()
		p.live.cutAll()
		<-done
	}
}

// housekeep cuts idle connections and closes bursts of denials until ctx ends.
func (p *Proxy) housekeep(ctx context.Context) {
	tick := min(p.limits.Idle/8, p.limits.HalfClosed/8, p.limits.Burst/2, 30*time.Second)
	t := time.NewTicker(max(tick, 10*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			p.live.sweep(now, p.limits.Idle, p.limits.HalfClosed)
			p.denials.flush(now)
		}
	}
}

// Stats is what a proxy did so far.
type Stats struct {
	Open     int    // connections being handled now
	Relayed  int    // of them, with an upstream
	Allowed  uint64 // connections opened upstream
	Denied   uint64 // connections and questions refused
	Sent     uint64 // bytes from the sandbox
	Received uint64 // bytes to the sandbox
	Names    int    // names with an address of their own
}

// Stats counts.
func (p *Proxy) Stats() Stats {
	s := p.live.stats()
	s.Open = p.conns.count()
	s.Denied = p.denials.total.Load()
	s.Names = p.names.len()
	return s
}
