// Package config reads the settings of a gateway.
//
// It owns gateway.toml (schema 2), its environment variables and flags, and
// their order: flag, environment, file, default. Reading is strict: an unknown
// key fails with its position and the nearest known one, and a known key that
// this gateway would silently ignore is refused by name unless it says what
// happens anyway. It opens no socket and loads no key. The gateway uses it.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
)

// Schema is the only version of gateway.toml that is read.
const Schema = 2

// Settings is what a gateway runs with. Zero values mean what the comments
// say; Load fills in the defaults.
type Settings struct {
	Name       string // of this installation, in audit
	Bind       netip.AddrPort
	Health     netip.AddrPort // zero: off
	LogLevel   string
	DisableTLS bool
	StateDir   string // everything the gateway keeps, mode 0700
	Socket     string // Unix socket beside the port; "off" for none
	DBPath     string
	IdleExit   time.Duration // end after so long without sandboxes; 0: never

	TLSCert, TLSKey, TLSClientCA string
	GuestCA                      string // the CA that supervisors trust
	ServerSANs                   []string
	LocalTLSDir                  string // the bundle made on first use
	MTLSAuth                     *bool  // nil: on iff a client CA is there
	AnybodyIsUser                bool   // auth.allow_unauthenticated_users

	JWTSigning, JWTPublic, JWTKeyID string // all or none: then LocalTLSDir's
	GatewayID                       string
	TokenTTL                        time.Duration // 0: tokens do not expire

	SSHSessionTTL    time.Duration // 0: no expiry
	ImagePreparation time.Duration
	OutageLimit      time.Duration
	Driver           string
	Native           Native

	// File is the configuration file that was read; empty if none was.
	File string
}

// Native are the settings of the native driver.
type Native struct {
	DefaultImage      string // what an empty image means
	PullPolicy        string
	CacheDir          string
	Catalogue         string
	CommunityRegistry string
	SupervisorPath    string
	AllowDriverConfig bool
}

// Source is where Load looks. Zero values read nothing.
type Source struct {
	// Flags are the flags given, by name without dashes.
	Flags map[string][]string
	// Env returns an environment variable.
	Env func(string) string
	// Path is the file; Explicit says that it must exist.
	Path     string
	Explicit bool
}

// Load reads, merges and checks the settings.
func Load(src Source) (Settings, error) {
	env := src.Env
	if env == nil {
		env = func(string) string { return "" }
	}
	s := Settings{
		Name: brand.Name, Bind: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), brand.GatewayPort), LogLevel: "info",
		GatewayID: brand.Name, SSHSessionTTL: 24 * time.Hour, ImagePreparation: 30 * time.Minute, OutageLimit: 2 * time.Minute,
		Driver: "native", Native: Native{DefaultImage: "host"},
	}
	if src.Path != "" {
		body, err := readConfig(src.Path, src.Explicit)
		if err != nil {
			return Settings{}, err
		}
		if body != nil {
			s.File = src.Path
			if err := applyFile(&s, src.Path, body); err != nil {
				return Settings{}, err
			}
		}
	}
	for _, k := range keys {
		if k.env == "" {
			continue
		}
		name := brand.Env(k.env)
		if v := env(name); v != "" {
			if err := k.fromText(&s, []string{v}); err != nil {
				return Settings{}, at(name, err)
			}
		}
	}
	for _, k := range keys {
		if v, given := src.Flags[k.flag]; given && k.flag != "" {
			if err := k.fromText(&s, v); err != nil {
				return Settings{}, at("--"+k.flag, err)
			}
		}
	}
	if err := s.places(env); err != nil {
		return Settings{}, err
	}
	return s, s.check()
}

// DefaultPath returns the file that is read when none is named, and whether
// it was named by the environment.
func DefaultPath(env func(string) string) (path string, explicit bool) {
	if p := env(brand.Env("GATEWAY_CONFIG")); p != "" {
		return p, true
	}
	base := env("XDG_CONFIG_HOME")
	if base == "" {
		base = filepath.Join(env("HOME"), ".config")
	}
	return filepath.Join(base, brand.ConfigDir, "gateway.toml"), false
}

