package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.dev/openshell/internal/config"
	"openshell.dev/openshell/internal/fault"
)

func load(t *testing.T, file string, env map[string]string, flags map[string][]string) (config.Settings, error) {
	t.Helper()
	src := config.Source{Flags: flags, Env: func(k string) string {
		if k == "HOME" {
			return "/home/x"
		}
		return env[k]
	}}
	if file != "" {
		src.Path, src.Explicit = filepath.Join(t.TempDir(), "gateway.toml"), true
		if err := os.WriteFile(src.Path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config.Load(src)
}

func TestPrecedence(t *testing.T) {
	file := "[openshell]\nversion = 2\n[openshell.gateway]\nbind_address = \"127.0.0.1:1\"\nname = \"file\"\n"
	for _, tt := range []struct {
		name  string
		file  string
		env   map[string]string
		flags map[string][]string
		bind  string
	}{
		{"default", "", nil, nil, "127.0.0.1:17670"},
		{"file", file, nil, nil, "127.0.0.1:1"},
		{"variable over file", file, map[string]string{"OPENSHELL_SERVER_PORT": "2"}, nil, "127.0.0.1:2"},
		{"flag over variable", file, map[string]string{"OPENSHELL_SERVER_PORT": "2"}, map[string][]string{"port": {"3"}, "bind-address": {"::1"}}, "[::1]:3"},
	} {
		s, err := load(t, tt.file, tt.env, tt.flags)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if s.Bind != netip.MustParseAddrPort(tt.bind) {
			t.Errorf("%s: bind = %v, want %s", tt.name, s.Bind, tt.bind)
		}
	}
}

func TestDefaults(t *testing.T) {
	s, err := load(t, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.DBPath != "/home/x/.local/state/openshell/gateway/openshell.db" || s.LocalTLSDir != "/home/x/.local/state/openshell/tls" || !s.MTLS() ||
		s.SSHSessionTTL != 24*time.Hour || s.Native.DefaultImage != "host" {
		t.Errorf("settings = %+v", s)
	}
}

func TestTheFileIsReadStrictly(t *testing.T) {
	const head = "[openshell]\nversion = 2\n"
	for _, tt := range []struct{ name, file, want, hint string }{
		{"empty", "\n", "version is missing", "version = 2"},
		{"version 1", "[openshell]\nversion = 1\n", "gateway.toml:2:1: unsupported gateway config version 1", ""},
		{"syntax", head + "x = = 1\n", "gateway.toml:3:", ""},
		{"unknown key", head + "[openshell.gateway]\nbind_adress = \"x\"\n", `gateway.toml:4:1: unknown key "openshell.gateway.bind_adress"`, `"openshell.gateway.bind_address"`},
		{"unknown table", head + "[openshell.gatway]\nname = \"x\"\n", `gateway.toml:3:2: unknown key "openshell.gatway"`, `"openshell.gateway"`},
		{"unknown root", "[other]\nx = 1\n", "unknown key \"other\"", ""},
		{"wrong type", head + "[openshell.gateway]\ndisable_tls = \"yes\"\n", "gateway.toml:4:1: openshell.gateway.disable_tls: expected true or false", ""},
		{"bad value", head + "[openshell.gateway]\nbind_address = \"localhost\"\n", "is not an address and port", ""},
		{"unserved", head + "[openshell.gateway]\nenable_websocket_tunnel = true\n", "openshell.gateway.enable_websocket_tunnel: this gateway does not serve", "remove it"},
		{"unserved table", head + "[openshell.gateway.oidc]\nissuer = \"https://x\"\n", "openshell.gateway.oidc: this gateway does not serve", "remove it"},
		{"database", head + "[openshell.gateway]\ndatabase_url = \"sqlite:x\"\n", "never named in the file", ""},
		{"zero ttl", head + "[openshell.gateway.gateway_jwt]\nttl_secs = 0\n", "0 is not between 1", ""},
		{"driver key", head + "[openshell.drivers.native]\ndefault_imag = \"x\"\n", "unknown key", `"openshell.drivers.native.default_image"`},
		{"driver is no table", head + "[openshell.drivers]\ndocker = 1\n", "expected a table", ""},
		{"another driver", head + "[openshell.gateway]\ncompute_driver = \"docker\"\n", `compute driver "docker" is not served`, "native"},
		{"no authentication", head + "[openshell.gateway]\ndisable_tls = true\n", "no authentication is configured", "allow_unauthenticated_users"},
		{"half a key pair", head + "[openshell.gateway.tls]\ncert_path = \"x\"\n", "come together", ""},
		{"half a token key", head + "[openshell.gateway.gateway_jwt]\nkid_path = \"x\"\n", "together", ""},
		{"tls off with certificates", head + "[openshell.gateway]\ndisable_tls = true\n[openshell.gateway.tls]\ncert_path = \"x\"\nkey_path = \"y\"\n", "TLS is disabled", ""},
	} {
		_, err := load(t, tt.file, nil, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(fault.HintOf(err), tt.hint) {
			t.Errorf("%s: %v (hint %q), want %q (hint %q)", tt.name, err, fault.HintOf(err), tt.want, tt.hint)
		}
	}
}

func TestWhatIsAccepted(t *testing.T) {
	const head = "[openshell]\nversion = 2\n"
	for name, file := range map[string]string{
		"unserved at its default":  head + "[openshell.gateway]\nenable_websocket_tunnel = false\nenable_loopback_service_http = true\nprovider_profile_sources = [{type = \"user\"}]\n",
		"unselected driver":        head + "[openshell.drivers.docker]\nanything = 1\n",
		"quick start":              head + "[openshell.gateway]\ndisable_tls = true\n[openshell.gateway.auth]\nallow_unauthenticated_users = true\n",
		"dotted keys":              "openshell.version = 2\nopenshell.gateway.name = \"x\"\n",
		"native driver":            head + "[openshell.drivers.native]\ndefault_image = \"docker.io/library/alpine\"\n",
		"seconds":                  head + "[openshell.gateway]\nssh_session_ttl_secs = 0\nimage_preparation_timeout_seconds = 60\n",
		"names of the certificate": head + "[openshell.gateway]\nserver_sans = [\"a\", \"*.b\"]\n",
	} {
		if _, err := load(t, file, nil, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFlagsAndVariablesAreNamed(t *testing.T) {
	if _, err := load(t, "", map[string]string{"OPENSHELL_SERVER_PORT": "x"}, nil); err == nil || !strings.Contains(err.Error(), "OPENSHELL_SERVER_PORT") {
		t.Errorf("variable: %v", err)
	}
	if _, err := load(t, "", nil, map[string][]string{"port": {"70000"}}); err == nil || !strings.Contains(err.Error(), "--port") {
		t.Errorf("flag: %v", err)
	}
	if _, err := load(t, "", nil, map[string][]string{"oidc-issuer": {"https://x"}}); fault.KindOf(err) != fault.Unsupported {
		t.Errorf("unserved flag: %v", err)
	}
}

func TestASymbolicLinkIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.toml")
	if err := os.Symlink("/dev/null", path); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(config.Source{Path: path, Explicit: true}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("err = %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("[openshell]\nversion = 2\n[openshell.gateway]\nname = \"x\"\n")
	f.Add("openshell.version = 2\n[[openshell.gateway.interceptors]]\nname = 1\n")
	f.Fuzz(func(t *testing.T, body string) {
		path := filepath.Join(t.TempDir(), "g.toml")
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := config.Load(config.Source{Path: path, Explicit: true, Env: func(string) string { return "/h" }})
		if err == nil && !s.Bind.IsValid() {
			t.Errorf("accepted without an address: %+v", s)
		}
	})
}
