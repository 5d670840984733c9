package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/fault"
)

// run executes a command line in an empty account.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := root()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.Execute()
	return out.String(), err
}

func account(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_STATE_HOME", "OPENSHELL_GATEWAY_CONFIG", "OPENSHELL_LOCAL_TLS_DIR"} {
		t.Setenv(name, "")
	}
	return home
}

func TestPreflight(t *testing.T) {
	home := account(t)
	file := filepath.Join(home, "g.toml")
	if err := os.WriteFile(file, []byte("[openshell]\nversion = 2\n[openshell.gateway]\nbind_adress = \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		want string // of the output, or of the error after "!"
	}{
		{"nothing configured", nil, "configuration: none"},
		{"explicit arguments", []string{"--", "--port", "1234", "--disable-tls", "--allow-unauthenticated-users"}, "address: 127.0.0.1:1234"},
		{"an unknown key", []string{"--path", file}, "!g.toml:4:1: unknown key"},
		{"a missing file", []string{"--path", file + "x"}, "!cannot read the configuration"},
		{"no authentication", []string{"--", "--disable-tls"}, "!no authentication is configured"},
		{"an unknown flag", []string{"--", "--prot", "1"}, "!unknown flag"},
		{"a stray word", []string{"--", "serve"}, "!unexpected argument"},
	} {
		out, err := run(t, append([]string{"config", "preflight"}, tt.args...)...)
		got := out
		if err != nil {
			got = "!" + err.Error()
		}
		if want, isErr := strings.CutPrefix(tt.want, "!"); !strings.Contains(got, want) || (err != nil) != isErr {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if left, err := os.ReadDir(home); err != nil || len(left) != 1 {
		t.Errorf("preflight left %v (%v)", left, err)
	}
}

func TestGenerateCerts(t *testing.T) {
	home := account(t)
	for n, want := range []string{"written", "unchanged"} {
		out, err := run(t, "generate-certs")
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("run %d: %q, %v", n, out, err)
		}
	}
	for _, f := range []string{".local/state/openshell/tls/jwt/kid", ".config/openshell/gateways/openshell/mtls/tls.key"} {
		if info, err := os.Stat(filepath.Join(home, f)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
	out, err := run(t, "generate-certs", "--dry-run")
	if err != nil || strings.Count(out, "-----BEGIN") != 5 {
		t.Errorf("dry run: %v\n%s", err, out)
	}
}

func TestMisuse(t *testing.T) {
	account(t)
	for _, args := range [][]string{{"--prot", "1"}, {"frobnicate"}, {"--log-level", "loud", "--state-dir", t.TempDir()}, {"--disable-tls", "--state-dir", t.TempDir()}} {
		_, err := run(t, args...)
		if k := fault.KindOf(err); k != fault.InvalidArgument && k != fault.FailedPrecondition {
			t.Errorf("%q: %v (%v)", args, err, k)
		}
	}
}
