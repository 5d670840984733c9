// Package person runs the built programs as somebody would: with an account,
// a home and a workspace of their own, from a shell or under a terminal.
//
// It guarantees that an ordinary account is always among those that are
// tried, because that is the product's first path. It judges nothing: a test
// compares what a program gave. Used by tests only.
package person

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

// Account is who runs the programs.
type Account struct {
	Name string
	UID  int // -1: as the tests
}

// Accounts are all that can be tried here: an ordinary one always, root if
// the tests have it.
func Accounts() []Account {
	if os.Getuid() == 0 {
		return []Account{{"ordinary", kerneltest.OrdinaryID}, {"root", 0}}
	}
	return []Account{{"ordinary", -1}}
}

// Person is an account with a home and a workspace.
type Person struct {
	T         testing.TB
	Account   Account
	Bin       string // where the programs are
	Home      string
	Workspace string
	Env       []string      // added to what every program gets
	Limit     time.Duration // of one program; zero is two minutes
}

// New makes a person whose files go when the test ends.
func New(t testing.TB, a Account) *Person {
	t.Helper()
	kerneltest.Require(t, kerneltest.UserNS, kerneltest.NetAdmin, kerneltest.Landlock, kerneltest.Seccomp)
	base, err := os.MkdirTemp("", "openshell-person-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	p := &Person{T: t, Account: a, Bin: built.Dir(t), Home: filepath.Join(base, "home"), Workspace: filepath.Join(base, "work")}
	for _, dir := range []string{p.Home, p.Workspace} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	p.Own(base, p.Home, p.Workspace)
	return p
}

// Each runs a test once for every account.
func Each(t *testing.T, test func(t *testing.T, p *Person)) {
	t.Helper()
	for _, a := range Accounts() {
		t.Run(a.Name, func(t *testing.T) { test(t, New(t, a)) })
	}
}

// For is the same person in a part of the test.
func (p *Person) For(t testing.TB) *Person {
	q := *p
	q.T = t
	return &q
}

// Own gives files to the account.
func (p *Person) Own(paths ...string) {
	p.T.Helper()
	if p.Account.UID <= 0 {
		return
	}
	for _, path := range paths {
		if err := os.Lchown(path, p.Account.UID, p.Account.UID); err != nil {
			p.T.Fatal(err)
		}
	}
}

// File puts a file into the workspace and returns its path.
func (p *Person) File(name, content string) string {
	p.T.Helper()
	path := filepath.Join(p.Workspace, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.T.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		p.T.Fatal(err)
	}
	for at := path; at != p.Workspace; at = filepath.Dir(at) {
		p.Own(at)
	}
	return path
}

// Command prepares a program: one of ours by its name, any other by its path.
func (p *Person) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	if !filepath.IsAbs(program) {
		program = filepath.Join(p.Bin, program)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = p.Workspace
	cmd.Env = append([]string{
		"HOME=" + p.Home, "PATH=" + p.Bin + ":" + os.Getenv("PATH"), "LANG=C.UTF-8", "TERM=xterm", "USER=tester",
	}, p.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if p.Account.UID > 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(p.Account.UID), Gid: uint32(p.Account.UID)}
	}
	return cmd
}

// Result is how a program ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

func (r Result) String() string {
	return fmt.Sprintf("code %d\nstdout:\n%s\nstderr:\n%s", r.Code, r.Stdout, r.Stderr)
}

// Do runs a program to its end.
func (p *Person) Do(program string, args ...string) Result {
	p.T.Helper()
	limit := p.Limit
	if limit == 0 {
		limit = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := p.Command(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.T.Fatalf("%s %q: %v", program, args, err)
	}
	return Result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// Run is `openshell run ARGS`.
func (p *Person) Run(args ...string) Result {
	p.T.Helper()
	return p.Do("openshell", append([]string{"run"}, args...)...)
}

// Sh is `openshell run FLAGS -- sh -c SCRIPT`, which must succeed.
func (p *Person) Sh(script string, flags ...string) string {
	p.T.Helper()
	r := p.Run(append(flags, "--", "/bin/sh", "-c", script)...)
	if r.Code != 0 {
		p.T.Fatalf("%s: %v", script, r)
	}
	return r.Stdout
}

// Summary decodes the last line that -o json printed.
func (r Result) Summary(t testing.TB) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	var out map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &out); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	return out
}
