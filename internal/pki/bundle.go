package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// Paths of a bundle, relative to its directory. Clients of the 0.1.x line and
// packaging scripts know these names.
const (
	CACert     = "ca.crt"
	CAKey      = "ca.key"
	ServerCert = "server/tls.crt"
	ServerKey  = "server/tls.key"
	ClientCert = "client/tls.crt"
	ClientKey  = "client/tls.key"
	JWTSigning = "jwt/signing.pem"
	JWTPublic  = "jwt/public.pem"
	JWTKeyID   = "jwt/kid"
)

var (
	tlsFiles = []string{CACert, CAKey, ServerCert, ServerKey, ClientCert, ClientKey}
	jwtFiles = []string{JWTSigning, JWTPublic, JWTKeyID}
)

// DefaultSANs are the names that a local server certificate carries.
func DefaultSANs() []string {
	n := brand.Name
	return []string{n, n + "." + n + ".svc", n + "." + n + ".svc.cluster.local", "localhost", brand.ServiceHost,
		"*." + brand.ServiceHost, "host.docker.internal", "host.containers.internal", "127.0.0.1", "::1"}
}

// Want says what a bundle must have. Zero is the default local bundle.
type Want struct {
	SANs    []string // further names beside DefaultSANs
	JWTOnly bool     // only the token keys
}

// Ensure makes the bundle in dir if it is not there and reports whether it
// wrote anything. A half bundle is an error that names the directory; a
// server certificate without a wanted name replaces all certificates.
func Ensure(dir string, want Want) (wrote bool, err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return false, fault.New(fault.PermissionDenied, "cannot make %s", filepath.Dir(dir)).Cause(err)
	}
	sans := append(DefaultSANs(), want.SANs...)
	tlsThere, err := count(dir, tlsFiles)
	if err != nil {
		return false, err
	}
	jwtThere, err := count(dir, jwtFiles)
	if err != nil {
		return false, err
	}
	if partial(jwtThere, jwtFiles) || (!want.JWTOnly && partial(tlsThere, tlsFiles)) {
		return false, fault.New(fault.FailedPrecondition, "the key material in %s is incomplete", dir).
			Hint("rm -r %s, then start the gateway again; clients must be registered anew", dir)
	}
	makeTLS := !want.JWTOnly && tlsThere == 0
	if !want.JWTOnly && tlsThere == len(tlsFiles) {
		covered, err := covers(filepath.Join(dir, ServerCert), sans)
		if err != nil {
			return false, err
		}
		makeTLS = !covered
	}
	files := map[string][]byte{}
	if makeTLS {
		if err := newTLS(files, sans); err != nil {
			return false, err
		}
	}
	if jwtThere == 0 {
		if err := newTokenKeys(files); err != nil {
			return false, err
		}
	}
	if len(files) == 0 {
		return false, nil
	}
	return true, install(dir, files)
}

// Preview makes the certificates without writing anything.
func Preview(sans []string) (map[string][]byte, error) {
	files := map[string][]byte{}
	return files, newTLS(files, append(DefaultSANs(), sans...))
}

func newTLS(files map[string][]byte, sans []string) error {
	ca, err := NewAuthority(brand.Name)
	if err != nil {
		return err
	}
	server, err := ca.Server(sans)
	if err != nil {
		return err
	}
	client, err := ca.Client(brand.Name + "-client")
	if err != nil {
		return err
	}
	files[CACert], files[CAKey] = ca.Cert, ca.Key
	files[ServerCert], files[ServerKey] = server.Cert, server.Key
	files[ClientCert], files[ClientKey] = client.Cert, client.Key
	return nil
}

// install writes the files beside dir and moves them into place. What exists
// and is not replaced is carried over first, so that one rename decides.
func install(dir string, files map[string][]byte) error {
	stage, err := os.MkdirTemp(filepath.Dir(dir), ".certgen.tmp-")
	if err != nil {
		return fault.New(fault.PermissionDenied, "cannot write beside %s", dir).Cause(err)
	}
	defer os.RemoveAll(stage)
	for _, name := range append(slices.Clone(tlsFiles), jwtFiles...) {
		body, ok := files[name]
		if !ok {
			if body, err = os.ReadFile(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return fmt.Errorf("keep %s: %w", name, err)
			}
		}
		if err := WriteFile(filepath.Join(stage, name), body); err != nil {
			return err
		}
	}
	return swapDir(stage, dir)
}

// swapDir puts stage where dir is, with the old one aside until it is done.
func swapDir(stage, dir string) error {
	old := stage + ".old"
	err := os.Rename(dir, old)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("move %s aside: %w", dir, err)
	}
	had := err == nil
	if err := os.Rename(stage, dir); err != nil {
		if had {
			err = errors.Join(err, os.Rename(old, dir))
		}
		return fmt.Errorf("put the key material in place: %w", err)
	}
	if had {
		return os.RemoveAll(old)
	}
	return nil
}

// WriteFile writes a file of mode 0600 in a directory of mode 0700, with its
// final mode from the first byte on, and waits for the disk.
func WriteFile(path string, body []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(path), err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(body)
	return errors.Join(err, f.Sync(), f.Close())
}

func count(dir string, names []string) (int, error) {
	n := 0
	for _, name := range names {
		_, err := os.Stat(filepath.Join(dir, name))
		switch {
		case err == nil:
			n++
		case !errors.Is(err, fs.ErrNotExist):
			return 0, fault.New(fault.PermissionDenied, "cannot read the key material in %s", dir).Cause(err)
		}
	}
	return n, nil
}

func partial(there int, of []string) bool { return there != 0 && there != len(of) }

// covers reports whether the certificate carries every name.
func covers(path string, sans []string) (bool, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("read the server certificate: %w", err)
	}
	block, _ := pem.Decode(body)
	if block == nil {
		return false, fault.New(fault.FailedPrecondition, "%s is not a certificate", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false, fault.New(fault.FailedPrecondition, "%s is not a certificate", path).Cause(err)
	}
	have := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		have = append(have, ip.String())
	}
	for _, s := range sans {
		if !slices.ContainsFunc(have, func(h string) bool { return strings.EqualFold(h, s) }) {
			return false, nil
		}
	}
	return true, nil
}

// CopyClient installs the client's half of the bundle (ca.crt, tls.crt,
// tls.key) as the directory dst, replacing an older one.
func CopyClient(bundle, dst string) error {
	if err := os.MkdirAll(filepath.Dir(dst), 0o700); err != nil {
		return fault.New(fault.PermissionDenied, "cannot make %s", filepath.Dir(dst)).Cause(err)
	}
	stage, err := os.MkdirTemp(filepath.Dir(dst), ".mtls.tmp-")
	if err != nil {
		return fault.New(fault.PermissionDenied, "cannot write beside %s", dst).Cause(err)
	}
	defer os.RemoveAll(stage)
	for from, to := range map[string]string{CACert: "ca.crt", ClientCert: "tls.crt", ClientKey: "tls.key"} {
		body, err := os.ReadFile(filepath.Join(bundle, from))
		if err != nil {
			return fmt.Errorf("read the client's certificate: %w", err)
		}
		if err := WriteFile(filepath.Join(stage, to), body); err != nil {
			return err
		}
	}
	return swapDir(stage, dst)
}
