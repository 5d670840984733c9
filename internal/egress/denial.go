package egress

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"openshell.dev/openshell/internal/event"
)

// The error words of denial bodies, part of the 0.1.x contract.
const (
	codePolicy      = "policy_denied"
	codeAddress     = "ssrf_denied"
	codeUnreachable = "upstream_unreachable"
	codeAuthority   = "request_authority_mismatch"
	codeProtocol    = "unsupported_l7_protocol"
	codeScheme      = "unsupported_proxy_scheme"
)

// Denial says why an intent did not get through.
type Denial struct {
	Code   string // policy_denied, ssrf_denied, upstream_unreachable, ...
	Rule   string // the rule that decided, empty for none
	Reason string
	Change string // the narrowest change that would allow it, empty if there is none
	Intent Intent
	Holder Holder // the process refused
	Client netip.AddrPort
	Asked  bool  // the policy was asked, and could allow it if it were changed
	Cause  error // private
	told   bool  // its event is made
}

func (s *passage) denied(code, rule, reason string) *Denial {
	if reason == "" {
		reason = "network connections not allowed by policy"
	}
	return &Denial{Code: code, Rule: rule, Reason: reason, Intent: s.intent, Holder: s.owner.first(), Client: s.client}
}

func (s *passage) failed(reason string, cause error) *Denial {
	d := s.denied(codeUnreachable, s.rule(), reason)
	d.Cause = cause
	return d
}

// status returns the HTTP status of the denial.
func (d *Denial) status() int {
	switch d.Code {
	case codeUnreachable:
		return 502
	case codeScheme:
		return 400
	}
	return 403
}

// detail is the sentence of the contract for this denial.
func (d *Denial) detail() string {
	in := d.Intent
	what := "CONNECT " + in.Authority()
	if in.How == Forward {
		what = in.Method + " " + in.Authority() + event.RedactURL(in.Target)
	}
	switch d.Code {
	case codeAddress:
		return what + " blocked: " + d.Reason
	case codeUnreachable:
		return "connection to " + in.Authority() + " failed"
	case codePolicy:
		return what + " not permitted by policy"
	}
	return d.Reason
}

// body is the JSON a program gets: the members of the contract first, then
// what an agent needs to ask for the narrowest change.
func (d *Denial) body() []byte {
	b, err := json.Marshal(struct {
		Error  string `json:"error"`
		Detail string `json:"detail"`
		Reason string `json:"reason,omitempty"`
		Layer  string `json:"layer"`
		Host   string `json:"host,omitempty"`
		Port   uint16 `json:"port,omitempty"`
		Binary string `json:"binary,omitempty"`
		Rule   string `json:"policy,omitempty"`
		Change string `json:"narrowest_change,omitempty"`
	}{d.Code, event.Text(d.detail(), 1024), event.Text(event.Redact(d.Reason), 1024), "l4",
		d.Intent.Host, d.Intent.Port, event.Text(d.Holder.Program(), 512), d.Rule, event.Text(d.Change, 1024)})
	if err != nil { // strings and a number: cannot happen
		return []byte("{}")
	}
	return b
}

// response is the whole HTTP answer.
func (d *Denial) response() []byte { return response(d.status(), d.body()) }

func response(status int, body []byte) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, statusText[status], len(body), body)
}

// Answers to what could not be read, without a body (0.1.x contract).
var (
	badRequest   = []byte("HTTP/1.1 400 Bad Request\r\n\r\n")
	headTooLarge = []byte("HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n")
)

var statusText = map[int]string{
	400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway",
}

// policyLine words the narrowest change as a rule that can be pasted below
// network_policies: one host, one port, one program.
func policyLine(in Intent, h Holder) string {
	if in.Host == "" || in.Port == 0 || h.Program() == "" || strings.ContainsAny(h.Program(), "*?[]{}\\") {
		return "" // unknown, or it would be read as a pattern
	}
	return fmt.Sprintf("%s: {endpoints: [{host: %q, port: %d}], binaries: [{path: %q}]}",
		ruleName(in), in.Host, in.Port, h.Program())
}

func ruleName(in Intent) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, in.Host) + fmt.Sprintf("_%d", in.Port)
}

// engine names the check that decided, as the contract's events do.
func (d *Denial) engine() string {
	switch d.Code {
	case codeAddress:
		return "ssrf"
	case codeAuthority:
		return "request-authority"
	case codeProtocol, codeScheme:
		return "http-parser"
	}
	return "opa"
}
