package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"openshell.dev/openshell/internal/authn"
	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/compute/native"
	"openshell.dev/openshell/internal/config"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/gateway"
	"openshell.dev/openshell/internal/pki"
	"openshell.dev/openshell/internal/store"
	"openshell.dev/openshell/internal/trim"
)

// trimAfter is how long after the start the memory that it needed is given
// back.
const trimAfter = 10 * time.Second

// serve runs the gateway until it is asked to end.
func serve(ctx context.Context, s config.Settings) error {
	log, err := logger(s.LogLevel)
	if err != nil {
		return err
	}
	// A gateway mostly waits: memory counts for more than the last per cent
	// of speed.
	debug.SetGCPercent(50)
	if err := os.MkdirAll(s.StateDir, 0o700); err != nil {
		return fault.New(fault.PermissionDenied, "cannot make the state directory %s", s.StateDir).Cause(err)
	}
	keys, err := prepareKeys(s)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, s.DBPath)
	if err != nil {
		return err
	}
	defer db.Close()
	listeners, err := listen(ctx, s, log)
	if err != nil {
		return err
	}
	driver, err := native.Open(native.Options{Dir: filepath.Join(s.StateDir, "sandboxes"), Supervisor: s.Native.SupervisorPath,
		DefaultImage: s.Native.DefaultImage, PullPolicy: s.Native.PullPolicy, CacheDir: s.Native.CacheDir, Catalogue: s.Native.Catalogue,
		Registry: s.Native.CommunityRegistry, AllowConfig: s.Native.AllowDriverConfig, PrepareLimit: s.ImagePreparation, Log: log})
	if err != nil {
		closeAll(listeners)
		return err
	}
	defer driver.Close()
	endpoint, ca := supervisorEndpoint(s, listeners[0].Addr(), keys)
	g, err := gateway.New(ctx, gateway.Options{Store: db, Driver: driver, Log: log, TLS: keys.tls,
		Auth:   &authn.Authenticator{Tokens: keys.tokens, MTLS: s.MTLS() && keys.tls != nil, AnybodyIsUser: s.AnybodyIsUser},
		Tokens: keys.tokens, SupervisorEndpoint: endpoint, SupervisorCA: ca, SSHSessionTTL: s.SSHSessionTTL, ImagePreparation: s.ImagePreparation,
		OutageLimit: s.OutageLimit, FingerprintKey: keys.tokens.Key.Private.Seed()})
	if err != nil {
		closeAll(listeners)
		return err
	}
	if s.AnybodyIsUser && !s.Bind.Addr().IsLoopback() {
		log.Warn("everybody who can reach this address is an administrator", "address", s.Bind.String())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error { return g.Serve(l) })
	}
	if s.Health.IsValid() {
		group.Go(func() error { return serveHealth(ctx, s, log) })
	}
	group.Go(func() error {
		defer cancel()
		return g.Run(ctx)
	})
	if s.IdleExit > 0 {
		group.Go(func() error {
			idle(ctx, g, s.IdleExit, log)
			return errIdle
		})
	}
	timer := time.AfterFunc(trimAfter, trim.Once)
	defer timer.Stop()
	log.Info("gateway serves", "address", listeners[0].Addr().String(), "socket", s.Socket, "tls", keys.tls != nil, "version", brand.Version)
	err = group.Wait()
	if errors.Is(err, errIdle) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// errIdle ends a gateway that nobody needs.
var errIdle = errors.New("no sandboxes for long enough")

