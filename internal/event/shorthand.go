package event

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Line returns the one-line form of e that people read and tests grep for:
//
//	NET:OPEN [MED] DENIED /usr/bin/curl(64) -> example.org:443 [policy:- engine:opa] [reason:...]
//
// It never holds a line break or a control character.
func Line(e Event) string {
	e = Clean(e)
	var b strings.Builder
	b.WriteString(classWords[e.Class].prefix)
	if word := e.word(); word != "" {
		b.WriteByte(':')
		b.WriteString(strings.ToUpper(word))
	}
	fmt.Fprintf(&b, " [%s]", severityTags[e.Severity])
	switch e.Class {
	case Network, SSH:
		e.netLine(&b)
	case HTTP:
		e.httpLine(&b)
	case Process:
		fmt.Fprintf(&b, " %s", e.Actor.word())
		if e.ExitCode != nil {
			fmt.Fprintf(&b, " [exit:%d]", *e.ExitCode)
		}
		if e.Message != "" {
			fmt.Fprintf(&b, " [msg:%s]", bracketed(e.Message, maxMsg))
		}
	case Finding:
		e.findingLine(&b)
	case Lifecycle:
		fmt.Fprintf(&b, " %s %s", field(e.App), strings.ToLower(statusNames[e.Status]))
	default: // Config, API, Base: the message is the event
		b.WriteByte(' ')
		b.WriteString(bracketed(e.Message, maxText))
		if len(e.Unmapped) > 0 {
			fmt.Fprintf(&b, " [%s]", joined(e.Unmapped))
		}
	}
	if e.Count > 1 {
		fmt.Fprintf(&b, " [count:%d]", e.Count)
	}
	return b.String()
}

func (e *Event) word() string {
	switch e.Class {
	case Base:
		return ""
	case Config:
		return field(e.State)
	case HTTP:
		if e.Method != "" {
			return field(e.Method)
		}
	case Finding:
		if e.Disposition != DispositionUnknown {
			return dispositionNames[e.Disposition]
		}
	}
	return e.Class.activity(e.Activity)
}

func (e *Event) netLine(b *strings.Builder) {
	e.action(b)
	if e.Actor != nil {
		fmt.Fprintf(b, " %s", e.Actor.word())
	}
	if e.Dst != nil {
		fmt.Fprintf(b, " -> %s", e.Dst.word())
		if e.Protocol != "" && e.Protocol != "tcp" {
			b.WriteString("/" + field(e.Protocol))
		}
	}
	e.ruleAndReason(b)
	if e.Message != "" && e.Dst == nil && e.Detail == "" {
		fmt.Fprintf(b, " [msg:%s]", bracketed(e.Message, maxMsg))
	}
}

func (e *Event) httpLine(b *strings.Builder) {
	e.action(b)
	if e.Actor != nil {
		fmt.Fprintf(b, " %s ->", e.Actor.word())
	}
	fmt.Fprintf(b, " %s %s", field(e.Method), field(e.URL))
	e.ruleAndReason(b)
}

func (e *Event) action(b *strings.Builder) {
	if e.Action != ActionUnknown {
		b.WriteString(" " + strings.ToUpper(actionNames[e.Action]))
	}
}

func (e *Event) ruleAndReason(b *strings.Builder) {
	if e.Rule != "" || e.Engine != "" {
		fmt.Fprintf(b, " [policy:%s engine:%s]", field(orDash(e.Rule)), field(orDash(e.Engine)))
	}
	if e.Action == Denied {
		reason := e.Detail
		if reason == "" {
			reason = e.Message
		}
		if reason != "" {
			fmt.Fprintf(b, " [reason:%s]", bracketed(reason, maxReason))
		}
	}
}

func (e *Event) findingLine(b *strings.Builder) {
	title, uid, evidence := e.Message, "-", []Pair(nil)
	if d := e.Detection; d != nil {
		title, uid, evidence = d.Title, d.UID, d.Evidence
	}
	fmt.Fprintf(b, " %q [type:%s", title, field(uid))
	if len(evidence) > 0 {
		b.WriteString(" " + joined(evidence))
	}
	b.WriteByte(']')
}

func (a *Actor) word() string {
	if a == nil || a.Name == "" {
		return "unknown(0)"
	}
	return field(a.Name) + "(" + strconv.Itoa(a.PID) + ")"
}

func (p *Endpoint) word() string {
	host := p.Domain
	if host == "" {
		host = p.IP
	}
	return net.JoinHostPort(field(orDash(host)), strconv.Itoa(int(p.Port)))
}

// bracketed escapes what could close the bracket that s stands in.
func bracketed(s string, limit int) string {
	if strings.ContainsAny(s, `[]\`) {
		s = strings.NewReplacer(`\u{`, `\u{`, `\x{`, `\x{`, `\`, `\\`, `[`, `\[`, `]`, `\]`).Replace(s)
	}
	return cut(s, limit)
}

// field escapes s where a space would end it.
func field(s string) string {
	if strings.ContainsAny(s, ` []`) {
		s = strings.NewReplacer(" ", `\u{20}`, `[`, `\[`, `]`, `\]`).Replace(s)
	}
	return cut(s, maxName)
}

func joined(in []Pair) string {
	out := make([]string, 0, len(in))
	for _, p := range in {
		out = append(out, field(p.Key)+":"+field(p.Value))
	}
	return strings.Join(out, " ")
}
