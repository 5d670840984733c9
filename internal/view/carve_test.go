package view

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const identity = "git config --global user.name a; git config --global user.email a@b; export GIT_TERMINAL_PROMPT=0; "

// repo makes a repository with one commit in dir, as the running account.
func repo(t *testing.T, dir string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	cmd := exec.Command("sh", "-c", `git init -q -b main . && echo one > a.txt && git add . && git -c user.name=a -c user.email=a@b commit -q -m one`)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestGitWorksInARepositoryWithProtections(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		repo(t, work)
		v := build(t, Spec{State: state, Workdir: work})
		got := sh(t, v, "set -e; "+identity+`
			git status -sb
			echo two >> a.txt; git diff --stat | tail -1
			git commit -qam two; git branch feature; git checkout -q feature
			echo three > b.txt; git add b.txt; git stash -q; git stash list | wc -l; git stash pop -q
			git commit -qm three; git checkout -q main; git merge -q feature; git log --oneline | wc -l
			git tag v1; git rebase -q HEAD~1; git reset -q --hard; git clean -qfd; git gc -q; git fsck 2>&1 | grep -v dangling || true
			git worktree list | wc -l; git status --porcelain | wc -l
		`)
		wantLines(t, got, "## main", " 1 file changed, 1 insertion(+)", "1", "3", "1", "0")
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(work + "/.git/commondir"); err == nil {
			t.Error("a placeholder is left")
		}
		cmd := exec.Command("git", "-c", "safe.directory=*", "log", "--oneline")
		cmd.Dir = work
		out, err := cmd.Output()
		if err != nil || strings.Count(string(out), "\n") != 3 {
			t.Errorf("git log outside: %v %s", err, out)
		}
	})
}

// Every way in which a script tried to get its words into what the host runs.
func TestProtectedPathsCannotBeChanged(t *testing.T) {
	attacks := []struct{ name, script string }{
		{"write", "echo evil > .git/config"},
		{"append", "echo evil >> .git/config"},
		{"add a hook", "echo evil > .git/hooks/pre-commit"},
		{"git config", "git config core.fsmonitor evil"},
		{"rename the file away", "mv .git/config .git/c2; echo evil > .git/config"},
		{"rename the directory away", "mv .git/hooks .git/h2; mkdir .git/hooks; echo evil > .git/hooks/pre-commit"},
		{"rename the parent away", "mv .git .g2; mkdir -p .git/hooks; echo evil > .git/hooks/pre-commit; echo evil > .git/config"},
		{"rename the workspace away", "cd ..; mv work w2; mkdir -p work/.git; echo evil > work/.git/config"},
		{"rename over it", "echo evil > x; mv -f x .git/config"},
		{"rename a directory over it", "mkdir x; echo evil > x/pre-commit; mv -fT x .git/hooks"},
		{"exchange", "echo evil > x; python3 -c 'import ctypes; l=ctypes.CDLL(None); print(l.renameat2(-100, b\"x\", -100, b\".git/config\", 2))' || exit"},
		{"remove", "rm -rf .git .vscode; mkdir -p .git; echo evil > .git/config; mkdir .vscode; echo evil > .vscode/tasks.json"},
		{"hard link then write", "ln .git/config x; echo evil > x"},
		{"hard link through proc", "ln /proc/self/cwd/.git/config x && echo evil > x"},
		{"hard link of a descriptor", "exec 9< .git/config; ln -L /proc/self/fd/9 x; echo evil > x"},
		{"reopen a descriptor for writing", "exec 9< .git/config; echo evil > /proc/self/fd/9"},
		{"through the root link", "echo evil > /proc/self/root$PWD/.git/config"},
		{"through the cwd link", "echo evil > /proc/self/cwd/.git/hooks/../config"},
		{"dots", "echo evil > a/../.git/config; mkdir -p b/c; echo evil > b/c/../../.git/config"},
		{"link to it", "ln -s .git l; echo evil > l/config; ln -s .git/hooks h; echo evil > h/pre-commit"},
		{"truncate", "truncate -s 0 .git/config; (: > .git/config)"},
		{"mode and owner", "chmod 777 .git/config .git/hooks; echo evil > .git/config"},
		{"create what is absent", "echo evil > .vscode/tasks.json; mkdir -p .cursor && echo evil > .cursor/mcp.json; echo evil > .mcp.json"},
		{"rename into what is absent", "mkdir x; echo evil > x/settings.json; rmdir .claude; mv -fT x .claude"},
		{"link into what is absent", "mkdir x; echo evil > x/settings.json; rmdir .claude; ln -sfT x .claude"},
		{"redirect git", "mkdir ev; echo evil > ev/config; echo ../ev > .git/commondir; rm -f .git/commondir; echo ../ev > .git/commondir"},
		{"unmount", "umount .git/config; umount -l .git; echo evil > .git/config"},
		{"remount", "mount -o remount,bind,rw .git/config; echo evil > .git/config"},
		{"own namespace: unmount", "unshare -Urm sh -c 'umount .git/config; umount -l .git/hooks; umount -l .git; umount -l .; cd $PWD; echo evil > .git/config; echo evil > .git/hooks/pre-commit'"},
		{"own namespace: remount", "unshare -Urm sh -c 'mount -o remount,bind,rw .git/config; mount -o remount,rw .git/config; echo evil > .git/config'"},
		{"own namespace: bind below", "unshare -Urm sh -c 'mkdir x; mount --bind .git x; mount --bind . x; echo evil > x/config; echo evil > x/.git/config'"},
		{"own namespace: recursive bind", "unshare -Urm sh -c 'mkdir x; mount --rbind . x; umount -l x/.git/config; umount -l x/.git; echo evil > x/.git/config'"},
		{"own namespace: rename", "unshare -Urm sh -c 'mv .git g2; mv .git/config c2; mkdir -p .git; echo evil > .git/config'"},
		{"own namespace: move", "unshare -Urm sh -c 'mkdir x; mount --move .git x; mount --move .git/config a.txt; echo evil > .git/config'"},
		{"own namespace: overlay", "unshare -Urm sh -c 'mkdir u w; mount -t overlay o -o userxattr,lowerdir=/usr,upperdir=.git/hooks,workdir=w u; echo evil > u/pre-commit'"},
	}
	eachUser(t, func(t *testing.T) {
		for _, a := range attacks {
			t.Run(a.name, func(t *testing.T) {
				work, state := place(t)
				repo(t, work)
				config := read(t, work+"/.git/config")
				hooks := tree(t, work+"/.git/hooks")
				v := build(t, Spec{State: state, Workdir: work})
				out := sh(t, v, a.script+"\ncd "+work+" 2>/dev/null; echo reached the end >> end.txt")
				if got := read(t, work+"/.git/config"); got != config {
					t.Errorf(".git/config = %q\n%s", got, out)
				}
				if got := tree(t, work+"/.git/hooks"); got != hooks {
					t.Errorf(".git/hooks = %q\n%s", got, out)
				}
				if read(t, work+"/end.txt") == "" {
					t.Error("the script did not run")
				}
				if err := v.Close(); err != nil {
					t.Error(err)
				}
				for _, p := range []string{".git/commondir", ".vscode", ".idea", ".cursor", ".claude", ".codex", ".gemini", ".mcp.json", "refs"} {
					if _, err := os.Lstat(work + "/" + p); err == nil {
						t.Errorf("%s is there after the end: %s", p, out)
					}
				}
			})
		}
	})
}

