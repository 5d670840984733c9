package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// Listen opens the port at addr. On 127.0.0.1 it opens ::1 with the same
// number too, because "localhost" may mean either; without IPv6 it goes on.
func Listen(ctx context.Context, addr netip.AddrPort, log *slog.Logger) ([]net.Listener, error) {
	lc := &net.ListenConfig{}
	lc.SetMultipathTCP(false)
	first, err := lc.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return nil, fault.New(fault.Unavailable, "cannot listen on %s: %s", addr, plain(err)).
			Hint("stop the other program on that port, or choose another with --port").Cause(err)
	}
	out := []net.Listener{first}
	if addr.Addr() == netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		port := first.Addr().(*net.TCPAddr).Port
		second, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(netip.IPv6Loopback(), uint16(port)).String())
		if err != nil {
			log.Warn("not listening on ::1", "err", err)
			return out, nil
		}
		out = append(out, second)
	}
	return out, nil
}

func plain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// ListenUnix opens the socket of the local owner, mode 0600 in a directory of
// mode 0700. A socket that nobody serves any more is replaced.
func ListenUnix(path string) (net.Listener, error) {
	if len(path) > 100 {
		return nil, fault.New(fault.InvalidArgument, "the socket path %s is too long (%d bytes, at most 100)", path, len(path)).
			Hint("name a shorter one with --socket, or switch it off with --socket off")
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(fault.PermissionDenied, "cannot make %s", dir).Cause(err)
	}
	if info, err := os.Lstat(dir); err != nil || info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.PermissionDenied, "the directory %s of the socket is open to others", dir).Hint("chmod 700 %s", dir).Cause(err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fault.New(fault.Unavailable, "another %s answers on %s", brand.Gateway, path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fault.New(fault.PermissionDenied, "cannot listen on %s", path).Cause(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect the socket: %w", err)
	}
	return l, nil
}

// Serve answers on a listener until Run ends. A TCP listener speaks TLS if
// the gateway has a certificate; a Unix socket never does.
func (g *Gateway) Serve(l net.Listener) error {
	s := &http.Server{
		Handler: g.router, ConnContext: connContext, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:  slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		Protocols: &http.Protocols{},
		// A client keeps a buffer of one frame for each open stream, and idle
		// supervisors have some: small frames keep them small.
		HTTP2: &http.HTTP2Config{MaxReadFrameSize: 32 << 10, MaxConcurrentStreams: 2048, SendPingTimeout: 20 * time.Second, PingTimeout: 10 * time.Second,
			WriteByteTimeout: 2 * time.Minute},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	addr, tcp := l.Addr().(*net.TCPAddr)
	g.mu.Lock()
	if g.base.Err() != nil {
		g.mu.Unlock()
		return l.Close()
	}
	g.servers = append(g.servers, s)
	if tcp && (g.address == nil || (g.address.IP.To4() == nil && addr.IP.To4() != nil)) {
		g.address = addr
	}
	g.mu.Unlock()
	var err error
	if tcp && g.opts.TLS != nil {
		s.TLSConfig = g.opts.TLS.Clone() // net/http writes to it, and there may be several listeners
		err = s.ServeTLS(l, "", "")
	} else {
		err = s.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// ServerTLS returns the TLS settings of the port: a client certificate is
// asked for and, when one is shown, must be good; whether one is needed is
// decided per call. Without clients none is asked for.
func ServerTLS(cert tls.Certificate, clients *x509.CertPool) *tls.Config {
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if clients != nil {
		c.ClientCAs, c.ClientAuth = clients, tls.VerifyClientCertIfGiven
	}
	return c
}
