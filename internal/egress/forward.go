package egress

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"openshell.dev/openshell/internal/brand"
)

// forward handles one absolute-form request. Exactly one: the connection is
// closed after its answer, so nothing that follows can reach a host that was
// not decided. What goes upstream is written again from what was parsed.
func (p *Proxy) forward(ctx context.Context, a *Arrival, h *head, rest []byte) {
	f, answer, why := readForward(h)
	if why != "" {
		p.malformed(a, Forward, why, answer)
		return
	}
	in, d := p.explicitIntent(f.intent, a)
	if d == nil && f.code != "" {
		s := &passage{intent: in, client: a.Client}
		d = s.denied(f.code, "", f.why)
		p.report(d)
	}
	var l *live
	if d == nil {
		l, d = p.admit(ctx, a, in)
	}
	if d != nil {
		p.answer(a.Stream, d.response())
		return
	}
	defer p.live.remove(l)
	_ = a.Stream.SetDeadline(time.Time{})
	f.exchange(l, rest)
}

// request is a forwarded request that is ready to go.
type request struct {
	intent  Intent
	head    *head
	drop    []string // fields that belong to this hop
	body    framing
	upgrade bool        // to WebSocket
	broken  atomic.Bool // the body from the client was not well-formed
	code    string      // a refusal that needs no verdict
	why     string
}

// readForward checks a request and makes its intent. Where why is set, answer
// is given and nothing else happens.
func readForward(h *head) (f *request, answer []byte, why string) {
	bad := badRequest
	scheme, rest, ok := strings.Cut(h.target, "://")
	if !ok || !isToken(scheme) {
		return nil, bad, "the request target is not in absolute form"
	}
	switch strings.ToLower(scheme) {
	case "http":
	case "https":
		return nil, plainText(400, "Use CONNECT for HTTPS URLs"), "https in absolute form"
	default:
		return nil, response(400, []byte(`{"error":"`+codeScheme+`","detail":"only http URLs can be forwarded"}`)), "unsupported scheme"
	}
	authority, path := rest, "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, path = rest[:i], rest[i:]
		if path[0] == '?' {
			path = "/" + path
		}
	}
	host, addr, port, err := parseAuthority(authority, 80)
	if err != nil {
		return nil, bad, "the authority of the request target: " + err.Error()
	}
	f = &request{head: h, intent: Intent{Host: host, Addr: addr, Port: port, How: Forward, Method: h.method, Target: path}}
	if err := f.check(); err != nil {
		return nil, bad, err.Error()
	}
	return f, nil, ""
}

// check reads the fields that decide where the request goes and where it ends.
func (f *request) check() (err error) {
	h := f.head
	if f.body, err = h.framing(); err != nil {
		return err
	}
	if f.drop, err = h.list("Connection"); err != nil {
		return err
	}
	for _, name := range []string{"host", "content-length", "transfer-encoding"} {
		if slices.Contains(f.drop, name) {
			return syntax("Connection names " + name)
		}
	}
	hosts := h.all("Host")
	if len(hosts) > 1 || len(hosts) == 0 && h.minor == '1' {
		return syntax("not exactly one Host")
	}
	if len(hosts) == 1 {
		host, _, port, err := parseAuthority(hosts[0], 80)
		if err != nil {
			return syntax("Host")
		}
		if host != f.intent.Host || port != f.intent.Port {
			f.code, f.why = codeAuthority, "Host does not name the destination of the request target"
		}
	}
	upgrade, err := h.list("Upgrade")
	if err != nil {
		return err
	}
	switch {
	case slices.Contains(upgrade, "h2c"):
		f.code, f.why = codeProtocol, "an upgrade to h2c cannot be forwarded"
	case slices.Equal(upgrade, []string{"websocket"}) && slices.Contains(f.drop, "upgrade"):
		if h.method != "GET" || f.body.kind != bodyNone || h.minor != '1' {
			return syntax("a WebSocket upgrade")
		}
		f.upgrade = true
	}
	return nil
}

// hopFields end at this proxy (RFC 9110, 7.6.1).
var hopFields = []string{"connection", "proxy-connection", "proxy-authorization", "proxy-authenticate", "keep-alive", "upgrade", "host", "te", "http2-settings"}

// bytes is the head that goes upstream.
func (f *request) bytes() []byte {
	in := f.intent
	b := fmt.Appendf(nil, "%s %s HTTP/1.%c\r\nHost: %s\r\n", f.head.method, in.Target, f.head.minor, hostField(in))
	var extra []field
	if f.upgrade {
		extra = append(extra, field{"Connection", "Upgrade"}, field{"Upgrade", "websocket"})
	}
	if len(f.head.all("Via")) == 0 {
		extra = append(extra, field{"Via", "1.1 " + brand.Launcher})
	}
	return f.head.write(b, func(name string) bool {
		return !slices.Contains(hopFields, name) && !slices.Contains(f.drop, name)
	}, extra...)
}

func hostField(in Intent) string {
	host := in.Host
	if in.Addr.Is6() {
		host = "[" + host + "]"
	}
	if in.Port == 80 {
		return host
	}
	return host + ":" + strconv.Itoa(int(in.Port))
}

func plainText(status int, text string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, statusText[status], len(text), text)
}
