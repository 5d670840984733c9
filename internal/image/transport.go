package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	dialTimeout   = 15 * time.Second
	headerTimeout = 60 * time.Second
	stallTimeout  = 60 * time.Second
	answerMax     = configMax // of anything that is not a blob
)

var (
	errPlainHTTP = errors.New("the registry wants plain HTTP, which is allowed on this machine only")
	errLocalDial = errors.New("a registry may not send us to an address of this machine or its link")
	errStalled   = errors.New("the registry sent nothing for a minute")
)

// guard is the transport of every request to a registry. A registry is not
// trusted: it can redirect, name the place to fetch a token, and answer
// without end. So plain HTTP (and with it a credential in the clear) goes to
// loopback registries and those named by configuration only, no address of
// this machine or link is dialled for a registry that is elsewhere, answers
// are bounded, and a stream that stalls is cut.
type guard struct {
	base    *http.Transport
	plain   map[string]bool // host:port with plain HTTP and local addresses allowed
	local   bool            // the registry itself is on this machine
	stall   time.Duration
	proxies sync.Map // host:port of the person's own proxies
}

func newGuard(registry string, plainHTTP []string) *guard {
	g := &guard{plain: map[string]bool{}, stall: stallTimeout}
	for _, h := range plainHTTP {
		g.plain[h] = true
	}
	g.local = loopbackHost(registry) || g.plain[registry]
	g.base = &http.Transport{
		Proxy:                 g.proxy,
		DialContext:           g.dial,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		MaxIdleConns:          16,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		DisableCompression:    true, // a digest is of the bytes as they are
	}
	return g
}

func (g *guard) close() { g.base.CloseIdleConnections() }

func (g *guard) proxy(req *http.Request) (u *url.URL, err error) {
	u, err = http.ProxyFromEnvironment(req)
	if u != nil {
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
		}
		g.proxies.Store(net.JoinHostPort(u.Hostname(), port), true)
	}
	return u, err
}

func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	if _, mine := g.proxies.Load(address); !mine {
		d.ControlContext = func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
			return g.allowed(resolved)
		}
	}
	return d.DialContext(ctx, network, address)
}

// allowed looks at the address that is about to be dialled, after the name
// was resolved.
func (g *guard) allowed(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w (%s)", errLocalDial, address)
	}
	ip := ap.Addr().Unmap()
	switch {
	case ip.IsLinkLocalUnicast(), ip.IsUnspecified(), ip.IsMulticast():
	case ip.IsLoopback() && !g.local:
	default:
		return nil
	}
	return fmt.Errorf("%w (%s)", errLocalDial, ip)
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" && !loopbackHost(req.URL.Host) && !g.plain[req.URL.Host] {
		return nil, fmt.Errorf("%w (%s)", errPlainHTTP, req.URL.Host)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := g.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	body := &watchedBody{ReadCloser: resp.Body, cancel: cancel, wait: g.stall, left: -1}
	if !strings.Contains(req.URL.Path, "/blobs/") && req.Response == nil {
		body.left = answerMax
	}
	body.timer = time.AfterFunc(g.stall, func() {
		body.stalled.Store(true)
		cancel(errStalled)
	})
	resp.Body = body
	return resp, nil
}

// watchedBody ends a body that stalls or is too long.
type watchedBody struct {
	io.ReadCloser
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	wait    time.Duration
	stalled atomic.Bool
	left    int64 // bytes still allowed, negative for no bound here
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.wait)
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.stalled.Load() {
		err = errStalled
	}
	if b.left >= 0 {
		if b.left -= int64(n); b.left < 0 {
			return 0, fmt.Errorf("the registry answered with more than %d bytes", int64(answerMax))
		}
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// loopbackHost reports whether host[:port] names this machine without asking
// a resolver.
func loopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
