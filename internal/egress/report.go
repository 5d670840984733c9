package egress

import (
	"fmt"
	"net/netip"
	"strconv"

	"openshell.dev/openshell/internal/event"
)

// report makes the one event of a denial and adds the narrowest change to it.
func (p *Proxy) report(d *Denial) {
	switch {
	case !d.Asked:
	case p.opts.Change != nil:
		d.Change = p.opts.Change(d.Intent, d.Holder)
	case d.Change == "":
		d.Change = policyLine(d.Intent, d.Holder)
	}
	if d.Cause != nil {
		p.opts.Log.Debug("connection not opened", "host", d.Intent.Host, "port", d.Intent.Port, "err", d.Cause)
	}
	e := event.Event{
		Class: event.Network, Activity: event.NetOpen, Severity: event.Medium, Status: event.Failure,
		Action: event.Denied, Disposition: event.Blocked,
		Actor: actor(d.Holder), Src: endpointOf(d.Client), Dst: destination(d.Intent, netip.Addr{}),
		Rule: orDash(d.Rule), Engine: d.engine(), Protocol: "tcp", Detail: d.Reason,
		Message:  fmt.Sprintf("%s denied %s", verb(d.Intent), what(d.Intent)),
		Unmapped: details(d.Intent, p.current.Load()),
	}
	if d.Code == codeUnreachable {
		e.Activity, e.Severity, e.Action, e.Disposition = event.NetFail, event.Low, event.ActionUnknown, event.DispositionError
		e.Message = "connection to " + d.Intent.Authority() + " failed"
	}
	if d.Intent.How == Forward {
		asRequest(&e, d.Intent)
	}
	if d.Change != "" {
		e.Unmapped = append(e.Unmapped, event.Pair{Key: "narrowest_change", Value: d.Change})
	}
	p.denials.emit(burstKey{d.Intent.Host, d.Intent.Port, d.Holder.Program(), d.Code, d.Reason}, e)
}

// reportAllowed makes the event of a connection that got through.
func (p *Proxy) reportAllowed(s *passage, to netip.AddrPort) {
	e := event.Event{
		Class: event.Network, Activity: event.NetOpen, Severity: event.Informational, Status: event.Success,
		Action: event.Allowed, Disposition: event.DispositionAllowed,
		Actor: actor(s.owner.first()), Src: endpointOf(s.client), Dst: destination(s.intent, to.Addr()),
		Rule: orDash(s.rule()), Engine: "opa", Protocol: "tcp",
		Message:  fmt.Sprintf("%s allowed %s", verb(s.intent), what(s.intent)),
		Unmapped: details(s.intent, s.gen),
	}
	if s.intent.How == Forward {
		asRequest(&e, s.intent)
	}
	p.opts.Events.Emit(e)
}

// asRequest makes e an HTTP event: a forwarded request is one request.
func asRequest(e *event.Event, in Intent) {
	if e.Activity == event.NetFail {
		return // the connection failed, not the request
	}
	e.Class, e.Activity = event.HTTP, event.HTTPActivity(in.Method)
	e.Method, e.URL = in.Method, "http://"+hostField(in)+in.Target
}

// reportCut makes the event of a connection that a new policy ended.
func (p *Proxy) reportCut(l *live, d *Denial) {
	p.denials.total.Add(1)
	p.opts.Events.Emit(event.Event{
		Class: event.Network, Activity: event.NetReset, Severity: event.Medium, Status: event.Failure,
		Action: event.Denied, Disposition: event.Blocked,
		Actor: actor(d.Holder), Src: endpointOf(d.Client), Dst: destination(d.Intent, l.remote.Addr()),
		Rule: orDash(d.Rule), Engine: d.engine(), Protocol: "tcp", Detail: "policy changed: " + d.Reason,
		Message:  fmt.Sprintf("%s cut %s", verb(d.Intent), what(d.Intent)),
		Unmapped: details(d.Intent, p.current.Load()),
	})
}

func verb(in Intent) string {
	if in.How == Forward {
		return "FORWARD"
	}
	return "CONNECT"
}

func what(in Intent) string {
	if in.How == Forward {
		return in.Method + " " + in.Authority() + event.RedactURL(in.Target)
	}
	return in.Authority()
}

func details(in Intent, g *generation) []event.Pair {
	return []event.Pair{{Key: "adapter", Value: in.How.String()}, {Key: "policy_revision", Value: strconv.FormatUint(g.revision, 10)}}
}

func actor(h Holder) *event.Actor {
	a := &event.Actor{Name: h.Program(), PID: h.PID}
	if len(h.Chain) > 1 {
		a.Parent = h.Chain[1].Path
	}
	return a
}

func endpointOf(ap netip.AddrPort) *event.Endpoint {
	if !ap.IsValid() {
		return nil
	}
	return &event.Endpoint{IP: ap.Addr().String(), Port: ap.Port()}
}

func destination(in Intent, addr netip.Addr) *event.Endpoint {
	e := &event.Endpoint{Port: in.Port}
	if in.Addr.IsValid() {
		e.IP = in.Host
	} else {
		e.Domain = in.Host
		if addr.IsValid() {
			e.IP = addr.String()
		}
	}
	return e
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
