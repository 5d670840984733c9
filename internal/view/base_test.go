package view

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/mounts"
)

// rootfs fills dir with the little a shell needs, taken from this machine.
func rootfs(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{"bin", "etc", "proc", "dev", "sys", "tmp", "var/lib"} {
		if err := os.MkdirAll(dir+"/"+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, prog := range []string{"sh", "cat", "ls", "rm", "touch", "id", "mkdir"} {
		path, err := exec.LookPath(prog)
		if err != nil {
			t.Skipf("needs %s", prog)
		}
		files := []string{path}
		out, _ := exec.Command("ldd", path).Output()
		for _, w := range strings.Fields(string(out)) {
			if filepath.IsAbs(w) {
				files = append(files, w)
			}
		}
		for i, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			to := dir + f
			if i == 0 {
				to = dir + "/bin/" + prog
			}
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, data, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, dir+"/etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n")
	write(t, dir+"/etc/image", "from the image\n")
	if err := os.Symlink("../run/elsewhere/resolv.conf", dir+"/etc/resolv.conf"); err != nil {
		t.Fatal(err)
	}
}

func TestADirectoryAsTheSystem(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		root := filepath.Dir(work) + "/root"
		rootfs(t, root)
		v := build(t, Spec{State: state, Base: Base{Dir: root}, Workdir: work, WorkdirAt: "/sandbox"})
		got := sh(t, v, `pwd; cat /etc/image; cat /etc/resolv.conf > /dev/null && echo resolver; touch /etc/x /bin/x /x 2>/dev/null; ls /etc; echo ok > out; cat /etc/passwd`)
		want := "/sandbox\nfrom the image\nresolver\nimage\npasswd\nresolv.conf\n"
		if !strings.HasPrefix(got, want) || !strings.Contains(got, "daemon") || !strings.Contains(got, "sandbox:x:") {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if read(t, work+"/out") != "ok\n" {
			t.Error("the workspace was not written")
		}
		for _, p := range []string{"/sandbox", "/run", "/home"} {
			if _, err := os.Lstat(root + p); err == nil {
				t.Errorf("%s was made in the root file system", p)
			}
		}
	})
}

func TestAnOverlayKeepsItsChanges(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		base := t.TempDir()
		// Characters that would break overlay's own option syntax.
		low, top := base+"/lo:w", base+"/t,o p"
		rootfs(t, low)
		write(t, top+"/etc/top", "top\n")
		for _, d := range []string{"/up", "/wk", "/state"} {
			if err := os.Mkdir(base+d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		spec := Spec{State: base + "/state", Base: Base{Lower: []string{top, low}, Upper: base + "/up", Work: base + "/wk"}}
		v := build(t, spec)
		got := sh(t, v, `cat /etc/image /etc/top; rm /etc/image; echo kept > /etc/kept; echo mine > /opt.txt; cat /etc/resolv.conf > /dev/null && echo resolver; touch ~/f && echo home`)
		if want := "from the image\ntop\nresolver\nhome\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		spec.ID = "again"
		got = sh(t, build(t, spec), `cat /etc/kept /opt.txt; cat /etc/image 2>/dev/null; ls ~`)
		if want := "kept\nmine\nf\n"; got != want {
			t.Errorf("the second time: got %q, want %q", got, want)
		}
		if got := read(t, low+"/etc/image"); got != "from the image\n" {
			t.Errorf("the layer was changed: %q", got)
		}
	})
}

// An image can be hostile: its links must not lead our files out of it.
func TestAnImageCannotRedirectOurFiles(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		base := t.TempDir()
		low := base + "/low"
		rootfs(t, low)
		victim := base + "/victim"
		write(t, victim+"/f", "safe\n")
		os.Remove(low + "/etc/resolv.conf")
		for link, to := range map[string]string{"/etc/resolv.conf": "../../../../../.." + victim + "/new", "/etc/hosts": victim + "/f", "/home": victim, "/sandbox": "/proc/self/root" + victim} {
			if err := os.Symlink(to, low+link); err != nil {
				t.Fatal(err)
			}
		}
		for _, d := range []string{"/up", "/wk", "/state", "/work"} {
			if err := os.Mkdir(base+d, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		v := build(t, Spec{State: base + "/state", Base: Base{Lower: []string{low}, Upper: base + "/up", Work: base + "/wk"}})
		sh(t, v, `echo done`)
		if got := tree(t, victim) + read(t, victim+"/f"); got != "f\nsafe\n" {
			t.Errorf("outside of the image: %q", got)
		}
	})
}

func TestWrongSpecsAreRefused(t *testing.T) {
	work, state := place(t)
	home, _ := os.UserHomeDir()
	t.Setenv("HOME", work+"/sub")
	if err := os.Mkdir(work+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	_ = home
	for name, c := range map[string]struct {
		spec Spec
		kind fault.Kind
	}{
		"no id":                {Spec{State: state}, fault.Internal},
		"id with slash":        {Spec{ID: "../x", State: state}, fault.Internal},
		"missing workdir":      {Spec{ID: "x", State: state, Workdir: work + "/none"}, fault.NotFound},
		"workdir is a file":    {Spec{ID: "x", State: state, Workdir: "/etc/passwd"}, fault.InvalidArgument},
		"root as workdir":      {Spec{ID: "x", State: state, Workdir: "/"}, fault.InvalidArgument},
		"etc as workdir":       {Spec{ID: "x", State: state, Workdir: "/etc"}, fault.InvalidArgument},
		"tmp as workdir":       {Spec{ID: "x", State: state, Workdir: "/tmp"}, fault.InvalidArgument},
		"home as workdir":      {Spec{ID: "x", State: state, Workdir: work + "/sub"}, fault.InvalidArgument},
		"workdir holds home":   {Spec{ID: "x", State: state, Workdir: work}, fault.InvalidArgument},
		"proc writable":        {Spec{ID: "x", State: state, ReadWrite: []string{"/proc/sys"}}, fault.InvalidArgument},
		"dots into proc":       {Spec{ID: "x", State: state, ReadOnly: []string{"/usr/../proc/1"}}, fault.InvalidArgument},
		"everything":           {Spec{ID: "x", State: state, ReadWrite: []string{"/"}}, fault.InvalidArgument},
		"device":               {Spec{ID: "x", State: state, ReadOnly: []string{"/dev/null"}}, fault.InvalidArgument},
		"missing read-only":    {Spec{ID: "x", State: state, ReadOnly: []string{"/none/such"}}, fault.NotFound},
		"relative, no workdir": {Spec{ID: "x", State: state, ReadOnly: []string{"a"}}, fault.InvalidArgument},
		"bad user name":        {Spec{ID: "x", State: state, Who: Identity{User: "a:0:0"}}, fault.InvalidArgument},
		"not a root file system": {Spec{ID: "x", State: state, Base: Base{Dir: state}},
			fault.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := Build(c.spec)
			if err == nil {
				v.Close()
				t.Fatal("accepted")
			}
			if got := fault.KindOf(err); got != c.kind {
				t.Errorf("%v is %v, want %v", err, got, c.kind)
			}
			t.Logf("%v (%s)", err, fault.HintOf(err))
		})
	}
}

// A writable directory that holds our records does not show them.
func TestOurRecordsStayHidden(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, _ := place(t)
		t.Setenv("HOME", "/nonexistent")
		t.Setenv("XDG_STATE_HOME", work+"/.local/state")
		v := build(t, Spec{Workdir: work})
		got := sh(t, v, "find .local; echo evil > .local/state/openshell/placeholders/test.journal; mv .local l; mv .local/state s; rm -rf .local")
		if strings.Contains(got, "placeholders\n") || strings.Contains(got, ".journal\n") {
			t.Errorf("records are visible: %s", got)
		}
		if got := read(t, work+"/.local/state/openshell/placeholders/test.journal"); strings.Contains(got, "evil") || got == "" {
			t.Errorf("journal: %q", got)
		}
	})
}

