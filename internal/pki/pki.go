// Package pki makes and keeps the certificates and token keys of a gateway.
//
// It owns the local bundle: a certificate authority, one server and one client
// certificate (ECDSA P-256) and the key pair that signs sandbox tokens
// (Ed25519). Directories are 0700, keys 0600, and a bundle appears whole or
// not at all. It does no networking and decides nothing about identity.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"

	"openshell.dev/openshell/internal/brand"
)

// lifetime is long because nobody renews the certificates of a laptop; the
// authority is private to the gateway and is replaced by deleting its files.
const lifetime = 50 * 365 * 24 * time.Hour

// Pair is a certificate and its key, both in PEM.
type Pair struct {
	Cert, Key []byte
}

// Authority signs the certificates of one gateway.
type Authority struct {
	Pair
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes a certificate authority.
func NewAuthority(name string) (*Authority, error) {
	tmpl, err := template(name + " local CA")
	if err != nil {
		return nil, err
	}
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.MaxPathLenZero = true, true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the CA key: %w", err)
	}
	a := &Authority{cert: tmpl, key: key}
	if a.Pair, err = sign(tmpl, tmpl, key, key); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(a.Cert)
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("read back the CA: %w", err)
	}
	return a, nil
}

// Server issues a server certificate for the names and addresses.
func (a *Authority) Server(sans []string) (Pair, error) {
	tmpl, err := template(brand.Gateway)
	if err != nil {
		return Pair{}, err
	}
	for _, s := range sans {
		if ip := net.ParseIP(s); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, s)
		}
	}
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return a.issue(tmpl)
}

// Client issues a client certificate whose common name is the subject of the
// principal and whose organizational units are its roles.
func (a *Authority) Client(subject string, roles ...string) (Pair, error) {
	tmpl, err := template(subject)
	if err != nil {
		return Pair{}, err
	}
	tmpl.Subject.OrganizationalUnit = roles
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(tmpl)
}

func (a *Authority) issue(tmpl *x509.Certificate) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make a key: %w", err)
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	return sign(tmpl, a.cert, key, a.key)
}

func sign(tmpl, parent *x509.Certificate, key, by *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, by)
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate of %s: %w", tmpl.Subject.CommonName, err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode a key: %w", err)
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}),
	}, nil
}

func template(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{brand.Name}},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(lifetime),
	}, nil
}