// idle returns when there was no sandbox for the given time, or ctx ends.
func idle(ctx context.Context, g *gateway.Gateway, limit time.Duration, log *slog.Logger) {
	tick := time.NewTicker(max(limit/20, 100*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if since := g.Idle(); !since.IsZero() && time.Since(since) >= limit {
			log.Info("ending, there were no sandboxes", "for", limit.String())
			return
		}
	}
}

// keys is what the gateway proves itself with.
type keys struct {
	tls    *tls.Config // nil: plaintext
	tokens *authn.Tokens
	ca     string // the CA that supervisors trust; empty: the system's
}

// prepareKeys loads the configured material, or makes the local bundle on
// first use.
func prepareKeys(s config.Settings) (*keys, error) {
	local := s.TLSCert == "" && !s.DisableTLS
	if local || s.JWTSigning == "" {
		if _, err := pki.Ensure(s.LocalTLSDir, pki.Want{SANs: s.ServerSANs, JWTOnly: !local}); err != nil {
			return nil, err
		}
	}
	at := func(name string) string { return filepath.Join(s.LocalTLSDir, name) }
	k := &keys{ca: s.GuestCA}
	var err error
	tokens := &authn.Tokens{GatewayID: s.GatewayID, TTL: s.TokenTTL}
	if s.JWTSigning != "" {
		tokens.Key, err = pki.LoadTokenKey(s.JWTSigning, s.JWTPublic, s.JWTKeyID)
	} else {
		tokens.Key, err = pki.TokenKeyIn(s.LocalTLSDir)
	}
	if err != nil {
		return nil, err
	}
	k.tokens = tokens
	if s.DisableTLS {
		return k, nil
	}
	cert, key, clientCA := s.TLSCert, s.TLSKey, s.TLSClientCA
	if local {
		cert, key, clientCA = at(pki.ServerCert), at(pki.ServerKey), at(pki.CACert)
		if k.ca == "" {
			k.ca = clientCA
		}
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fault.New(fault.FailedPrecondition, "the server certificate %s and key %s cannot be used", cert, key).Cause(err)
	}
	var clients *x509.CertPool
	if clientCA != "" {
		pem, err := os.ReadFile(clientCA)
		if err != nil {
			return nil, fault.New(fault.FailedPrecondition, "the client CA %s cannot be read", clientCA).Cause(err)
		}
		clients = x509.NewCertPool()
		if !clients.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.FailedPrecondition, "the client CA %s holds no certificate", clientCA)
		}
	}
	k.tls = gateway.ServerTLS(pair, clients)
	return k, nil
}

// listen opens the port and the Unix socket; the port is first.
func listen(ctx context.Context, s config.Settings, log *slog.Logger) ([]net.Listener, error) {
	out, err := gateway.Listen(ctx, s.Bind, log)
	if err != nil {
		return nil, err
	}
	if s.Socket == "" {
		return out, nil
	}
	u, err := gateway.ListenUnix(s.Socket)
	if err != nil {
		closeAll(out)
		return nil, err
	}
	return append(out, u), nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// supervisorEndpoint is where supervisors of this host find the gateway: the
// socket, which needs no handshake, else the port.
func supervisorEndpoint(s config.Settings, addr net.Addr, k *keys) (endpoint, ca string) {
	if s.Socket != "" {
		return "unix://" + s.Socket, ""
	}
	scheme := "http"
	if k.tls != nil {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return scheme + "://" + addr.String(), k.ca
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port), k.ca
}

// serveHealth answers liveness and readiness in plaintext on their own port.
func serveHealth(ctx context.Context, s config.Settings, log *slog.Logger) error {
	ls, err := gateway.Listen(ctx, s.Health, log)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	ready := func(w http.ResponseWriter, _ *http.Request) {
		status, code := "healthy", http.StatusOK
		if ctx.Err() != nil {
			status, code = "draining", http.StatusServiceUnavailable
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `{"status":%q,"version":%q}`, status, brand.Version)
	}
	mux.HandleFunc("GET /readyz", ready)
	mux.HandleFunc("GET /health", ready)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	group := errgroup.Group{}
	for _, l := range ls {
		group.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	return group.Wait()
}

func logger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(strings.ToUpper(level))); err != nil {
		return nil, fault.New(fault.InvalidArgument, "log level %q is not one of debug, info, warn and error", level)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})), nil
}
