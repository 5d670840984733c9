package authn_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"openshell.dev/openshell/internal/authn"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/internal/pki"
)

func tokens(t testing.TB) *authn.Tokens {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "k")
	if _, err := pki.Ensure(dir, pki.Want{JWTOnly: true}); err != nil {
		t.Fatal(err)
	}
	key, err := pki.TokenKeyIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &authn.Tokens{Key: key, GatewayID: "openshell"}
}

func TestATokenNamesItsSandbox(t *testing.T) {
	tk := tokens(t)
	tok, expires, err := tk.Mint("id-1", "run-1")
	if err != nil || !expires.IsZero() {
		t.Fatal(err, expires)
	}
	p, err := tk.Verify(tok.Reveal())
	if err != nil || p.Kind != authn.Sandbox || p.SandboxID != "id-1" || p.InstanceID != "run-1" {
		t.Errorf("principal = %+v, %v", p, err)
	}
}

func TestBadTokensAreRefused(t *testing.T) {
	tk, other := tokens(t), tokens(t)
	tok, _, err := tk.Mint("id-1", "")
	if err != nil {
		t.Fatal(err)
	}
	foreign, _, err := other.Mint("id-1", "")
	if err != nil {
		t.Fatal(err)
	}
	good := tok.Reveal()
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"` + tk.Key.ID + `"}`))
	gateway2 := *tk
	gateway2.GatewayID = "another"
	elsewhere, _, err := gateway2.Mint("id-1", "")
	if err != nil {
		t.Fatal(err)
	}
	past := *tk
	past.TTL, past.Now = time.Minute, func() time.Time { return time.Now().Add(-time.Hour) }
	expired, _, err := past.Mint("id-1", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, token, want string }{
		{"empty", "", "invalid token"},
		{"another key", foreign.Reveal(), "unknown signing key"},
		{"no algorithm", none + "." + parts[1] + ".", "InvalidSignature"},
		{"other claims", parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sandbox_id":"id-2"}`)) + "." + parts[2], "InvalidSignature"},
		{"another gateway", elsewhere.Reveal(), "InvalidIssuer"},
		{"expired", expired.Reveal(), "ExpiredSignature"},
		{"long", strings.Repeat("a", 5000), "invalid token"},
	} {
		_, err := tk.Verify(tt.token)
		if fault.KindOf(err) != fault.Unauthenticated || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	tk := tokens(f)
	tok, _, err := tk.Mint("id-1", "")
	if err != nil {
		f.Fatal(err)
	}
	good := tok.Reveal()
	f.Add(good)
	f.Add(good + ".")
	f.Fuzz(func(t *testing.T, token string) {
		if p, err := tk.Verify(token); err == nil && token != good {
			t.Errorf("%q was accepted as %+v", token, p)
		}
	})
}