// The sandbox breaks the repository and makes the workspace, or git's own
// files, name a program. Then git of the host runs there, as a prompt does.
func TestGitOfTheHostRunsNothingOfTheSandbox(t *testing.T) {
	const bare = `rm -f .git/HEAD; rm -rf refs objects; mkdir objects refs; echo "ref: refs/heads/main" > HEAD; mkdir hooks; `
	scripts := map[string]string{
		"bare":          bare + `printf "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = $PWD\n\tfsmonitor = touch $PWD/PWNED; false\n" > config`,
		"fsmonitor":     `git config core.fsmonitor "touch $PWD/PWNED; false"`,
		"hook":          `printf '#!/bin/sh\ntouch PWNED\n' > .git/hooks/post-index-change; chmod +x .git/hooks/post-index-change`,
		"commondir":     `cp -r .git ev; printf "[core]\n\tfsmonitor = touch $PWD/PWNED; false\n" > ev/config; rm -f .git/commondir; echo ../ev > .git/commondir`,
		"filter":        `echo '* filter=x' > .gitattributes; git config filter.x.clean "touch $PWD/PWNED; cat"; touch a.txt`,
		"another .git":  `mv .git g; git init -q .; git config core.fsmonitor "touch $PWD/PWNED; false"`,
		"link for .git": `rm -rf .git; W=$PWD; mkdir r; cd r; git init -q . ; git config core.fsmonitor "touch $W/PWNED; false"; cd ..; ln -s r/.git .git`,
	}
	eachUser(t, func(t *testing.T) {
		for name, script := range scripts {
			t.Run(name, func(t *testing.T) {
				for _, fresh := range []bool{false, true} {
					work, state := place(t)
					if !fresh {
						repo(t, work)
					}
					v := build(t, Spec{State: state, Workdir: work})
					sh(t, v, "git config --global --add safe.directory '*';"+script)
					if err := v.Close(); err != nil {
						t.Error(err)
					}
					host := exec.Command("sh", "-c", "git status; git diff; git add -A; git commit -qm x; git log -1")
					host.Dir = work
					host.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
					out, _ := host.CombinedOutput()
					if _, err := os.Lstat(work + "/PWNED"); err == nil {
						t.Errorf("fresh %v: git of the host ran what the sandbox wrote: %s", fresh, out)
					}
				}
			})
		}
	})
}

func tree(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	for _, e := range entries {
		s.WriteString(e.Name() + "\n")
	}
	return s.String()
}

