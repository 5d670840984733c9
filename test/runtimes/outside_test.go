package runtimes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.dev/openshell/test/fetched"
	"openshell.dev/openshell/test/person"
)

// work is something that people do in a directory. Its script must do the
// same inside as outside: print the same, end the same, leave the same files.
type work struct {
	name   string
	needs  []string // commands
	files  map[string]string
	flags  []string // of openshell run
	before string   // run outside in both directories first
	script string   // ends with set -e in force
	loose  bool     // files that it leaves may differ in content
	cache  string   // variable that names a directory which both may write
	home   bool     // the person's home is used, and not one of the script's own
}

// nodePath and pythonPath are put in front of scripts that need these.
func nodePath(t *testing.T) string {
	return "export PATH=" + fetched.NodeBin(t, 24) + ":$PATH\n"
}

// asOutside runs a work in two copies of the directory and compares.
func asOutside(t *testing.T, ro []string, prelude string, w work) {
	for _, command := range w.needs {
		fetched.Command(t, command)
	}
	person.Each(t, func(t *testing.T, p *person.Person) {
		whole := "set -e\nexport LC_ALL=C.UTF-8 PATH=/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin GOFLAGS=-modcacherw npm_config_update_notifier=false\n"
		if !w.home {
			whole += "export HOME=$(mktemp -d)\nexport TMPDIR=$HOME\ntrap 'rm -rf $HOME' EXIT\n"
		}
		whole += prelude + w.script
		base := p.Workspace
		p.Limit = time.Minute
		flags := append([]string{}, w.flags...)
		for _, dir := range ro {
			flags = append(flags, "--ro", dir)
		}
		if w.cache != "" {
			dir := filepath.Join(p.Home, "cache")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			p.Own(dir)
			flags = append(flags, "--rw", dir)
			whole = "export " + w.cache + "=" + dir + "\n" + whole
		}
		var got [2]person.Result
		var left [2]string
		for i, name := range []string{"outside", "inside"} {
			p.Workspace = filepath.Join(base, "place") // the same path, one after the other
			if err := os.Mkdir(p.Workspace, 0o755); err != nil {
				t.Fatal(err)
			}
			p.Own(p.Workspace)
			for file, content := range w.files {
				p.File(file, content)
			}
			if w.before != "" {
				if r := p.Do("/bin/sh", "-ec", w.before); r.Code != 0 {
					t.Fatalf("before: %v", r)
				}
			}
			if name == "outside" {
				got[i] = p.Do("/bin/bash", "-c", whole)
			} else {
				got[i] = p.Run(append(flags, "--", "/bin/bash", "-c", whole)...)
			}
			left[i] = listing(t, p.Workspace, w.loose)
			if err := os.Rename(p.Workspace, filepath.Join(base, name)); err != nil {
				t.Fatal(err)
			}
		}
		if got[0].Code != 0 {
			t.Fatalf("the work itself is wrong, outside: %v", got[0])
		}
		if got[0].Code != got[1].Code || got[0].Stdout != got[1].Stdout {
			t.Errorf("outside: %v\ninside: %v", got[0], got[1])
		}
		if left[0] != left[1] {
			t.Errorf("left outside:\n%s\nleft inside:\n%s", left[0], left[1])
		}
	})
}