func TestWhoIsWho(t *testing.T) {
	tk := tokens(t)
	tok, _, err := tk.Mint("id-1", "")
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "ada", OrganizationalUnit: []string{"dev"}}}
	for _, tt := range []struct {
		name string
		a    authn.Authenticator
		e    authn.Evidence
		want string // subject, or the text of the refusal after "!"
	}{
		{"nothing at all", authn.Authenticator{}, authn.Evidence{}, "!missing authorization header"},
		{"no certificate", authn.Authenticator{MTLS: true}, authn.Evidence{}, "!missing client certificate"},
		{"certificate", authn.Authenticator{MTLS: true}, authn.Evidence{Certificate: cert}, "ada"},
		{"certificate without mtls auth", authn.Authenticator{}, authn.Evidence{Certificate: cert}, "!missing authorization header"},
		{"anybody", authn.Authenticator{AnybodyIsUser: true}, authn.Evidence{}, "unauthenticated-local-dev"},
		{"owner", authn.Authenticator{MTLS: true}, authn.Evidence{Owner: true}, "local-owner"},
		{"sandbox", authn.Authenticator{Tokens: tk}, authn.Evidence{HasBearer: true, Bearer: tok.Reveal(), Owner: true}, "spiffe://openshell/sandbox/id-1"},
		{"wrong token is not passed over", authn.Authenticator{Tokens: tk, AnybodyIsUser: true}, authn.Evidence{HasBearer: true, Bearer: "x", Owner: true}, "!invalid token"},
	} {
		p, err := tt.a.Principal(tt.e)
		got := p.Subject
		if err != nil {
			got = "!" + err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRules(t *testing.T) {
	user := authn.LocalDeveloper()
	box := authn.Principal{Kind: authn.Sandbox}
	oidc := authn.Principal{Kind: authn.User, Provider: "oidc", Scopes: []string{"sandbox:read"}}
	for _, tt := range []struct {
		name string
		rule authn.Rule
		p    authn.Principal
		ok   bool
	}{
		{"zero rule", authn.Rule{}, user, false},
		{"health", authn.Rule{Mode: authn.Unauthenticated}, authn.Principal{}, true},
		{"user", authn.Rule{Mode: authn.Bearer}, user, true},
		{"nobody", authn.Rule{Mode: authn.Bearer}, authn.Principal{}, false},
		{"sandbox on a user method", authn.Rule{Mode: authn.Bearer}, box, false},
		{"user on a sandbox method", authn.Rule{Mode: authn.SandboxOnly}, user, false},
		{"nobody on a sandbox method", authn.Rule{Mode: authn.SandboxOnly}, authn.Principal{}, false},
		{"sandbox", authn.Rule{Mode: authn.SandboxOnly}, box, true},
		{"dual, user", authn.Rule{Mode: authn.Dual}, user, true},
		{"dual, sandbox", authn.Rule{Mode: authn.Dual}, box, true},
		{"dual, nobody", authn.Rule{Mode: authn.Dual}, authn.Principal{}, false},
		{"operator", authn.Rule{Mode: authn.Operator}, user, false},
		{"peer", authn.Rule{Mode: authn.Peer}, user, false},
		{"scope missing", authn.Rule{Mode: authn.Bearer, Scope: "sandbox:write"}, oidc, false},
		{"scope there", authn.Rule{Mode: authn.Bearer, Scope: "sandbox:read"}, oidc, true},
		{"admin", authn.Rule{Mode: authn.Bearer, PlatformAdmin: true}, oidc, false},
	} {
		if err := tt.rule.Allow(tt.p); (err == nil) != tt.ok {
			t.Errorf("%s: %v, want allowed %v", tt.name, err, tt.ok)
		}
	}
}

func TestTheOwnerOfASocket(t *testing.T) {
	if !peer(t) {
		t.Error("we are not the owner of our own socket")
	}
}

// TestAnAgentIsNotTheOwner connects from another user namespace, in which the
// same numeric id is mapped, as a sandboxed agent would.
func TestAnAgentIsNotTheOwner(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS)
	const variable = "OPENSHELL_AUTHN_TEST_SOCKET"
	agent := func(t *testing.T) {
		c, err := net.Dial("unix", os.Getenv(variable))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 1)) // until the other side has looked
	}
	inside := kerneltest.Child{Clone: syscall.CLONE_NEWUSER, InsideID: os.Geteuid()}
	if os.Getenv(variable) != "" {
		inside.Run(t, agent)
		return
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Setenv(variable, path); err != nil {
		t.Fatal(err)
	}
	defer os.Unsetenv(variable)
	verdict := make(chan bool, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			close(verdict)
			return
		}
		defer c.Close()
		owner, err := authn.PeerIsOwner(c.(*net.UnixConn))
		if err != nil {
			t.Error(err)
		}
		verdict <- owner
	}()
	inside.Run(t, agent)
	if owner, ok := <-verdict; owner || !ok {
		t.Errorf("a process of another user namespace is taken for the owner (%v, %v)", owner, ok)
	}
}

func peer(t *testing.T) bool {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	owner, err := authn.PeerIsOwner(s.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	return owner
}
