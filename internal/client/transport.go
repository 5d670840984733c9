package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/gateways"
)

const (
	dialTimeout = 10 * time.Second
	pingEvery   = 15 * time.Second
	pingLimit   = 15 * time.Second
)

// newTransport chooses the channel: the Unix socket of a local gateway,
// plaintext HTTP/2, or TLS with what the registration has.
func newTransport(o Options, t Target) (http.RoundTripper, string, error) {
	tr := &http.Transport{
		Protocols: new(http.Protocols), TLSHandshakeTimeout: dialTimeout,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: pingEvery, PingTimeout: pingLimit},
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       90 * time.Second,
		ResponseHeaderTimeout: 0, // a stream may answer late; unary calls have deadlines
	}
	header, err := authorization(o, t)
	if err != nil {
		return nil, "", err
	}
	var dialer = &net.Dialer{Timeout: dialTimeout}
	switch {
	case t.UnixSocket != "" && usable(t.UnixSocket):
		tr.Protocols.SetUnencryptedHTTP2(true)
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", t.UnixSocket)
		}
		return with(tr, header), "http://localhost", nil
	case t.URL.Scheme == "http":
		tr.Protocols.SetUnencryptedHTTP2(true)
		tr.DialContext = dialer.DialContext
		return with(tr, header), "http://" + t.Address(), nil
	}
	config, err := tlsConfig(o, t)
	if err != nil {
		return nil, "", err
	}
	tr.Protocols.SetHTTP2(true)
	tr.DialContext = dialer.DialContext
	tr.TLSClientConfig = config
	return with(tr, header), "https://" + t.Address(), nil
}

// usable reports whether the socket is there, answers, and is a door of ours:
// its owner is the caller or root.
func usable(path string) bool {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return false
	}
	if st.Uid != 0 && int(st.Uid) != os.Getuid() {
		return false
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

func tlsConfig(o Options, t Target) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.URL.Hostname(), ClientSessionCache: tls.NewLRUClientSessionCache(2)}
	if o.Insecure {
		config.InsecureSkipVerify = true // asked for by name; no client certificate goes along
		return config, nil
	}
	if !t.Registered {
		return config, nil // system roots
	}
	dir := o.Registry.MTLSDir(t.Name)
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if needsClientCert(t.Metadata) {
			return nil, fault.New(fault.FailedPrecondition, "TLS CA is required for gateway %q: %s does not exist", t.Name, filepath.Join(dir, "ca.crt")).
				Hint("copy ca.crt, tls.crt and tls.key of the gateway to %s", dir)
		}
		return config, nil
	case err != nil:
		return nil, fault.New(fault.PermissionDenied, "failed to read TLS CA %s", filepath.Join(dir, "ca.crt")).Cause(err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(ca) {
		return nil, fault.New(fault.FailedPrecondition, "%s holds no certificate", filepath.Join(dir, "ca.crt"))
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	switch {
	case errors.Is(err, fs.ErrNotExist) && !needsClientCert(t.Metadata):
	case err != nil:
		return nil, fault.New(fault.FailedPrecondition, "failed to read TLS client certificate of gateway %q in %s", t.Name, dir).Cause(err).
			Hint("copy tls.crt and tls.key of the gateway to %s", dir)
	default:
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func needsClientCert(m gateways.Metadata) bool { return m.AuthMode == "mtls" || m.AuthMode == "" }

// headers is a RoundTripper that adds the credential of the registration.
type headers struct {
	*http.Transport
	set map[string]string
}

func with(tr *http.Transport, set map[string]string) http.RoundTripper {
	return &headers{tr, set}
}

// RoundTrip sends the request with the headers.
func (h *headers) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", userAgent)
	for k, v := range h.set {
		r.Header.Set(k, v)
	}
	return h.Transport.RoundTrip(r)
}

var userAgent = fmt.Sprintf("%s/%s", brand.CLI, brand.Version)
