package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/internal/authn"
	"openshell.dev/openshell/internal/gateway"
	"openshell.dev/openshell/internal/pki"
)

// TestWhoMayCallOverTLS: health needs nobody, everything else a certificate
// of ours; the owner of the socket needs none.
func TestWhoMayCallOverTLS(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "tls")
	if _, err := pki.Ensure(keys, pki.Want{}); err != nil {
		t.Fatal(err)
	}
	load := func(cert, key string) tls.Certificate {
		c, err := tls.LoadX509KeyPair(filepath.Join(keys, cert), filepath.Join(keys, key))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	pem, err := os.ReadFile(filepath.Join(keys, pki.CACert))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	w := newWorld(t, func(o *gateway.Options) {
		o.TLS = gateway.ServerTLS(load(pki.ServerCert, pki.ServerKey), pool)
		o.Auth = &authn.Authenticator{Tokens: o.Tokens, MTLS: true}
	})
	other := filepath.Join(t.TempDir(), "other")
	if _, err := pki.Ensure(other, pki.Want{}); err != nil {
		t.Fatal(err)
	}
	foreign, err := tls.LoadX509KeyPair(filepath.Join(other, pki.ClientCert), filepath.Join(other, pki.ClientKey))
	if err != nil {
		t.Fatal(err)
	}
	ours := load(pki.ClientCert, pki.ClientKey)
	for _, tt := range []struct {
		name   string
		target string
		creds  credentials.TransportCredentials
		health codes.Code
		list   codes.Code
	}{
		{"our certificate", w.addr, credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{ours}}), codes.OK, codes.OK},
		{"no certificate", w.addr, credentials.NewTLS(&tls.Config{RootCAs: pool}), codes.OK, codes.Unauthenticated},
		{"another CA's certificate", w.addr, credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{foreign}}), codes.Unavailable, codes.Unavailable},
		{"plaintext on the port", w.addr, insecure.NewCredentials(), codes.Unavailable, codes.Unavailable},
		{"the owner of the socket", "unix", insecure.NewCredentials(), codes.OK, codes.OK},
	} {
		opts := []grpc.DialOption{grpc.WithTransportCredentials(tt.creds)}
		if tt.target == "unix" {
			opts = append(opts, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", w.socket)
			}))
		}
		conn, err := grpc.NewClient("passthrough:///"+tt.target, opts...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := conn.Invoke(ctx, service+"Health", &openshellv1.HealthRequest{}, &openshellv1.HealthResponse{}); status.Code(err) != tt.health {
			t.Errorf("%s: Health = %v, want %v", tt.name, err, tt.health)
		}
		if err := conn.Invoke(ctx, service+"ListSandboxes", &openshellv1.ListSandboxesRequest{WorkspaceScope: inDefault()}, &openshellv1.ListSandboxesResponse{}); status.Code(err) != tt.list {
			t.Errorf("%s: ListSandboxes = %v, want %v", tt.name, err, tt.list)
		}
		cancel()
		conn.Close()
	}
}

func TestTheSocketIsPrivate(t *testing.T) {
	w := newWorld(t, nil)
	info, err := os.Stat(w.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if l, err := gateway.ListenUnix(filepath.Join(open, "s")); err == nil {
		l.Close()
		t.Error("a socket in an open directory was made")
	}
	if _, err := gateway.ListenUnix(w.socket); err == nil {
		t.Error("a socket that is served was taken over")
	}
}
