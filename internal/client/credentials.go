package client

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// oidcToken is the part of oidc_token.json that a call needs.
type oidcToken struct {
	Access  string `json:"access_token"`
	Expires int64  `json:"expires_at"` // Unix seconds; 0: never stale
}

// authorization returns the headers that the registration's auth_mode asks
// for. Only oidc and edge registrations have any.
func authorization(o Options, t Target) (map[string]string, error) {
	if !t.Registered {
		return nil, nil
	}
	dir := o.Registry.Dir(t.Name)
	switch t.AuthMode {
	case "oidc":
		body, err := os.ReadFile(filepath.Join(dir, "oidc_token.json"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.Unauthenticated, "OIDC credentials are missing for gateway %q", t.Name).
				Hint("sign in with a client that offers `gateway login`; it writes %s", filepath.Join(dir, "oidc_token.json"))
		}
		if err != nil {
			return nil, fault.New(fault.PermissionDenied, "cannot read the token of gateway %q", t.Name).Cause(err)
		}
		var token oidcToken
		if err := json.Unmarshal(body, &token); err != nil || !headerSafe(token.Access) {
			return nil, fault.New(fault.FailedPrecondition, "%s holds no usable token", filepath.Join(dir, "oidc_token.json"))
		}
		if token.Expires != 0 && time.Now().Unix() >= token.Expires {
			return nil, fault.New(fault.Unauthenticated, "the OIDC token of gateway %q expired at %s", t.Name, time.Unix(token.Expires, 0).UTC().Format(time.DateTime)).
				Hint("sign in again; this version does not refresh tokens")
		}
		return map[string]string{"Authorization": "Bearer " + token.Access}, nil
	case "cloudflare_jwt":
		token := ""
		for _, name := range []string{"edge_token", "cf_token"} {
			if body, err := os.ReadFile(filepath.Join(dir, name)); err == nil && token == "" {
				token = strings.TrimSpace(string(body))
			}
		}
		if token == "" {
			return nil, fault.New(fault.Unauthenticated, "edge credentials are missing for gateway %q", t.Name).
				Hint("%s gateway add %s --name NAME --local for a gateway with certificates", brand.CLI, t.Endpoint)
		}
		if !headerSafe(token) {
			return nil, fault.New(fault.FailedPrecondition, "the edge token of gateway %q is malformed", t.Name)
		}
		if t.URL.Scheme == "https" {
			return nil, fault.New(fault.Unsupported, "gateway %q is behind an edge that needs a WebSocket tunnel, which this version does not open", t.Name)
		}
		return map[string]string{"Cf-Access-Jwt-Assertion": token, "Cookie": "CF_Authorization=" + token}, nil
	}
	return nil, nil
}

// headerSafe refuses what could end a header.
func headerSafe(s string) bool {
	if s == "" || len(s) > 16<<10 {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ';' || s[i] == ',' {
			return false
		}
	}
	return true
}
