// Package e2e runs the built programs as a person would, with an ordinary
// account and with whatever account the tests have.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/test/built"
)

func TestMain(m *testing.M) {
	code := m.Run()
	built.Clean()
	os.Exit(code)
}

// account is who runs the programs.
type account struct {
	name string
	uid  int // -1: as the tests
}

// accounts are all that can be tried here: an ordinary one always, root if
// the tests have it.
func accounts() []account {
	if os.Getuid() == 0 {
		return []account{{"ordinary", kerneltest.OrdinaryID}, {"root", 0}}
	}
	return []account{{"ordinary", -1}}
}

// person is an account with a home and a workspace of its own.
type person struct {
	t         testing.TB
	account   account
	bin       string
	home      string
	workspace string
	env       []string
}

func newPerson(t testing.TB, a account) *person {
	t.Helper()
	kerneltest.Require(t, kerneltest.UserNS, kerneltest.NetAdmin, kerneltest.Landlock, kerneltest.Seccomp)
	base, err := os.MkdirTemp("", "openshell-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	p := &person{t: t, account: a, bin: built.Dir(t), home: filepath.Join(base, "home"), workspace: filepath.Join(base, "work")}
	for _, dir := range []string{p.home, p.workspace} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	p.own(base, p.home, p.workspace)
	return p
}

// eachPerson runs a test once for every account.
func eachPerson(t *testing.T, test func(t *testing.T, p *person)) {
	t.Helper()
	for _, a := range accounts() {
		t.Run(a.name, func(t *testing.T) { test(t, newPerson(t, a)) })
	}
}

// own gives files to the account.
func (p *person) own(paths ...string) {
	p.t.Helper()
	if p.account.uid <= 0 {
		return
	}
	for _, path := range paths {
		if err := os.Lchown(path, p.account.uid, p.account.uid); err != nil {
			p.t.Fatal(err)
		}
	}
}

// file puts a file into the workspace and returns its path.
func (p *person) file(name, content string) string {
	p.t.Helper()
	path := filepath.Join(p.workspace, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		p.t.Fatal(err)
	}
	for at := path; at != p.workspace; at = filepath.Dir(at) {
		p.own(at)
	}
	return path
}

// command prepares a program of ours.
func (p *person) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, program), args...)
	cmd.Dir = p.workspace
	cmd.Env = append([]string{
		"HOME=" + p.home, "PATH=" + p.bin + ":" + os.Getenv("PATH"), "LANG=C.UTF-8", "TERM=xterm", "USER=tester",
	}, p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if p.account.uid > 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(p.account.uid), Gid: uint32(p.account.uid)}
	}
	return cmd
}

// result is how a program ended.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("code %d\nstdout:\n%s\nstderr:\n%s", r.code, r.stdout, r.stderr)
}

// do runs a program of ours to its end.
func (p *person) do(program string, args ...string) result {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := p.command(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("%s %q: %v", program, args, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// run is `openshell run ARGS`.
func (p *person) run(args ...string) result {
	p.t.Helper()
	return p.do("openshell", append([]string{"run"}, args...)...)
}

// sh is `openshell run FLAGS -- sh -c SCRIPT`, which must succeed.
func (p *person) sh(script string, flags ...string) string {
	p.t.Helper()
	r := p.run(append(flags, "--", "/bin/sh", "-c", script)...)
	if r.code != 0 {
		p.t.Fatalf("%s: %v", script, r)
	}
	return r.stdout
}

// summary decodes the last line that -o json printed.
func (r result) summary(t testing.TB) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	var out map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &out); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	return out
}