// listing is what a directory holds: names, modes, and content unless loose.
func listing(t *testing.T, dir string, loose bool) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if strings.HasPrefix(rel, ".git"+string(filepath.Separator)) {
			return nil // times and hashes
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out.WriteString(info.Mode().String() + " " + rel)
		if info.Mode().IsRegular() && !loose {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if len(data) < 4096 && !strings.Contains(string(data), "\x00") {
				out.WriteString(" " + string(data))
			}
		}
		out.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

const gitIdentity = `git config --global user.name tester; git config --global user.email tester@example.com
export GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z
`

func TestGitBehavesAsOutside(t *testing.T) {
	for _, w := range []work{
		{name: "a new repository", flags: []string{"--rw", ".git"}, home: true,
			script: gitIdentity + `git init -q -b main .; echo 1 > a; git add a; git commit -qm one; git log --oneline; git status --short --branch`},
		{name: "a repository that is there", before: "git init -q -b main . && echo x > x && git add x && GIT_COMMITTER_DATE=2026-01-01T00:00:00Z git -c user.name=a -c user.email=a@b commit -qm zero --date=2026-01-01T00:00:00Z",
			script: gitIdentity + `echo y > y; git add y; git commit -qm one; git status --short --branch; git log --format=%s
				git branch topic; git checkout -q topic; echo z >> y; git commit -qam two; git checkout -q main; git merge -q --no-ff -m merged topic
				git log --format=%s; git branch -a; git tag v1; git stash list; echo w >> x; git stash -q; git stash pop -q; git diff --stat
				git checkout -q x; git rebase -q topic; git gc -q; git fsck --no-dangling; git config user.name; git blame -s y | wc -l; git clean -n; git worktree list | wc -l
				git format-patch -q -1 --stdout | head -1 | cut -d' ' -f1; git grep -n z; git reflog | wc -l; git archive HEAD | tar t`},
		{name: "elsewhere", before: "git init -q -b main . && echo x > x && git add x && git -c user.name=a -c user.email=a@b commit -qm zero",
			script: gitIdentity + `git clone -q . $HOME/copy; cd $HOME/copy; echo n > n; git add n; git commit -qm n; git log --format=%s; git config core.editor true
				git init -q $HOME/fresh; cd $HOME/fresh; git config a.b c; git config a.b`},
	} {
		w.needs, w.loose = []string{"git"}, true
		t.Run(w.name, func(t *testing.T) { asOutside(t, nil, "", w) })
	}
}

func TestGitSaysWhatToAllow(t *testing.T) {
	fetched.Command(t, "git")
	person.Each(t, func(t *testing.T, p *person.Person) {
		r := p.Run("--", "git", "init", ".")
		if r.Code == 0 || !strings.Contains(r.Stderr, "--rw .git") {
			t.Errorf("want a refusal that names --rw .git: %v", r)
		}
	})
}

func TestBuildsBehaveAsOutside(t *testing.T) {
	node, python := fetched.NodeBin(t, 24), fetched.Python(t)
	nodeRun := nodePath(t)
	pythonRun := "export PYTHONPATH=" + python + " PYTHONDONTWRITEBYTECODE=1\n"
	npmFiles := map[string]string{
		"package.json":       `{"name":"app","version":"1.0.0","private":true,"scripts":{"test":"node index.js","postinstall":"node -e \"require('fs').writeFileSync('made','by a script')\""},"dependencies":{"local":"file:./local"}}`,
		"index.js":           "console.log(require('local')(20))",
		"local/package.json": `{"name":"local","version":"2.0.0","main":"m.js","bin":{"local-tool":"tool.js"}}`,
		"local/m.js":         "module.exports = (n) => n + 1\n",
		"local/tool.js":      "#!/usr/bin/env node\nconsole.log('tool')\n",
	}
	for _, tt := range []struct {
		prelude string
		work
	}{
		{nodeRun, work{name: "npm install", files: npmFiles, loose: true,
			script: `npm install --offline --no-audit --no-fund --loglevel=error | sed "s/ in .*s$//"; npm test --silent; npx --offline local-tool; npm pack --silent ./local; npm ls --parseable | wc -l; cat made`}},
		{pythonRun, work{name: "pip install", loose: true, files: map[string]string{
			"pkg/pyproject.toml":    "[build-system]\nrequires=['setuptools']\nbuild-backend='setuptools.build_meta'\n[project]\nname='thing'\nversion='1.2'\n[project.scripts]\nthing='thing:main'\n",
			"pkg/thing/__init__.py": "def main():\n    print('thing runs')\n",
		}, script: `python3 -m pip install -q --no-index --no-build-isolation --no-deps --disable-pip-version-check --root-user-action=ignore --target out ./pkg; PYTHONPATH=out:$PYTHONPATH python3 -m thing 2>&1 | tail -1; PYTHONPATH=out out/bin/thing; rm -rf pkg/build pkg/*.egg-info`}},
		{"", work{name: "python venv", loose: true, script: `python3 -m venv --without-pip $HOME/v; $HOME/v/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'`}},
		{pythonRun, work{name: "pytest", loose: true, files: map[string]string{
			"test_it.py": "import os, socket, subprocess, tempfile\ndef test_tmp(tmp_path):\n    (tmp_path/'a').write_text('b')\ndef test_sub():\n    assert subprocess.check_output(['echo','x']) == b'x\\n'\ndef test_net():\n    s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); c.close(); s.close()\ndef test_fails():\n    assert 1 == 2\n",
		}, script: `set +e; python3 -m pytest -q -p no:cacheprovider | sed 's/ in [0-9.]*s//'; echo ${PIPESTATUS[0]}`}},
		{"", work{name: "go build", needs: []string{"go"}, loose: true, cache: "GOCACHE", files: map[string]string{
			"go.mod":      "module example.com/app\n\ngo 1.26\n",
			"main.go":     "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(Sum(1, 2)) }\n",
			"sum.go":      "package main\n\n// Sum adds.\nfunc Sum(a, b int) int { return a + b }\n",
			"sum_test.go": "package main\n\nimport \"testing\"\n\nfunc TestSum(t *testing.T) {\n\tif Sum(1, 2) != 3 {\n\t\tt.Fatal()\n\t}\n}\n",
		}, script: `export GOPROXY=off GOTOOLCHAIN=local; go build -o app .; ./app; go vet ./...; go test -count=1 ./... | sed 's/[0-9.]*s$//'; go run .; go fmt ./...; rm app`}},
		{"", work{name: "make and gcc", needs: []string{"make", "gcc"}, loose: true, files: map[string]string{
			"Makefile": "all: prog\nprog: a.o b.o\n\tgcc -o $@ $^\n%.o: %.c\n\tgcc -O2 -c -o $@ $<\nrun: prog\n\t./prog\n.PHONY: run\n",
			"a.c":      "#include <stdio.h>\nint f(int);\nint main(void) { printf(\"%d\\n\", f(20)); return 0; }\n",
			"b.c":      "int f(int n) { return 2 * n + 2; }\n",
		}, script: `make -s -j2; make -s run; gcc -static -Wl,-w -o st a.c b.c; ./st; gcc -fsanitize=address,undefined -o asan a.c b.c; ASAN_OPTIONS=detect_leaks=0 ./asan; strip prog; ./prog; rm -f asan`}},
		{"", work{name: "java", needs: []string{"javac"}, loose: true, files: map[string]string{
			"Main.java": "import java.util.concurrent.*;\npublic class Main { public static void main(String[] a) throws Exception { ExecutorService e = Executors.newFixedThreadPool(4); System.out.println(e.submit(() -> 42).get()); e.shutdown(); ProcessBuilder b = new ProcessBuilder(\"echo\", \"child\"); b.inheritIO(); System.out.println(b.start().waitFor()); } }\n",
		}, script: `javac Main.java; java Main; java -Xmx64m -XX:+UseSerialGC Main; jar cf m.jar Main.class; java -cp m.jar Main`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asOutside(t, []string{node, filepath.Dir(filepath.Dir(node)), python}, tt.prelude, tt.work)
		})
	}
}
