package pki_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/pki"
)

func bundle(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state", "tls")
	wrote, err := pki.Ensure(dir, pki.Want{})
	if err != nil || !wrote {
		t.Fatalf("Ensure = %v, %v", wrote, err)
	}
	return dir
}

func TestTheBundleIsPrivateAndStable(t *testing.T) {
	dir := bundle(t)
	before := snapshot(t, dir)
	if len(before) != 9 {
		t.Fatalf("files = %d, want 9", len(before))
	}
	if wrote, err := pki.Ensure(dir, pki.Want{}); err != nil || wrote {
		t.Errorf("second Ensure = %v, %v; want nothing written", wrote, err)
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		info, err := d.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestANewNameReplacesCertificatesAndKeepsTokens(t *testing.T) {
	dir := bundle(t)
	before := snapshot(t, dir)
	if wrote, err := pki.Ensure(dir, pki.Want{SANs: []string{"box.example"}}); err != nil || !wrote {
		t.Fatalf("Ensure = %v, %v", wrote, err)
	}
	after := snapshot(t, dir)
	for name := range after {
		kept := bytes.Equal(before[name], after[name])
		if want := strings.HasPrefix(name, "jwt/"); kept != want {
			t.Errorf("%s kept = %v, want %v", name, kept, want)
		}
	}
}

func TestAHalfBundleIsRefused(t *testing.T) {
	dir := bundle(t)
	if err := os.Remove(filepath.Join(dir, pki.ServerKey)); err != nil {
		t.Fatal(err)
	}
	_, err := pki.Ensure(dir, pki.Want{})
	if fault.KindOf(err) != fault.FailedPrecondition || !strings.Contains(fault.HintOf(err), dir) {
		t.Errorf("Ensure = %v (hint %q)", err, fault.HintOf(err))
	}
}

func TestMutualTLSWorksWithTheBundle(t *testing.T) {
	dir := bundle(t)
	client := filepath.Join(t.TempDir(), "gateways", "x", "mtls")
	for range 2 { // the second replaces the first
		if err := pki.CopyClient(dir, client); err != nil {
			t.Fatal(err)
		}
	}
	load := func(cert, key string) tls.Certificate {
		c, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(client, "ca.crt"))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no CA", err)
	}
	near, far := net.Pipe()
	server := tls.Server(far, &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		Certificates: []tls.Certificate{load(filepath.Join(dir, pki.ServerCert), filepath.Join(dir, pki.ServerKey))}})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	for _, name := range []string{"localhost"} {
		c := tls.Client(near, &tls.Config{RootCAs: pool, ServerName: name,
			Certificates: []tls.Certificate{load(filepath.Join(client, "tls.crt"), filepath.Join(client, "tls.key"))}})
		if err := c.Handshake(); err != nil {
			t.Errorf("client: %v", err)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("server: %v", err)
	}
	if got := server.ConnectionState().PeerCertificates[0].Subject.CommonName; got != "openshell-client" {
		t.Errorf("client subject = %q", got)
	}
}

func TestAKeyPairMustMatch(t *testing.T) {
	a, b := bundle(t), bundle(t)
	if _, err := pki.TokenKeyIn(a); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.LoadTokenKey(filepath.Join(a, pki.JWTSigning), filepath.Join(b, pki.JWTPublic), filepath.Join(a, pki.JWTKeyID)); err == nil {
		t.Error("a foreign public key was accepted")
	}
}

func snapshot(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[path], err = os.ReadFile(filepath.Join(dir, path))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
