package authn

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/pki"
	"openshell.dev/openshell/internal/secret"
)

// maxToken bounds a token before anything is decoded.
const maxToken = 4096

// leeway forgives clocks that differ.
const leeway = time.Minute

// Tokens mints and verifies the tokens of sandboxes: compact JWS, EdDSA only,
// the algorithm fixed by us and never taken from the token.
type Tokens struct {
	Key       *pki.TokenKey
	GatewayID string
	TTL       time.Duration // 0 means tokens that do not expire
	Now       func() time.Time
}

type header struct {
	Alg string `json:"alg"`
	Typ string `json:"typ,omitempty"`
	Kid string `json:"kid"`
}

type claims struct {
	Sub        string `json:"sub"`
	Iss        string `json:"iss"`
	Aud        string `json:"aud"`
	Iat        int64  `json:"iat"`
	Exp        int64  `json:"exp"` // 0 means never
	SandboxID  string `json:"sandbox_id"`
	InstanceID string `json:"instance_id,omitempty"`
}

// Mint makes a token for one run of a sandbox. The time is zero if it never
// expires.
func (t *Tokens) Mint(id model.SandboxID, instance string) (secret.Value, time.Time, error) {
	now := t.now()
	var expires time.Time
	c := claims{Sub: "spiffe://" + brand.Name + "/sandbox/" + string(id), Iss: t.issuer(), Aud: t.issuer(),
		Iat: now.Unix(), SandboxID: string(id), InstanceID: instance}
	if t.TTL > 0 {
		expires = now.Add(t.TTL)
		c.Exp = expires.Unix()
	}
	h, err := json.Marshal(header{Alg: "EdDSA", Typ: "JWT", Kid: t.Key.ID})
	if err != nil {
		return secret.Value{}, time.Time{}, err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return secret.Value{}, time.Time{}, err
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString(h) + "." + enc.EncodeToString(b)
	return secret.New(signed + "." + enc.EncodeToString(ed25519.Sign(t.Key.Private, []byte(signed)))), expires, nil
}

// Verify returns the sandbox that a token names.
func (t *Tokens) Verify(token string) (Principal, error) {
	if len(token) > maxToken {
		return Principal{}, unauthenticated("invalid token")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Principal{}, unauthenticated("invalid token")
	}
	enc := base64.RawURLEncoding.Strict()
	var h header
	if !decode(enc, parts[0], &h) {
		return Principal{}, unauthenticated("invalid token")
	}
	if h.Typ == brand.Name+"-ext+jwt" {
		return Principal{}, unauthenticated("extension tokens cannot authenticate to the gateway")
	}
	if h.Kid == "" {
		return Principal{}, unauthenticated("invalid token: missing kid")
	}
	if h.Kid != t.Key.ID {
		return Principal{}, unauthenticated("invalid token: unknown signing key")
	}
	sig, err := enc.DecodeString(parts[2])
	if err != nil || h.Alg != "EdDSA" || !ed25519.Verify(t.Key.Public, []byte(parts[0]+"."+parts[1]), sig) {
		return Principal{}, unauthenticated("invalid token: InvalidSignature")
	}
	var c claims
	if !decode(enc, parts[1], &c) || c.SandboxID == "" {
		return Principal{}, unauthenticated("invalid token")
	}
	if c.Iss != t.issuer() || c.Aud != t.issuer() {
		return Principal{}, unauthenticated("invalid token: InvalidIssuer")
	}
	if c.Exp != 0 && t.now().After(time.Unix(c.Exp, 0).Add(leeway)) {
		return Principal{}, unauthenticated("invalid token: ExpiredSignature")
	}
	return Principal{Kind: Sandbox, Subject: c.Sub, Display: c.SandboxID, Provider: "sandbox",
		SandboxID: model.SandboxID(c.SandboxID), InstanceID: c.InstanceID}, nil
}

func (t *Tokens) issuer() string { return brand.Gateway + ":" + t.GatewayID }

func (t *Tokens) now() time.Time {
	if t.Now != nil {
		return t.Now()
	}
	return time.Now()
}

func decode(enc *base64.Encoding, part string, into any) bool {
	raw, err := enc.DecodeString(part)
	return err == nil && json.Unmarshal(raw, into) == nil
}