func TestASocketIsNotShared(t *testing.T) {
	work, state := place(t)
	path := work + "/s"
	makeSocket(t, path)
	for _, p := range []string{path, link(t, path, work+"/l")} {
		if v, err := Build(Spec{ID: "x", State: state, ReadOnly: []string{p}}); err == nil {
			v.Close()
			t.Errorf("%s is shared", p)
		}
	}
	// Even a plan that says so is refused where it is carried out.
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		makeSocket(t, work+"/s")
		v := build(t, Spec{State: state})
		v.Plan = append(v.Plan, mounts.Op{Kind: mounts.Bind, Source: work + "/s", Target: "/run/s"})
		cmd := agent(t, v, "/bin/true")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "socket") {
			t.Errorf("%v %s", err, out)
		}
	})
}

func TestExplainNamesTheFlag(t *testing.T) {
	work, state := place(t)
	base := filepath.Dir(work)
	tool := base + "/.nvm/versions/node/v22/bin/node"
	write(t, tool, "x")
	script := base + "/.nvm/versions/node/v22/lib/node_modules/npm/bin/npm.js"
	write(t, script, "#!"+tool+"\n")
	link(t, script, base+"/npm")
	v := build(t, Spec{State: state, Workdir: work, Home: "/home/ann"})
	prefix := base + "/.nvm/versions/node/v22"
	for cmd, want := range map[string]string{
		tool:           prefix,
		script:         prefix,
		base + "/npm":  base,
		"/usr/bin/env": "", "/bin/sh": "",
		work + "/x": "",
	} {
		hint := fault.HintOf(v.Explain(cmd))
		if want != "" {
			want = "add --ro " + want
		}
		if hint != want {
			t.Errorf("Explain(%s) hints %q, want %q", cmd, hint, want)
		}
	}
}

