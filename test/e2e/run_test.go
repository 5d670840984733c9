package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/openshell/test/person"
)

func TestRunGivesTheCommandsExitCode(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		for _, tt := range []struct {
			name string
			args []string
			code int
			says string
		}{
			{"success", []string{"--", "true"}, 0, ""},
			{"its own code", []string{"--", "sh", "-c", "exit 37"}, 37, ""},
			{"a signal", []string{"--", "sh", "-c", "kill -TERM $$"}, 143, ""},
			{"not found", []string{"--", "no-such-command"}, 127, "was not found in the sandbox"},
			{"not executable", []string{"--", "/etc/passwd"}, 126, "cannot be executed"},
			{"a directory", []string{"--", "/usr"}, 126, "cannot be executed"},
			{"time limit", []string{"--timeout", "300ms", "--", "sleep", "30"}, 124, "time limit"},
			{"no command", nil, 2, "openshell run -- COMMAND"},
			{"unknown flag", []string{"--polcy", "x", "--", "true"}, 2, "did you mean --policy?"},
			{"both terminals", []string{"--tty", "--no-tty", "--", "true"}, 2, "contradict"},
			{"bad port", []string{"--forward", "99999", "--", "true"}, 2, "is not a port"},
			{"bad environment", []string{"--env", "1X=2", "--", "true"}, 2, "not a variable name"},
			{"reserved environment", []string{"--env", "OPENSHELL_X=2", "--", "true"}, 2, "reserved"},
			{"missing policy", []string{"--policy", "nowhere.yaml", "--", "true"}, 125, "nowhere.yaml"},
			{"missing path", []string{"--ro", "/no/such/path", "--", "true"}, 125, "does not exist"},
			{"missing workdir", []string{"--workdir", "/no/such/path", "--", "true"}, 125, "does not exist"},
			{"bad memory", []string{"--memory", "lots", "--", "true"}, 2, "--memory"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := p.Run(tt.args...)
				if r.Code != tt.code || !strings.Contains(r.Stderr, tt.says) {
					t.Errorf("want code %d and %q, got %v", tt.code, tt.says, r)
				}
			})
		}
	})
}

func TestRunSeesOnlyWhatIsNamed(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		secret := filepath.Join(p.Home, "secret")
		if err := os.WriteFile(secret, []byte("hunter2"), 0o644); err != nil {
			t.Fatal(err)
		}
		p.Env = append(p.Env, "SECRET_TOKEN=hunter2", "LC_ALL=C.UTF-8")
		out := p.Sh(`cat ` + secret + ` 2>&1; env; ls "$HOME"; cat /proc/1/environ 2>&1; ls /proc; cat /proc/*/cmdline 2>/dev/null | tr '\0' ' '`)
		if strings.Contains(out, "hunter2") {
			t.Errorf("the home or the environment is visible:\n%s", out)
		}
		if !strings.Contains(out, "LC_ALL=C.UTF-8") {
			t.Errorf("the locale did not pass:\n%s", out)
		}
		out = p.Sh(`cat `+secret, "--ro", p.Home)
		if out != "hunter2" {
			t.Errorf("--ro does not show: %q", out)
		}
		if out = p.Sh("echo $SECRET_TOKEN-$X", "--pass-env", "SECRET_TOKEN", "--env", "X=y"); out != "hunter2-y\n" {
			t.Errorf("--pass-env and --env gave %q", out)
		}
	})
}

func TestRunWritesOnlyInTheWorkspace(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		p.Sh("echo kept > kept.txt; mkdir -p a/b; echo x > a/b/c; echo t > /tmp/t; echo h > $HOME/h")
		if data, err := os.ReadFile(filepath.Join(p.Workspace, "kept.txt")); err != nil || string(data) != "kept\n" {
			t.Errorf("kept.txt: %q, %v", data, err)
		}
		if entries, _ := os.ReadDir(p.Home); len(entries) > 1 { // .local with our own state
			t.Errorf("the real home was written: %v", entries)
		}
		for _, path := range []string{"/usr/x", "/etc/x", "/x", "/usr/bin/true", "/proc/sys/kernel/hostname", "/dev/x", "/var/x"} {
			r := p.Run("--", "sh", "-c", "echo x > "+path)
			if r.Code == 0 {
				t.Errorf("%s can be written", path)
			}
		}
	})
}

func TestRunLeavesNothingBehind(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		mark := unique()
		p.Sh("(sleep " + mark + " &) ; (setsid sleep " + mark + " &); true")
		if left := processesOf(t, p, "sleep "+mark); left != "" {
			t.Errorf("left running: %s", left)
		}
		entries, err := os.ReadDir(p.Workspace)
		if err != nil || len(entries) != 0 {
			t.Errorf("left in the workspace: %v, %v", entries, err)
		}
		state := filepath.Join(p.Home, ".local/state/openshell/run")
		err = filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && d.Name() != "lock" && !strings.Contains(path, "/pool/") { // both are for ever
				t.Errorf("left behind: %s", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func processesOf(t *testing.T, p *person.Person, words string) string {
	t.Helper()
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, d := range dirs {
		data, _ := os.ReadFile(d)
		if strings.TrimSpace(strings.ReplaceAll(string(data), "\x00", " ")) == words {
			return d
		}
	}
	return ""
}

func TestAPathOverALinkKeepsItsName(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		other := filepath.Join(filepath.Dir(p.Workspace), "other")
		link := filepath.Join(filepath.Dir(p.Workspace), "link")
		if err := os.Mkdir(other, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("other", link); err != nil {
			t.Fatal(err)
		}
		p.Own(other)
		p.Sh("echo x > "+link+"/a && cat "+other+"/a", "--rw", link)
		if data, err := os.ReadFile(filepath.Join(other, "a")); err != nil || string(data) != "x\n" {
			t.Errorf("a: %q, %v", data, err)
		}
	})
}
