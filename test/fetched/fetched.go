// Package fetched knows which programs of other people the tests run, gets
// them with the ordinary package clients as they are configured on the
// machine, and finds them again.
//
// What is fetched lies in one directory that every account may read, because
// the tests run as an ordinary account too. A test that asks for something
// that is not there is skipped with its name. Fetching happens only in Get,
// which the program test/runtimes/fetch calls. Used by tests only.
package fetched

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Versions of what is fetched. A newer one is a change here, so that a test
// that begins to fail says what changed.
var (
	Node     = map[int]string{22: "22.23.3", 24: "24.21.0", 26: "26.10.0"}
	ciao     = "@homebridge/ciao@1.3.12"
	OpenClaw = "openclaw@2026.9.6"
	agents   = map[string]string{
		"codex":    "@openai/codex@0.169.0",
		"claude":   "@anthropic-ai/claude-code@2.1.330",
		"opencode": "opencode-ai@1.18.33",
		"gemini":   "@google/gemini-cli@0.61.0",
	}
	sdk    = []string{"openshell==0.1.5"}
	python = []string{"psutil==7.2.2", "pytest==9.2.0", "setuptools==84.2.1", "wheel==0.48.0", "pip==26.3"}
)

// Agents are the names of the agents' commands.
func Agents() []string { return []string{"codex", "claude", "opencode", "gemini"} }

// SystemPython is the interpreter that is visible inside a sandbox, whatever
// else the account has installed in its home.
const SystemPython = "/usr/bin/python3"

// Dir is the directory of what is fetched: OPENSHELL_TEST_CACHE, or one of
// the account's, or for root one of the machine's.
func Dir() (string, error) {
	if dir := os.Getenv("OPENSHELL_TEST_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Getuid() == 0 {
		return "/var/cache/openshell-test", nil // nobody else may enter root's home
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(base, "openshell-test"), nil
}

// setDir is where a set of packages of a client lies.
func setDir(dir, client string, packages ...string) string {
	name := client + "-" + strings.NewReplacer("/", "_", "@", "-", "==", "-").Replace(strings.Join(packages, "+"))
	return filepath.Join(dir, name)
}

// NodePackage is the npm package with the program node of a major version
// for this machine; false if there is none.
func NodePackage(major int) (name, version string, ok bool) {
	arch, known := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	version, have := Node[major]
	return "node-linux-" + arch, version, known && have
}

// need skips unless path is there.
func need(t testing.TB, path, what string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%s is not here; get it with: go run ./test/runtimes/fetch", what)
	}
	return path
}

func dir(t testing.TB) string {
	t.Helper()
	d, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// NodeBin is the directory of the program node of a major version.
func NodeBin(t testing.TB, major int) string {
	t.Helper()
	pkg, version, ok := NodePackage(major)
	if !ok {
		t.Skipf("no Node %d for %s", major, runtime.GOARCH)
	}
	at := filepath.Join(setDir(dir(t), "npm", pkg+"@"+version), "node_modules", pkg, "bin")
	need(t, filepath.Join(at, "node"), fmt.Sprintf("Node %d", major))
	return at
}

// Ciao is the directory whose node_modules holds @homebridge/ciao.
func Ciao(t testing.TB) string {
	t.Helper()
	return need(t, setDir(dir(t), "npm", ciao), ciao)
}

// Agent is the directory whose node_modules/.bin holds the agent's command.
func Agent(t testing.TB, command string) string {
	t.Helper()
	at := setDir(dir(t), "npm", agents[command])
	need(t, filepath.Join(at, "node_modules/.bin", command), agents[command])
	return at
}

// SDK is the directory of the published Python client of the 0.1.x line, for
// PYTHONPATH. It is run as a stock client; nothing of it is looked into.
func SDK(t testing.TB) string {
	t.Helper()
	need(t, SystemPython, "python3")
	return need(t, setDir(dir(t), "pip", sdk...), "the published Python SDK")
}

// Python is the directory of Python packages (psutil, pytest, pip and what
// builds a package), for PYTHONPATH.
func Python(t testing.TB) string {
	t.Helper()
	need(t, SystemPython, "python3")
	return need(t, setDir(dir(t), "pip", python...), "psutil and pytest")
}

// system maps a command to the Debian package that brings it.
var system = []struct{ command, pkg string }{
	{"musl-gcc", "musl-tools"}, {"gcc", "gcc"}, {"make", "make"}, {"git", "git"}, {"javac", "default-jdk-headless"},
	{SystemPython, "python3"}, {"perl", "perl"}, {"sqlite3", "sqlite3"},
}

// Command finds a program of the system, or skips.
func Command(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		for _, s := range system {
			if s.command == name {
				t.Skipf("%s is not here; get it with: go run ./test/runtimes/fetch, or install %s", name, s.pkg)
			}
		}
		t.Skipf("%s is not on this machine", name)
	}
	return path
}

// AgentVersion is what the agent must print.
func AgentVersion(command string) string {
	pkg := agents[command]
	return pkg[strings.LastIndexByte(pkg, '@')+1:]
}
