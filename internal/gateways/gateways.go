// Package gateways is the client's list of gateways on disk.
//
// It owns the files below $XDG_CONFIG_HOME/openshell that name a gateway, its
// address and how to authenticate: active_gateway and
// gateways/<name>/metadata.json, in the spelling every client of the 0.1.x
// line reads, with our further keys ignored by them. It holds no secrets and
// makes no connection. The command line, the gateway and SDK tests use it.
package gateways

import (
	"encoding/json"
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

// Metadata is one registration.
type Metadata struct {
	Name         string `json:"name"`
	Endpoint     string `json:"gateway_endpoint"`
	IsRemote     bool   `json:"is_remote"`
	Port         uint16 `json:"gateway_port"` // 0 by custom; the endpoint has it
	RemoteHost   string `json:"remote_host,omitempty"`
	ResolvedHost string `json:"resolved_host,omitempty"`
	AuthMode     string `json:"auth_mode,omitempty"` // mtls, plaintext, oidc, cloudflare_jwt

	OIDCIssuer   string `json:"oidc_issuer,omitempty"`
	OIDCClientID string `json:"oidc_client_id,omitempty"`
	OIDCAudience string `json:"oidc_audience,omitempty"`
	OIDCScopes   string `json:"oidc_scopes,omitempty"`

	// UnixSocket is ours: a socket beside the port that spares a client of
	// the same account the handshake. Other clients ignore it.
	UnixSocket string `json:"unix_socket,omitempty"`
	// Private is ours: the command line started this gateway and may start
	// it again; StateDir is where it keeps its state.
	Private  bool   `json:"private,omitempty"`
	StateDir string `json:"state_dir,omitempty"`
}

// Registry is the configuration root of a user, with the system-wide one
// behind it.
type Registry struct {
	Root   string // $XDG_CONFIG_HOME/openshell
	System string // read only; empty means none
}

// Default returns the registry of the caller's account.
func Default() (Registry, error) {
	system := os.Getenv(brand.Env("SYSTEM_GATEWAY_DIR"))
	if system == "" {
		system = brand.SystemDir
	}
	base := os.Getenv("XDG_CONFIG_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return Registry{}, fault.New(fault.FailedPrecondition, "neither XDG_CONFIG_HOME nor HOME is set").Cause(err)
		}
		base = filepath.Join(home, ".config")
	}
	return Registry{Root: filepath.Join(base, brand.ConfigDir), System: system}, nil
}

// CheckName reports why s cannot name a gateway: it must be one path element.
func CheckName(s string) error {
	if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\\\x00") {
		return fault.New(fault.InvalidArgument, "gateway name %q must be one path element", s)
	}
	return nil
}

// Dir returns the directory of a registration.
func (r Registry) Dir(name string) string { return filepath.Join(r.Root, "gateways", name) }

// MTLSDir returns where the client's certificates of a gateway lie.
func (r Registry) MTLSDir(name string) string {
	safe := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.ContainsRune("._-", c):
			return c
		}
		return '_'
	}, name)
	return filepath.Join(r.Root, "gateways", safe, "mtls")
}

// Active returns the name of the selected gateway; empty if there is none.
func (r Registry) Active() (string, error) {
	for _, root := range r.roots() {
		body, err := os.ReadFile(filepath.Join(root, "active_gateway"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fault.New(fault.PermissionDenied, "cannot read %s", filepath.Join(root, "active_gateway")).Cause(err)
		}
		if name := strings.TrimSpace(string(body)); name != "" {
			return name, nil
		}
	}
	return "", nil
}

// SetActive selects a gateway; the empty name selects none.
func (r Registry) SetActive(name string) error {
	path := filepath.Join(r.Root, "active_gateway")
	if name == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("deselect the gateway: %w", err)
		}
		return nil
	}
	if err := CheckName(name); err != nil {
		return err
	}
	return replace(path, []byte(name+"\n"))
}

// Get returns a registration. A user's entry hides the system's even when it
// cannot be read.
func (r Registry) Get(name string) (Metadata, error) {
	if err := CheckName(name); err != nil {
		return Metadata{}, err
	}
	var searched []string
	for _, root := range r.roots() {
		path := filepath.Join(root, "gateways", name, "metadata.json")
		searched = append(searched, path)
		body, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Metadata{}, fault.New(fault.PermissionDenied, "cannot read %s", path).Cause(err)
		}
		var m Metadata
		if err := json.Unmarshal(body, &m); err != nil {
			return Metadata{}, fault.New(fault.FailedPrecondition, "%s is not valid: %v", path, err).
				Hint("%s gateway remove %s, then add it again", brand.CLI, name)
		}
		if m.Endpoint == "" {
			return Metadata{}, fault.New(fault.FailedPrecondition, "%s has no gateway_endpoint", path)
		}
		if m.Name == "" {
			m.Name = name
		}
		return m, nil
	}
	return Metadata{}, fault.New(fault.NotFound, "no gateway named %q (looked in %s)", name, strings.Join(searched, " and ")).
		Hint("%s gateway list", brand.CLI)
}

// List returns every readable registration, sorted by name.
func (r Registry) List() ([]Metadata, error) {
	seen := map[string]bool{}
	var out []Metadata
	for _, root := range r.roots() {
		entries, err := os.ReadDir(filepath.Join(root, "gateways"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fault.New(fault.PermissionDenied, "cannot list %s", filepath.Join(root, "gateways")).Cause(err)
		}
		for _, e := range entries {
			if _, err := os.Stat(filepath.Join(root, "gateways", e.Name(), "metadata.json")); err != nil || seen[e.Name()] {
				continue
			}
			seen[e.Name()] = true
			if m, err := r.Get(e.Name()); err == nil {
				out = append(out, m)
			}
		}
	}
	slices.SortFunc(out, func(a, b Metadata) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Put writes a registration.
func (r Registry) Put(m Metadata) error {
	if err := CheckName(m.Name); err != nil {
		return err
	}
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(r.Dir(m.Name), "metadata.json"), append(body, '\n'))
}

// Remove deletes a registration with everything beside it.
func (r Registry) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := os.Stat(r.Dir(name)); err != nil {
		return fault.New(fault.NotFound, "no gateway named %q is registered here", name).Cause(err)
	}
	return os.RemoveAll(r.Dir(name))
}

func (r Registry) roots() []string {
	if r.System == "" {
		return []string{r.Root}
	}
	return []string{r.Root, r.System}
}

// replace writes a private file by renaming a complete one into place.
func replace(path string, body []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.New(fault.PermissionDenied, "cannot make %s", dir).Cause(err)
	}
	f, err := os.CreateTemp(dir, ".new-") // mode 0600
	if err != nil {
		return fault.New(fault.PermissionDenied, "cannot write in %s", dir).Cause(err)
	}
	_, err = f.Write(body)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