func TestNamedProtections(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		write(t, work+"/keys/prod.pem", "secret\n")
		write(t, work+"/.env", "TOKEN=secret\n")
		write(t, work+"/lock/package.json", "{}\n")
		write(t, work+"/lock/open/file", "x\n")
		v := build(t, Spec{State: state, Workdir: work, Trusting: true,
			ReadOnly: []string{"lock", "later/deep/file"}, ReadWrite: []string{"lock/open"}, Hidden: []string{"keys", ".env"}})
		got := sh(t, v, `
			cat keys/prod.pem .env 2>&1 | grep -c secret
			mv keys k2; mv .env e2; rm -rf keys .env; cat k2/* e2 2>/dev/null
			echo evil > lock/package.json; echo evil > lock/new; mv lock l2
			echo fine > lock/open/file
			mkdir -p later/deep; echo evil > later/deep/file; mv later l3; mv -T later/deep /nonexistent/x; rmdir later/deep; echo evil > later/deep/file/x
			ls
		`)
		if !strings.HasPrefix(got, "0\n") || strings.Contains(got, "secret") {
			t.Errorf("hidden content was read: %s", got)
		}
		if got := read(t, work+"/lock/package.json") + read(t, work+"/lock/open/file"); got != "{}\nfine\n" {
			t.Errorf("lock: %q", got)
		}
		if got := tree(t, work+"/later/deep/file"); got != "" {
			t.Errorf("later/deep/file: %q", got)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if got := tree(t, work); got != ".env\nkeys\nlock\n" {
			t.Errorf("left in the workspace: %q", got)
		}
	})
}

// A workspace below the top of a host's repository: git of the host must work
// on while the sandbox runs, and no repository may be made inside.
func TestAWorkspaceInsideARepository(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		repo(t, work)
		write(t, work+"/sub/b.txt", "b")
		v := build(t, Spec{State: state, Workdir: work + "/sub"})
		if got := strings.Join(v.Env, " "); got != "GOFLAGS=-buildvcs=false" {
			t.Errorf("Env = %q", got)
		}
		host := exec.Command("git", "status", "--porcelain")
		host.Dir = work + "/sub"
		if out, err := host.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "?? sub/\n") {
			t.Errorf("git of the host: %v %q", err, out)
		}
		if got := sh(t, v, "git init . 2>&1 | tail -1; git status"); !strings.Contains(got, "Read-only file system") {
			t.Errorf("git init inside: %s", got)
		}
	})
}

func TestGitInsideSaysWhyThereIsNoRepository(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		v := build(t, Spec{State: state, Workdir: work})
		got := sh(t, v, "git status; git init .; rm -f .git; mv .git g")
		if !strings.Contains(got, "to allow it: --rw .git") || len(v.Env) != 0 {
			t.Errorf("Env %q, output %s", v.Env, got)
		}
	})
}

func TestAllowedPathsAreNotProtected(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		v := build(t, Spec{State: state, Workdir: work, ReadWrite: []string{".git", work + "/.vscode"}})
		got := sh(t, v, identity+`git init -q . && git config core.editor true && mkdir .vscode && echo ok > .vscode/settings.json && git rev-parse --is-inside-work-tree; touch .idea/x 2>/dev/null || echo shut`)
		if !strings.HasSuffix(got, "true\nshut\n") {
			t.Errorf("got %s", got)
		}
		if s := v.Summary(); strings.Contains(s, ".git") || !strings.Contains(s, ".idea") || strings.Contains(s, ".vscode") {
			t.Errorf("Summary = %q", s)
		}
	})
}

// What is a link or has a second name when the sandbox starts cannot be protected.
func TestPreparedTrapsAreRefused(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		for name, prepare := range map[string]func(work string) error{
			"link":           func(w string) error { return os.Symlink("/tmp", w+"/.vscode") },
			"dangling link":  func(w string) error { return os.Symlink("nowhere", w+"/.git") },
			"link of hooks":  func(w string) error { os.Mkdir(w+"/.git", 0o755); return os.Symlink("..", w+"/.git/hooks") },
			"hard link":      func(w string) error { os.WriteFile(w+"/x", nil, 0o644); return os.Link(w+"/x", w+"/.mcp.json") },
			"pipe":           func(w string) error { return syscall.Mkfifo(w+"/.mcp.json", 0o644) },
			"config is link": func(w string) error { os.Mkdir(w+"/.git", 0o755); return os.Symlink("x", w+"/.git/config") },
		} {
			work, state := place(t)
			if err := prepare(work); err != nil {
				t.Fatal(err)
			}
			before := tree(t, work)
			v, err := Build(Spec{ID: "x", State: state, Workdir: work})
			if err == nil {
				v.Close()
				t.Errorf("%s: accepted", name)
				continue
			}
			t.Logf("%s: %v", name, err)
			if after := tree(t, work); after != before {
				t.Errorf("%s: left behind %q", name, after)
			}
		}
	})
}
