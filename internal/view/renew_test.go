package view

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"openshell.dev/openshell/internal/kerneltest"
)

// When the host's git replaces its config, the mount that protected the old
// one goes with it; Renew must protect the new one, and everything else once.
func TestAProtectionLiftedByTheHostIsRenewed(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS)
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		work, state := place(t)
		repo(t, work)
		write(t, work+"/keys/k", "secret\n")
		write(t, work+"/env", "secret\n")
		v := build(t, Spec{State: state, Workdir: work, Hidden: []string{"keys", "env"}})
		s := start(t, v)
		if got := s.do("renew"); got != "[] <nil>" {
			t.Errorf("nothing was lifted, but renewed %s", got)
		}
		host := exec.Command("sh", "-c", "git config user.name new && cp env e && mv e env && mv keys k && cp -r k keys")
		host.Dir = work
		if out, err := host.CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		config := read(t, work+"/.git/config")
		if got := s.do("cat env"); got != "secret\n" {
			t.Errorf("the kernel no longer lifts mounts of replaced files (%q): is Renew still needed?", got)
		}
		got := s.do("renew")
		for _, p := range []string{".git/config", "/env", "/keys"} {
			if !strings.Contains(got, p+`"`) {
				t.Errorf("%s was not renewed: %s", p, got)
			}
		}
		if out := s.do("(echo evil >> .git/config); mv .git/config x; cat env; ls keys; cat keys/k; mv keys q; rm -f env"); strings.Contains(out, "secret") {
			t.Errorf("the sandbox reads what is hidden: %s", out)
		}
		if got := read(t, work+"/.git/config"); got != config {
			t.Errorf(".git/config = %q", got)
		}
		if got := read(t, work+"/env"); got != "secret\n" {
			t.Errorf("env = %q", got)
		}
		if got := s.do("renew"); got != "[] <nil>" {
			t.Errorf("renewed twice: %s", got)
		}
	})
}

func TestAReplacedFileIsNoticed(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		work, state := place(t)
		write(t, work+"/.mcp.json", "{}")
		v := build(t, Spec{State: state, Workdir: work})
		ctx, cancel := context.WithCancel(t.Context())
		lifted := make(chan bool, 16)
		done := make(chan error)
		go func() { done <- v.Watch(ctx, func() { lifted <- true }) }()
		// The watch is set up in its own time: replace until it is noticed.
		for noticed := false; !noticed; {
			write(t, work+"/x", "new")
			if err := os.Rename(work+"/x", work+"/.mcp.json"); err != nil {
				t.Fatal(err)
			}
			select {
			case noticed = <-lifted:
			case err := <-done:
				t.Fatal(err)
			case <-time.After(time.Millisecond):
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestJournalLinesSurvive(t *testing.T) {
	for _, e := range []entry{{path: "/w/.git"}, {path: "/a b/\"c\nd"}, {path: "/w/.mcp.json", file: true, content: "{}\n"}, {path: "/w/e", file: true}} {
		got, err := parseEntry(e.line())
		if err != nil || got != e {
			t.Errorf("%q -> %+v, %v", e.line(), got, err)
		}
	}
	for _, bad := range []string{"", "dir", "dir x", `dir "x"`, `dir "/a/../b"`, `dir "/"`, `dir "/a" "b"`, `file "/a"`, `link "/a"`, `file "/a" b`, "dir `/a`"} {
		if e, err := parseEntry(bad + "\n"); err == nil {
			t.Errorf("%q accepted as %+v", bad, e)
		}
	}
}

// Property: a line that is understood is understood the same after rewriting.
func FuzzJournalLine(f *testing.F) {
	f.Add(`dir "/w/.git"`)
	f.Add(`file "/w/.mcp.json" "{}\n"`)
	f.Fuzz(func(t *testing.T, line string) {
		e, err := parseEntry(line)
		if err != nil {
			return
		}
		if again, err := parseEntry(e.line()); err != nil || again != e {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}

func TestPlaceholdersAreSharedAndCollected(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		work, state := place(t)
		open := func(id string) *View {
			v, err := Build(Spec{ID: id, State: state, Workdir: work})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		exists := func(name string) bool { _, err := os.Lstat(work + "/" + name); return err == nil }

		one, two := open("one"), open("two")
		if _, err := Build(Spec{ID: "two", State: state, Workdir: work}); err == nil {
			t.Error("the same id twice is accepted")
		}
		if err := one.Close(); err != nil {
			t.Error(err)
		}
		if !exists(".git") || !exists(".mcp.json") {
			t.Error("the first one out took the placeholders of the second")
		}
		write(t, work+"/.vscode/settings.json", "mine")
		write(t, work+"/.mcp.json", "mine")
		// The second crashes: its lock goes, its journal stays.
		two.journal.file.Close()
		two.journal = nil
		if err := Sweep(state); err != nil {
			t.Fatal(err)
		}
		if exists(".git") || exists(".idea") {
			t.Error("the sweep left placeholders")
		}
		if read(t, work+"/.vscode/settings.json")+read(t, work+"/.mcp.json") != "minemine" {
			t.Error("the sweep took a person's files")
		}
		if got := tree(t, state+"/"+journalDir); got != "lock\npool\n" {
			t.Errorf("journals left: %q", got)
		}
		// A directory that became a link is not followed.
		three := open("three")
		away := state + "/away"
		if err := os.Rename(work, away); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(away, work); err != nil {
			t.Fatal(err)
		}
		if err := three.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(away + "/.git"); err != nil {
			t.Error("a link was followed in the clean-up")
		}
	})
}
