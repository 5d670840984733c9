package egress

import (
	"context"
	"net"
	"time"

	"openshell.dev/openshell/internal/event"
)

// Connection takes over one arrival and handles it in a goroutine of its own.
func (p *Proxy) Connection(ctx context.Context, a Arrival) {
	if !p.conns.enter(p.limits.Connections) {
		s := &passage{intent: Intent{Host: a.Original.Addr().String(), Addr: a.Original.Addr(), Port: a.Original.Port(), How: Transparent}, client: a.Client}
		d := s.denied(codePolicy, "", "too many connections at once")
		p.report(d)
		reset(a.Stream)
		return
	}
	go func() {
		defer p.conns.leave()
		// Serve's context ends the accepting; connections outlive it until
		// Close says otherwise.
		p.handle(context.WithoutCancel(ctx), &a)
	}()
}

func (p *Proxy) handle(ctx context.Context, a *Arrival) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Once connections are cut, nobody waits for an owner, a name, a dial or
	// the client's next byte.
	stream := a.Stream
	defer context.AfterFunc(p.aborted, func() {
		cancel()
		reset(stream)
	})()
	if a.Explicit {
		p.explicit(ctx, a)
		return
	}
	p.transparent(ctx, a)
}

// admit runs an intent up to its open upstream and reports either way. With
// a denial the caller tells the program in its own protocol.
func (p *Proxy) admit(ctx context.Context, a *Arrival, in Intent) (*live, *Denial) {
	s, d := p.authorise(ctx, a, in)
	if d == nil {
		var upstream net.Conn
		l := &live{client: a.Stream}
		l.passage.Store(s)
		if upstream, l.remote, d = p.connect(ctx, s); d == nil {
			l.upstream = upstream
			if d = p.enlist(l); d == nil {
				p.reportAllowed(s, l.remote)
				return l, nil
			}
			reset(upstream)
		}
	}
	if !d.told {
		p.report(d)
	}
	return nil, d
}

// enlist makes l live. If the policy changed while it was being opened, it is
// asked again, until the revision that allowed it is the one in force: from
// there on SetPolicy finds it.
func (p *Proxy) enlist(l *live) *Denial {
	p.live.add(l)
	for {
		g, s := p.current.Load(), l.passage.Load()
		if g == s.gen {
			return nil
		}
		again := *s
		d := again.evaluate(g)
		if d == nil {
			d = again.checkAddress(p, g, l.remote.Addr())
		}
		if d != nil {
			// SetPolicy may have found it at the same time, and told it.
			d.told = l.dead.Swap(true)
			p.live.remove(l)
			return d
		}
		l.passage.Store(&again)
	}
}

// carry relays an admitted connection until it ends.
func (p *Proxy) carry(l *live) {
	defer p.live.remove(l)
	_ = l.client.SetDeadline(time.Time{})
	_ = l.upstream.SetDeadline(time.Time{})
	l.relay()
	_ = l.upstream.Close()
	_ = l.client.Close()
}

// malformed closes a connection that no adapter understood, with an answer if
// there is one in its protocol, and makes the event.
func (p *Proxy) malformed(a *Arrival, how How, why string, answer []byte) {
	p.denials.emit(burstKey{a.Client.Addr().String(), 0, how.String(), "malformed", why}, event.Event{
		Class: event.Network, Activity: event.NetRefuse, Severity: event.Medium, Status: event.Failure,
		Action: event.Denied, Disposition: event.Rejected, Src: endpointOf(a.Client), Dst: endpointOf(a.Original),
		Rule: "-", Engine: "http-parser", Protocol: "tcp", Detail: why,
		Message:  "proxy request not understood",
		Unmapped: []event.Pair{{Key: "adapter", Value: how.String()}},
	})
	if answer == nil {
		reset(a.Stream)
		return
	}
	p.answer(a.Stream, answer)
}
