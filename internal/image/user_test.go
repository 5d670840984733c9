package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"openshell.dev/openshell/internal/fault"
)

const (
	testPasswd = "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1235:App:/home/app:/bin/bash\ntoor:x:0:0::/:/bin/sh\n" +
		"twin:x:5:5::/:/bin/sh\ntwin:x:6:6::/:/bin/sh\nwheel:x:1300:1300::/w:/bin/sh\nbroken:x:abc:1::/:\nshort:x:1\n" +
		"max:x:4294967295:5::/:/bin/sh\nrel:x:77:77::home:/bin/sh\n"
	testGroup = "root:x:0:wheel\nstaff:x:50:app\napp:x:1235:\nvideo:x:44:app,other\ntwins:x:7:\ntwins:x:8:\nbad:x:x:\n"
)

func TestUSERIsReadStrictly(t *testing.T) {
	for _, tc := range []struct {
		name, user     string
		passwd, group  string // default the tables above; "-" for none
		want           User
		fail           string
		passwdIsALink  bool
		groupIsALink   bool
		passwdTooLarge bool
	}{
		{name: "none", user: "", want: User{Name: "1000", UID: 1000, GID: 1000}},
		{name: "name", user: "app", want: User{Name: "app", UID: 1234, GID: 1235, Groups: []uint32{44, 50, 1235}, Home: "/home/app", Shell: "/bin/bash"}},
		{name: "name and group", user: "app:staff", want: User{Name: "app", UID: 1234, GID: 50, Groups: []uint32{44, 50}, Home: "/home/app", Shell: "/bin/bash"}},
		{name: "name and number", user: "app:9", want: User{Name: "app", UID: 1234, GID: 9, Groups: []uint32{9, 44, 50}, Home: "/home/app", Shell: "/bin/bash"}},
		{name: "number with an entry", user: "1234", want: User{Name: "app", UID: 1234, GID: 1235, Home: "/home/app", Shell: "/bin/bash"}},
		{name: "numbers without an entry", user: "2345:2346", want: User{Name: "2345", UID: 2345, GID: 2346}},
		{name: "numbers without account files", user: "2345:2346", passwd: "-", group: "-", want: User{Name: "2345", UID: 2345, GID: 2346}},
		{name: "a relative home is none", user: "rel", want: User{Name: "rel", UID: 77, GID: 77, Groups: []uint32{77}, Shell: "/bin/sh"}},
		{name: "number without an entry and a group", user: "2345", fail: "no entry"},
		{name: "root", user: "root", fail: "root"},
		{name: "root by number", user: "0", fail: "root"},
		{name: "root by another name", user: "toor", fail: "root"},
		{name: "root's group", user: "app:root", fail: "root"},
		{name: "root's group by number", user: "app:0", fail: "root"},
		{name: "root by leading zeros", user: "000:5", fail: "root"},
		{name: "member of root", user: "wheel", fail: "group root"},
		{name: "empty group", user: "app:", fail: "empty"},
		{name: "empty user", user: ":app", fail: "empty"},
		{name: "two colons", user: "app:staff:x", fail: "colons"},
		{name: "unknown name", user: "nobody", fail: "not found"},
		{name: "unknown group", user: "app:nobody", fail: "not found"},
		{name: "ambiguous name", user: "twin", fail: "ambiguous"},
		{name: "ambiguous group", user: "app:twins", fail: "ambiguous"},
		{name: "entry without numbers", user: "broken", fail: "not found"},
		{name: "entry cut short", user: "short", fail: "not found"},
		{name: "group without a number", user: "app:bad", fail: "no usable number"},
		{name: "the id that is none", user: "4294967295:5", fail: "out of range"},
		{name: "the id that is none, by name", user: "max", fail: "no usable numbers"},
		{name: "a number too large", user: "99999999999:5", fail: "out of range"},
		{name: "a negative number is a name", user: "-1:5", fail: "not found"},
		{name: "space", user: " app", fail: "spaces"},
		{name: "control characters", user: "a\x1bpp", fail: "control"},
		{name: "passwd is a link", user: "app", passwdIsALink: true, fail: "not a regular file"},
		{name: "group is a link", user: "app", groupIsALink: true, fail: "not a regular file"},
		{name: "passwd is too large", user: "app", passwdTooLarge: true, fail: "longer than"},
		{name: "passwd is not UTF-8", user: "app", passwd: "app:x:1:1:\xff:/:/\n", fail: "UTF-8"},
		{name: "a line too long", user: "app", passwd: "x:" + strings.Repeat("y", 9000) + "\n" + testPasswd, fail: "too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			etc := filepath.Join(dir, "etc")
			if err := os.Mkdir(etc, 0o755); err != nil {
				t.Fatal(err)
			}
			put := func(name, text, standard string, link bool) {
				if text == "-" {
					return
				}
				if text == "" {
					text = standard
				}
				at := filepath.Join(etc, name)
				if link {
					if err := os.Symlink("/etc/passwd", at); err != nil {
						t.Fatal(err)
					}
					return
				}
				if tc.passwdTooLarge {
					text += strings.Repeat("\n", 1<<20)
				}
				if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			put("passwd", tc.passwd, testPasswd, tc.passwdIsALink)
			put("group", tc.group, testGroup, tc.groupIsALink)
			got, err := ResolveUser(dir, tc.user)
			if tc.fail != "" {
				if fault.KindOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), tc.fail) {
					t.Fatalf("%+v, error = %v, want one with %q", got, err, tc.fail)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("user (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzResolveUser(f *testing.F) {
	f.Add("app", testPasswd, testGroup)
	f.Add("0:0", "", "")
	f.Add("twin:staff", "twin:x:1:1::/:\n", "staff:x:0:twin\n")
	f.Fuzz(func(t *testing.T, user, passwd, group string) {
		dir := t.TempDir()
		os.Mkdir(filepath.Join(dir, "etc"), 0o755)
		os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(passwd), 0o644)
		os.WriteFile(filepath.Join(dir, "etc/group"), []byte(group), 0o644)
		u, err := ResolveUser(dir, user)
		if err != nil {
			return
		}
		const none = ^uint32(0)
		if u.UID == 0 || u.GID == 0 || u.UID == none || u.GID == none {
			t.Errorf("%q became %+v", user, u)
		}
		for _, g := range u.Groups {
			if g == 0 || g == none {
				t.Errorf("%q became %+v", user, u)
			}
		}
	})
}

func TestWhatIsRun(t *testing.T) {
	c := Config{Entrypoint: []string{"/entry", "-x"}, Cmd: []string{"serve"}}
	for _, tc := range []struct {
		name string
		got  []string
		want []string
	}{
		{"words are run as they are", Command(c, []string{"ls"}), []string{"ls"}},
		{"no words: the image's own", Command(c, nil), []string{"/entry", "-x", "serve"}},
		{"no words, nothing in the image", Command(Config{}, nil), nil},
		{"entry point wanted", WithEntrypoint(c, []string{"ls"}), []string{"/entry", "-x", "ls"}},
		{"entry point wanted, no words", WithEntrypoint(c, nil), []string{"/entry", "-x", "serve"}},
	} {
		if diff := cmp.Diff(tc.want, tc.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestTheShellIsFoundInsideTheImage(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(dir string) error
		want string
	}{
		{"none", func(string) error { return nil }, ""},
		{"plain", func(d string) error { return os.WriteFile(filepath.Join(d, "bin/sh"), nil, 0o755) }, "/bin/sh"},
		{"not runnable", func(d string) error { return os.WriteFile(filepath.Join(d, "bin/bash"), nil, 0o644) }, ""},
		{"absolute link, as in Alpine", func(d string) error {
			os.WriteFile(filepath.Join(d, "bin/busybox"), nil, 0o755)
			return os.Symlink("/bin/busybox", filepath.Join(d, "bin/sh"))
		}, "/bin/sh"},
		{"link to the host's", func(d string) error { return os.Symlink("/usr/bin/env", filepath.Join(d, "bin/bash")) }, ""},
		{"link in a circle", func(d string) error { return os.Symlink("/bin/sh", filepath.Join(d, "bin/sh")) }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tc.make(dir); err != nil {
				t.Fatal(err)
			}
			if got := Shell(dir); got != tc.want {
				t.Errorf("Shell = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestTheWorkspaceIsTheWorkingDirectory(t *testing.T) {
	for dir, want := range map[string]string{
		"": "/sandbox", "/": "/sandbox", "/sandbox": "/sandbox", "/work/project": "/work/project", "/work/": "/work",
		"relative": "", "/a/../b": "", "/proc": "", "/etc/x": "", "/.openshell/x": "", "/a\nb": "", "/dev/shm": "",
	} {
		got, err := Workspace(Config{WorkingDir: dir})
		if got != want || (err != nil) != (want == "") {
			t.Errorf("Workspace(%q) = %q, %v; want %q", dir, got, err, want)
		}
	}
}

func TestTheImagesEnvironmentIsBelowOurs(t *testing.T) {
	env, dropped := Environ(Config{Env: []string{"PATH=/usr/bin", "A=1", "A=2", "OPENSHELL_TOKEN=x", "openshell_x=1",
		"HTTPS_PROXY=http://build", "no_proxy=x", "SSH_AUTH_SOCK=/x", "novalue", "=x", "B\n=1", "LD_LIBRARY_PATH=/lib/cuda", "HOME=/root"}},
		[]string{"HOME=/sandbox", "TERM=dumb"})
	want := []string{"PATH=/usr/bin", "A=2", "LD_LIBRARY_PATH=/lib/cuda", "HOME=/sandbox", "TERM=dumb"}
	if diff := cmp.Diff(want, env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	wantDropped := []string{"OPENSHELL_TOKEN", "openshell_x", "HTTPS_PROXY", "no_proxy", "SSH_AUTH_SOCK", "novalue", "", "B\n"}
	if diff := cmp.Diff(wantDropped, dropped); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
}
