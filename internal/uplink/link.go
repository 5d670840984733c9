package uplink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"openshell.dev/openshell/internal/fault"
)

// errEOF is what a send answers when the other side has ended the stream; the
// reason comes from the receive.
var errEOF = io.EOF

// link is how requests reach the gateway.
type link struct {
	http *http.Client
	base string

	file  string
	mu    sync.Mutex
	token string // guarded by mu
}

// newLink reads an endpoint. Nothing is connected yet.
func newLink(endpoint, caFile, tokenFile string) (*link, error) {
	l := &link{file: tokenFile}
	if err := l.reload(); err != nil {
		return nil, err
	}
	t := &http.Transport{Protocols: &http.Protocols{}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * time.Minute,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 20 * time.Second, PingTimeout: 10 * time.Second}}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	switch {
	case strings.HasPrefix(endpoint, "unix://"):
		path := strings.TrimPrefix(endpoint, "unix://")
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
		t.Protocols.SetUnencryptedHTTP2(true)
		l.base = "http://gateway"
	case strings.HasPrefix(endpoint, "http://"):
		t.DialContext = dialer.DialContext
		t.Protocols.SetUnencryptedHTTP2(true)
		l.base = strings.TrimSuffix(endpoint, "/")
	case strings.HasPrefix(endpoint, "https://"):
		t.DialContext = dialer.DialContext
		t.Protocols.SetHTTP2(true)
		l.base = strings.TrimSuffix(endpoint, "/")
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if caFile != "" {
			pem, err := os.ReadFile(caFile)
			if err != nil {
				return nil, fault.New(fault.FailedPrecondition, "cannot read the gateway's CA %s", caFile).Cause(err)
			}
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fault.New(fault.FailedPrecondition, "%s holds no certificate", caFile)
			}
			t.TLSClientConfig.RootCAs = pool
		}
	default:
		return nil, fault.New(fault.InvalidArgument, "gateway endpoint %q is neither unix:// nor http(s)://", endpoint)
	}
	l.http = &http.Client{Transport: &bearer{l: l, next: t}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return l, nil
}

// reload reads the token again; it may have been renewed.
func (l *link) reload() error {
	raw, err := os.ReadFile(l.file)
	if err != nil {
		return fault.New(fault.FailedPrecondition, "cannot read the sandbox token").Cause(err)
	}
	l.set(strings.TrimSpace(string(raw)))
	return nil
}

func (l *link) set(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token = token
}

// bearer puts the token on every request.
type bearer struct {
	l    *link
	next *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	b.l.mu.Lock()
	token := b.l.token
	b.l.mu.Unlock()
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	return b.next.RoundTrip(r)
}

// CloseIdleConnections lets http.Client close the transport.
func (b *bearer) CloseIdleConnections() { b.next.CloseIdleConnections() }
