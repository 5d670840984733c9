package event

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The longest texts kept. Longer ones are cut and end with an ellipsis.
const (
	maxName   = 512  // hosts, paths, rules, keys
	maxText   = 1024 // messages, reasons
	maxPairs  = 64
	ellipsis  = "..."
	maxReason = 256 // in the shorthand
	maxMsg    = 120 // in the shorthand
)

// Text makes s harmless: control characters, line and paragraph separators,
// format characters (bidirectional overrides, zero width) and invalid UTF-8
// become \u{hex}; a backslash before u{ is doubled by nobody, the form is for
// people. At most limit bytes are kept.
func Text(s string, limit int) string {
	if isPlain(s) && len(s) <= limit {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n <= 1:
			fmt.Fprintf(&b, `\x{%02x}`, s[i])
		case unsafeRune(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteRune(r)
		}
		i += n
		if b.Len() > limit {
			return cut(b.String(), limit)
		}
	}
	return b.String()
}

func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

func unsafeRune(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs) ||
		r > unicode.MaxRune
}

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	n := max(limit-len(ellipsis), 0)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + ellipsis
}

// Clean returns e with every text made harmless, bounded and redacted, and
// with a time. It copies what it changes. Cleaning twice changes nothing.
func Clean(e Event) Event {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Message = Text(Redact(e.Message), maxText)
	e.Detail = Text(Redact(e.Detail), maxText)
	e.Rule, e.Engine, e.Protocol = Text(e.Rule, maxName), Text(e.Engine, maxName), Text(e.Protocol, maxName)
	e.Method, e.URL = Text(e.Method, maxName), Text(RedactURL(e.URL), maxText)
	e.State, e.App = Text(e.State, maxName), Text(e.App, maxName)
	e.Src, e.Dst, e.Proxy = e.Src.clean(), e.Dst.clean(), e.Proxy.clean()
	if e.Actor != nil {
		e.Actor = &Actor{Name: Text(e.Actor.Name, maxName), PID: e.Actor.PID,
			Command: Text(Redact(e.Actor.Command), maxText), Parent: Text(e.Actor.Parent, maxName)}
	}
	if d := e.Detection; d != nil {
		e.Detection = &Detection{UID: Text(d.UID, maxName), Title: Text(Redact(d.Title), maxText),
			Description: Text(Redact(d.Description), maxText), Remedy: Text(Redact(d.Remedy), maxText),
			Evidence: cleanPairs(d.Evidence)}
	}
	e.Unmapped = cleanPairs(e.Unmapped)
	return e
}

func (p *Endpoint) clean() *Endpoint {
	if p == nil {
		return nil
	}
	return &Endpoint{Domain: Text(p.Domain, maxName), IP: Text(p.IP, maxName), Port: p.Port}
}

func cleanPairs(in []Pair) []Pair {
	if len(in) == 0 {
		return nil
	}
	out := slices.Clone(in[:min(len(in), maxPairs)])
	for i, p := range out {
		out[i] = Pair{Text(p.Key, maxName), Text(Redact(p.Value), maxText)}
	}
	return out
}
