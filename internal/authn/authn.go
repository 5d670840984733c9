// Package authn turns what a connection proves into a principal, and decides
// whether that principal may call a method.
//
// It owns identity and the per-method rule, both pure once the evidence is
// collected. Which sandbox or workspace an object belongs to is the handler's
// question. No wire types, no storage; the gateway uses it.
package authn

import (
	"crypto/x509"
	"slices"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/model"
)

// Kind is the class of a caller. The zero value may do nothing.
type Kind uint8

// The classes.
const (
	Nobody Kind = iota
	User
	Sandbox
)

// Principal is a caller. The zero value is nobody.
type Principal struct {
	Kind     Kind
	Subject  string
	Display  string
	Roles    []string
	Scopes   []string
	Provider string // local_dev, mtls, oidc: the words of the contract

	SandboxID  model.SandboxID // of a Sandbox principal
	InstanceID string          // the run its token was minted for; empty means any
}

// Admin reports whether the user is a platform admin. Without an identity
// provider that knows roles every user of a gateway is its admin.
func (p Principal) Admin() bool { return p.Kind == User && p.Provider != "oidc" }

// Key identifies the caller for admission of request ids.
func (p Principal) Key() string { return p.Provider + "\x00" + p.Subject }

// LocalOwner is the person who owns the gateway's process, known by the
// credentials of a Unix socket.
func LocalOwner() Principal {
	p := LocalDeveloper()
	p.Subject, p.Display = "local-owner", "Local owner"
	return p
}

// LocalDeveloper is everybody, where the operator allowed that.
func LocalDeveloper() Principal {
	return Principal{Kind: User, Subject: "unauthenticated-local-dev", Display: "Unauthenticated Local Dev", Provider: "local_dev",
		Roles: []string{brand.Name + "-user", brand.Name + "-admin"}, Scopes: []string{brand.ScopeAll}}
}

// Evidence is what a request proved so far.
type Evidence struct {
	// Bearer is the token of the authorization header without its prefix.
	Bearer string
	// HasBearer says that there was an authorization header.
	HasBearer bool
	// Certificate was verified in the handshake against the client CA.
	Certificate *x509.Certificate
	// Owner says that the peer of a Unix socket is the gateway's own account.
	Owner bool
}

// Authenticator decides who a caller is.
type Authenticator struct {
	Tokens        *Tokens // verifies sandbox tokens; nil means there are none
	MTLS          bool    // certificates identify users
	AnybodyIsUser bool    // allow_unauthenticated_users
}

// Principal returns the caller, or an Unauthenticated fault. A token that is
// presented and wrong is never passed over.
func (a *Authenticator) Principal(e Evidence) (Principal, error) {
	switch {
	case e.HasBearer:
		if a.Tokens == nil {
			return Principal{}, unauthenticated("invalid token")
		}
		return a.Tokens.Verify(e.Bearer)
	case e.Owner:
		return LocalOwner(), nil
	case a.MTLS && e.Certificate != nil:
		return certificateUser(e.Certificate), nil
	case a.AnybodyIsUser:
		return LocalDeveloper(), nil
	case a.MTLS:
		return Principal{}, unauthenticated("missing client certificate")
	}
	return Principal{}, unauthenticated("missing authorization header")
}

func certificateUser(c *x509.Certificate) Principal {
	p := Principal{Kind: User, Subject: c.Subject.CommonName, Display: c.Subject.CommonName,
		Roles: slices.Clone(c.Subject.OrganizationalUnit), Provider: "mtls"}
	if p.Subject == "" {
		p.Subject, p.Display = "unknown", "unknown"
	}
	return p
}

func unauthenticated(text string) error { return fault.New(fault.Unauthenticated, "%s", text) }
