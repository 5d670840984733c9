package runcmd

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"openshell.dev/openshell/internal/brand"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/supervisor"
)

// passed are the caller's variables that every program may see: they say how
// to talk to the person, nothing about the person or the host.
var passed = []string{
	"TERM", "COLORTERM", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR",
	"LANG", "LANGUAGE", "LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION", "LC_MEASUREMENT",
	"LC_MESSAGES", "LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER", "LC_TELEPHONE", "LC_TIME", "TZ",
}

const (
	maxEnvFile  = 1 << 20
	maxEnvLines = 4096
)

// environment is what the flags and the caller add to the built-in one.
func (f *flags) environment() ([]string, error) {
	var out []string
	for _, name := range passed {
		if v, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+v)
		}
	}
	for _, path := range f.envFiles {
		lines, err := readEnvFile(path)
		if err != nil {
			return nil, err
		}
		out = append(out, lines...)
	}
	for _, name := range f.passEnv {
		if err := checkName("--pass-env", name); err != nil {
			return nil, err
		}
		v, ok := os.LookupEnv(name)
		if !ok {
			return nil, misuse("--pass-env %s: the variable is not set", name).Hint("export %s=... first, or drop the flag", name)
		}
		out = append(out, name+"="+v)
	}
	for _, kv := range f.env {
		name, _, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, misuse("--env %q has no value", kv).Hint("--env %s=VALUE, or --pass-env %s", kv, kv)
		}
		if err := checkName("--env", name); err != nil {
			return nil, err
		}
		out = append(out, kv)
	}
	return supervisor.Merge(out), nil
}

// checkName refuses what is no variable name, or one of ours.
func checkName(where, name string) error {
	ok := name != ""
	for i := range len(name) {
		c := name[i]
		ok = ok && (c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || i > 0 && c >= '0' && c <= '9')
	}
	if !ok {
		return misuse("%s: %q is not a variable name", where, name).Hint("letters, digits and underscores")
	}
	if strings.HasPrefix(name, brand.EnvPrefix) {
		return misuse("%s: names that begin with %s are reserved", where, brand.EnvPrefix).Hint("use another name")
	}
	return nil
}

// readEnvFile reads K=V lines; a name alone passes the caller's variable, and
// a line that begins with # is a comment.
func readEnvFile(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, misuse("read --env-file %q", path).Cause(err)
	}
	defer file.Close()
	var out []string
	scan := bufio.NewScanner(file)
	scan.Buffer(make([]byte, 0, 64<<10), maxEnvFile)
	for n := 1; scan.Scan(); n++ {
		line := strings.TrimSpace(strings.TrimPrefix(scan.Text(), "\ufeff"))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if n > maxEnvLines {
			return nil, misuse("%s: more than %d lines", path, maxEnvLines)
		}
		name, value, ok := strings.Cut(line, "=")
		if err := checkName(fmt.Sprintf("%s:%d", path, n), name); err != nil {
			return nil, err
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue
			}
		}
		out = append(out, name+"="+value)
	}
	if err := scan.Err(); err != nil {
		return nil, fault.New(fault.InvalidArgument, "read --env-file %q", path).Cause(err)
	}
	return out, nil
}

// systemPrefixes are where the host's own programs are seen inside.
var systemPrefixes = []string{"/usr", "/bin", "/sbin", "/opt", "/nix", "/gnu", "/run/current-system"}

// searchPath is the caller's PATH without what is not visible inside, so that
// a program is found there if it is found here and shown.
func searchPath(shown []string) string {
	prefixes := slices.Concat(systemPrefixes, shown)
	var out []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		visible := slices.ContainsFunc(prefixes, func(p string) bool { return dir == p || strings.HasPrefix(dir, p+"/") })
		if visible && filepath.IsAbs(dir) && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	for _, dir := range filepath.SplitList(supervisor.DefaultPath) {
		if !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return strings.Join(out, ":")
}