// readConfig returns nil without an error for a default file that is absent.
func readConfig(path string, explicit bool) ([]byte, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) && !explicit {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "cannot read the configuration %s", path).Cause(err)
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.InvalidArgument, "the configuration %s is not a regular file", path)
	}
	const limit = 1 << 20
	if info.Size() > limit {
		return nil, fault.New(fault.InvalidArgument, "the configuration %s is larger than 1 MiB", path)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "cannot read the configuration %s", path).Cause(err)
	}
	if body == nil {
		body = []byte{}
	}
	return body, nil
}

// places fills in the directories that depend on the account.
func (s *Settings) places(env func(string) string) error {
	if s.StateDir == "" {
		base := env("XDG_STATE_HOME")
		if base == "" {
			home := env("HOME")
			if home == "" {
				return fault.New(fault.FailedPrecondition, "neither XDG_STATE_HOME nor HOME is set").Hint("name a directory with --state-dir")
			}
			base = filepath.Join(home, ".local", "state")
		}
		s.StateDir = filepath.Join(base, brand.ConfigDir, "gateway")
		if s.LocalTLSDir == "" {
			s.LocalTLSDir = filepath.Join(base, brand.ConfigDir, "tls")
		}
	}
	if s.LocalTLSDir == "" {
		s.LocalTLSDir = filepath.Join(s.StateDir, "tls")
	}
	if s.DBPath == "" {
		s.DBPath = filepath.Join(s.StateDir, brand.Name+".db")
	}
	switch s.Socket {
	case "off":
		s.Socket = ""
	case "":
		s.Socket = filepath.Join(s.StateDir, "run", "gateway.sock")
	}
	return nil
}

// check refuses what contradicts itself.
func (s *Settings) check() error {
	bad := func(format string, args ...any) error { return fault.New(fault.InvalidArgument, format, args...) }
	switch {
	case s.DisableTLS && (s.TLSCert != "" || s.TLSKey != "" || s.TLSClientCA != ""):
		return bad("TLS is disabled, yet certificates are named: leave out --disable-tls, or the tls keys")
	case (s.TLSCert == "") != (s.TLSKey == ""):
		return bad("a certificate and its key come together: --tls-cert and --tls-key")
	case s.TLSClientCA != "" && s.TLSCert == "":
		return bad("--tls-cert is required when TLS is enabled with --tls-client-ca")
	case s.MTLSAuth != nil && *s.MTLSAuth && s.DisableTLS:
		return bad("mTLS user authentication needs TLS")
	case s.MTLSAuth != nil && *s.MTLSAuth && s.TLSCert != "" && s.TLSClientCA == "":
		return bad("mTLS user authentication needs a client CA: --tls-client-ca")
	case s.Health.IsValid() && s.Health == s.Bind:
		return bad("the health address and the main address are the same: %s", s.Bind)
	}
	some, all := s.JWTSigning != "" || s.JWTPublic != "" || s.JWTKeyID != "", s.JWTSigning != "" && s.JWTPublic != "" && s.JWTKeyID != ""
	if some && !all {
		return bad("gateway_jwt needs signing_key_path, public_key_path and kid_path together")
	}
	if s.Driver != "native" {
		return fault.New(fault.Unsupported, "compute driver %q is not served by this gateway", s.Driver).Hint("--compute-driver native")
	}
	// A gateway that would answer everybody must say so itself.
	if s.DisableTLS && !s.AnybodyIsUser {
		return fault.New(fault.FailedPrecondition, "without TLS nobody could be told apart, and no authentication is configured").
			Hint("[openshell.gateway.auth] allow_unauthenticated_users = true, or leave out --disable-tls")
	}
	if s.MTLSAuth != nil && !*s.MTLSAuth && !s.AnybodyIsUser {
		return fault.New(fault.FailedPrecondition, "no authentication is configured: mTLS user authentication is switched off").
			Hint("[openshell.gateway.auth] allow_unauthenticated_users = true, or mtls_auth.enabled = true")
	}
	return nil
}

// MTLS reports whether client certificates identify users.
func (s *Settings) MTLS() bool {
	if s.MTLSAuth != nil {
		return *s.MTLSAuth
	}
	return !s.DisableTLS && (s.TLSClientCA != "" || s.TLSCert == "")
}

func at(where string, err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		out := fault.New(f.Kind, "%s: %s", where, f.Error())
		if h := f.HintText(); h != "" {
			out = out.Hint("%s", h)
		}
		return out
	}
	return fault.New(fault.InvalidArgument, "%s: %s", where, strings.TrimSpace(fmt.Sprint(err)))
}
