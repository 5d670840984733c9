package event

import (
	"regexp"
	"strings"
)

// The words that stand for what was taken out.
const (
	Redacted       = "[redacted]"
	RedactedSecret = "[CREDENTIAL]"
)

// credentialShapes are texts that look like a credential wherever they stand.
// It is the second net: nothing that knows a secret may put it into an event.
var credentialShapes = regexp.MustCompile(
	`(?i:bearer|basic|token)[ =:]+[A-Za-z0-9+/._~=-]{12,}` +
		`|\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}` +
		`|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}` +
		`|\bxox[abprs]-[A-Za-z0-9-]{10,}` +
		`|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b` +
		`|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`)

// needles cheaply rule out most texts before the expression runs.
var needles = []string{"earer", "EARER", "asic", "ASIC", "oken", "OKEN", "sk-", "pk-", "rk-", "gh", "xox", "AKIA", "ASIA", "eyJ"}

// Redact replaces what looks like a credential in s.
func Redact(s string) string {
	if len(s) < 12 {
		return s
	}
	for _, n := range needles {
		if strings.Contains(s, n) {
			return credentialShapes.ReplaceAllString(s, RedactedSecret)
		}
	}
	return s
}

// RedactURL removes user information, query and fragment from a URL or a
// request target, and what looks like a credential from the rest.
func RedactURL(u string) string {
	if i := strings.IndexByte(u, '#'); i >= 0 {
		u = u[:i]
	}
	if i := strings.IndexByte(u, '?'); i >= 0 && !strings.HasSuffix(u, "?"+Redacted) {
		u = u[:i] + "?" + Redacted
	}
	start := 0
	if i := strings.Index(u, "://"); i >= 0 {
		start = i + 3
		end := len(u)
		if j := strings.IndexAny(u[start:], "/?"); j >= 0 {
			end = start + j
		}
		if j := strings.LastIndexByte(u[start:end], '@'); j >= 0 {
			u = u[:start] + u[start+j+1:]
		}
	}
	return Redact(u)
}