func link(t *testing.T, to, at string) string {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestSharesBesideTheWorkspace(t *testing.T) {
	eachUser(t, func(t *testing.T) {
		work, state := place(t)
		base := filepath.Dir(work)
		write(t, base+"/ro/f", "ro\n")
		write(t, base+"/ro/private/k", "secret\n")
		write(t, base+"/rw/f", "rw\n")
		write(t, base+"/one.txt", "one\n")
		write(t, base+"/home/.profile", "kept\n")
		link(t, base+"/ro", base+"/alias")
		v := build(t, Spec{State: state, Workdir: work, Home: "/home/ann", HomeDir: base + "/home",
			ReadOnly: []string{base + "/alias", base + "/one.txt"}, ReadWrite: []string{"../rw"}, Hidden: []string{base + "/ro/private", "/usr/share"}})
		got := sh(t, v, `
			cat ../ro/f ../rw/f ../one.txt ~/.profile; echo new > ../rw/f; echo home > ~/new
			(echo evil > ../ro/f; echo evil > ../one.txt; touch ../beside) 2>/dev/null
			ls .. | tr '\n' ' '; echo; cat ../ro/private/k 2>/dev/null; ls /usr/share ../ro/private
			mkdir ../rw/.git 2>/dev/null; ls -d ../rw/.git/config 2>/dev/null`)
		wantLines(t, got, "ro", "rw", "one", "kept", "alias beside one.txt ro rw work ", "../ro/private:", "", "/usr/share:")
		if got := read(t, base+"/ro/f") + read(t, base+"/rw/f") + read(t, base+"/one.txt") + read(t, base+"/home/new"); got != "ro\nnew\none\nhome\n" {
			t.Errorf("on the host: %q", got)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(base + "/beside"); err == nil { // it was the private /tmp
			t.Error("something was made beside the shares on the host")
		}
		if got := tree(t, base+"/rw"); got != "f\n" {
			t.Errorf("left in a share: %q", got)
		}
	})
}
