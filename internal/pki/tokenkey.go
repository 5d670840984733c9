package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"openshell.dev/openshell/internal/fault"
)

// TokenKey signs and verifies the tokens of sandboxes.
type TokenKey struct {
	ID      string // the kid of a token's header
	Private ed25519.PrivateKey
	Public  ed25519.PublicKey
}

func newTokenKeys(files map[string][]byte) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make the token key: %w", err)
	}
	rawPrivate, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("encode the token key: %w", err)
	}
	rawPublic, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return fmt.Errorf("encode the token key: %w", err)
	}
	sum := sha256.Sum256(rawPublic)
	files[JWTSigning] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawPrivate})
	files[JWTPublic] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: rawPublic})
	files[JWTKeyID] = []byte(hex.EncodeToString(sum[:16]))
	return nil
}

// LoadTokenKey reads the three files and checks that the pair matches.
func LoadTokenKey(signing, public, kid string) (*TokenKey, error) {
	private, err := readKey(signing, "PRIVATE KEY", func(der []byte) (any, error) { return x509.ParsePKCS8PrivateKey(der) })
	if err != nil {
		return nil, err
	}
	pub, err := readKey(public, "PUBLIC KEY", func(der []byte) (any, error) { return x509.ParsePKIXPublicKey(der) })
	if err != nil {
		return nil, err
	}
	id, err := os.ReadFile(kid)
	if err != nil {
		return nil, fault.New(fault.FailedPrecondition, "cannot read the token key id %s", kid).Cause(err)
	}
	k := &TokenKey{ID: strings.TrimSpace(string(id))}
	var okPrivate, okPublic bool
	k.Private, okPrivate = private.(ed25519.PrivateKey)
	k.Public, okPublic = pub.(ed25519.PublicKey)
	if !okPrivate || !okPublic || !k.Public.Equal(k.Private.Public()) || k.ID == "" {
		return nil, fault.New(fault.FailedPrecondition, "%s and %s are not an Ed25519 key pair", signing, public)
	}
	return k, nil
}

// TokenKeyIn loads the token key of a bundle.
func TokenKeyIn(dir string) (*TokenKey, error) {
	return LoadTokenKey(filepath.Join(dir, JWTSigning), filepath.Join(dir, JWTPublic), filepath.Join(dir, JWTKeyID))
}

func readKey(path, kind string, parse func([]byte) (any, error)) (any, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.FailedPrecondition, "cannot read the token key %s", path).Cause(err)
	}
	block, _ := pem.Decode(body)
	if block == nil || block.Type != kind {
		return nil, fault.New(fault.FailedPrecondition, "%s holds no %s in PEM", path, strings.ToLower(kind))
	}
	k, err := parse(block.Bytes)
	if err != nil {
		return nil, fault.New(fault.FailedPrecondition, "%s holds no usable key", path).Cause(err)
	}
	return k, nil
}
