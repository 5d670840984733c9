package egress

import (
	"context"
	"net/netip"
)

// transparent handles a connection caught on its way to an address: a
// synthetic one stands for the name that the policy DNS gave it to, any other
// stands for itself. Nothing of the client's bytes is waited for, so that
// protocols in which the server speaks first work.
func (p *Proxy) transparent(ctx context.Context, a *Arrival) {
	in, why := p.destination(a)
	if why != "" {
		s := &passage{intent: in, client: a.Client}
		d := s.denied(codeAddress, "", why)
		if o, err := p.owner(ctx, a); err == nil {
			d.Holder = o.first()
		}
		p.report(d)
		p.refuseRaw(a.Stream, d)
		return
	}
	l, d := p.admit(ctx, a, in)
	switch {
	case d == nil:
		p.carry(l)
	case d.Code == codeUnreachable:
		reset(a.Stream) // nothing a server would say may be made up
	default:
		p.refuseRaw(a.Stream, d)
	}
}

// destination turns the original destination into an intent, or says why it
// cannot be one.
func (p *Proxy) destination(a *Arrival) (in Intent, why string) {
	addr := a.Original.Addr().Unmap()
	in = Intent{Host: addr.String(), Addr: addr, Port: a.Original.Port(), How: Transparent}
	if !addr.IsValid() || addr.Zone() != "" {
		in.Host, in.Addr = "unknown", netip.Addr{}
		return in, "the destination of the connection is not known"
	}
	// A program that connects straight to the capture port shows that port as
	// its destination: dialling it would be a loop.
	if addr.IsLoopback() || p.ownAddress(a) {
		return in, "an address of the sandbox itself"
	}
	return p.named(in)
}

func (p *Proxy) ownAddress(a *Arrival) bool {
	for _, own := range p.opts.Own {
		if own.Contains(a.Original.Addr().Unmap()) {
			return true
		}
	}
	return p.opts.Self.IsValid() && p.opts.Self.Unmap() == a.Original.Addr().Unmap()
}

// named replaces a synthetic address by its name. A synthetic address that
// was never given out stands for nothing.
func (p *Proxy) named(in Intent) (Intent, string) {
	if !in.Addr.IsValid() || !p.names.owns(in.Addr) {
		return in, ""
	}
	name, ok := p.names.name(in.Addr)
	if !ok {
		return in, "an address that stands for no name in this sandbox"
	}
	in.Host, in.Addr = name, netip.Addr{}
	return in, ""
}
