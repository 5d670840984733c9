package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/fault"
)

func TestSourcesAreTakenForWhatTheyAre(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("root/usr/bin/x", "")
	write("root/Dockerfile", "")
	write("recipe/Dockerfile", "")
	write("project/main.go", "")
	write("layout/oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	write("image.tar", "")
	write("other.bin", "")
	write("Dockerfile.dev", "")
	if err := os.Symlink("root", filepath.Join(dir, "alias")); err != nil {
		t.Fatal(err)
	}
	more, err := parseCatalogue("t.toml", []byte("schema = 1\n[[image]]\nname = \"pinned\"\nreference = \"registry.test/x/pinned@sha256:"+strings.Repeat("a", 64)+"\"\n[[image]]\nname=\"openclaw\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	community := Builtin().Registry
	for _, tc := range []struct {
		name, source string
		community    string
		catalogue    *Catalogue
		remote       bool // local files not allowed
		kind         Kind
		path, ref    string
		note         string
		fail, hint   string
	}{
		{name: "nothing", source: "", kind: Host},
		{name: "host", source: "host", kind: Host},
		{name: "directory", source: "./root", kind: Directory, path: "root"},
		{name: "directory by a link", source: "./alias", kind: Directory, path: "root"},
		{name: "directory, absolute", source: "DIR/root", kind: Directory, path: "root"},
		{name: "directory below home", source: "~/root", kind: Directory, path: "root"},
		{name: "layout", source: "./layout", kind: Layout, path: "layout"},
		{name: "layout with a name", source: "./layout:v1", kind: Layout, path: "layout"},
		{name: "archive", source: "image.tar", kind: Archive, path: "image.tar"},
		{name: "archive of any name, by path", source: "./other.bin", kind: Archive, path: "other.bin"},
		{name: "an archive that is not there may be a reference", source: "missing.tar", kind: Registry, ref: "docker.io/library/missing.tar:latest"},
		{name: "a missing path", source: "./missing", fail: `there is no "./missing"`, hint: "ls -ld"},
		{name: "the host's root", source: "/", fail: "not an image", hint: "--from host"},
		{name: "a project", source: "./project", fail: "neither a root filesystem"},
		{name: "a recipe", source: "./recipe", fail: "recipe for an image", hint: "docker build -t mine ./recipe"},
		{name: "a recipe file", source: "./Dockerfile.dev", fail: "recipe for an image", hint: "-f ./Dockerfile.dev"},
		{name: "a recipe file, bare", source: "Dockerfile", fail: "recipe for an image", hint: "docker build"},
		{name: "a path for a gateway elsewhere", source: "./root", remote: true, fail: "which this gateway cannot see"},
		{name: "an archive name for a gateway elsewhere", source: "image.tar", remote: true, kind: Registry, ref: "docker.io/library/image.tar:latest"},
		{name: "a full reference", source: "ghcr.io/acme/dockerfile-runner:latest", kind: Registry, ref: "ghcr.io/acme/dockerfile-runner:latest"},
		{name: "a pinned reference", source: "r.test/a@sha256:" + strings.Repeat("b", 64), kind: Registry, ref: "r.test/a@sha256:" + strings.Repeat("b", 64)},
		{name: "a relative directory without a dot is a reference", source: "root/usr", kind: Registry, ref: "docker.io/root/usr:latest"},
		{name: "an official image", source: "python", kind: Registry, ref: "docker.io/library/python:latest", note: `"python" is docker.io/library/python:latest`},
		{name: "an official image keeps its meaning", source: "python", community: "r.test/c", kind: Registry, ref: "docker.io/library/python:latest", note: "docker.io"},
		{name: "an official image with a tag", source: "python:3", kind: Registry, ref: "docker.io/library/python:3"},
		{name: "an unknown word", source: "frobnicate", kind: Registry, ref: "docker.io/library/frobnicate:latest", note: "docker.io/library/frobnicate:latest"},
		{name: "an unknown word with a prefix", source: "frobnicate", community: "r.test/c/", kind: Registry, ref: "r.test/c/frobnicate:latest", note: "OPENSHELL_COMMUNITY_REGISTRY"},
		{name: "a word of the catalogue", source: "openclaw", kind: Registry, ref: community + "/openclaw:latest", note: "image catalogue"},
		{name: "a word of the catalogue, prefix", source: "openclaw", community: "localhost:5000", kind: Registry, ref: "localhost:5000/openclaw:latest", note: "localhost:5000/openclaw"},
		{name: "what an old client makes of the word", source: community + "/openclaw:latest", community: "localhost:5000", kind: Registry, ref: "localhost:5000/openclaw:latest", note: "localhost:5000/openclaw"},
		{name: "the same without a prefix is nothing new", source: community + "/openclaw:latest", kind: Registry, ref: community + "/openclaw:latest"},
		{name: "a pinned word", source: "pinned", catalogue: more, kind: Registry, ref: "registry.test/x/pinned@sha256:" + strings.Repeat("a", 64), note: "image catalogue"},
		{name: "a web address", source: "https://r.test/a:1", fail: "web address", hint: "--from r.test/a:1"},
		{name: "capitals", source: "R.test/Team/App", fail: "not an image reference", hint: "--from r.test/team/app"},
		{name: "white space", source: "a\tb", fail: "white space"},
		{name: "control characters", source: "a\x00b", fail: "control characters"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, err := Resolve(strings.Replace(tc.source, "DIR", dir, 1), ResolveOptions{
				Local: !tc.remote, Dir: dir, Home: dir, Catalogue: tc.catalogue, CommunityRegistry: tc.community})
			if tc.fail != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fail) || !strings.Contains(fault.HintOf(err), tc.hint) {
					t.Fatalf("error = %v (hint %q), want %q (hint %q)", err, fault.HintOf(err), tc.fail, tc.hint)
				}
				return
			}
			if err != nil {
				t.Fatal(describe(err))
			}
			want := ""
			if tc.path != "" {
				real, err := filepath.EvalSymlinks(dir)
				if err != nil {
					t.Fatal(err)
				}
				want = filepath.Join(real, tc.path)
			}
			if src.Kind != tc.kind || src.Path != want || src.Reference != tc.ref || !strings.Contains(src.Note, tc.note) || tc.note == "" && src.Note != "" {
				t.Errorf("got %+v", src)
			}
		})
	}
}

func TestTheCatalogueTakesNoOfficialName(t *testing.T) {
	n := 0
	Builtin().Names(func(e Entry) {
		n++
		if officialNames()[e.Name] {
			t.Errorf("%q is an official image", e.Name)
		}
	})
	if n == 0 {
		t.Error("the catalogue is empty")
	}
	if e, ok := Builtin().Lookup("openclaw"); !ok || len(e.Command) == 0 {
		t.Errorf("openclaw = %+v, %v", e, ok)
	}
}

func TestABadCatalogueIsToldWithItsPlace(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"no schema", "", "schema is 0"},
		{"later schema", "schema = 2", "schema is 2"},
		{"unknown key", "schema = 1\n[[image]]\nname=\"x\"\nreferense=\"y\"", `c.toml:4:1: unknown key "image.referense"`},
		{"syntax", "schema = 1\nfoo", "c.toml:2:"},
		{"official", "schema = 1\n[[image]]\nname=\"python\"", "official image"},
		{"twice", "schema = 1\n[[image]]\nname=\"x\"\n[[image]]\nname=\"x\"", "there twice"},
		{"name", "schema = 1\n[[image]]\nname=\"a/b\"", "cannot be the name"},
		{"reference", "schema = 1\n[[image]]\nname=\"x\"\nreference=\"A B\"", "the reference of \"x\""},
		{"registry", "schema = 1\nregistry=\"A B\"", "not a registry"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.toml")
			if err := os.WriteFile(file, []byte(tc.text), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := LoadCatalogue(file)
			if fault.KindOf(err) != fault.InvalidArgument || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestAConfiguredCatalogueExtendsOurs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	text := "schema = 1\n[[image]]\nname=\"mine\"\nreference=\"r.test/mine:1\"\n[[image]]\nname=\"openclaw\"\nreference=\"r.test/claw:2\"\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := LoadCatalogue(file)
	if err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string]string{"mine": "r.test/mine:1", "openclaw": "r.test/claw:2", "base": c.Registry + "/base:latest"} {
		src, err := Resolve(word, ResolveOptions{Catalogue: c})
		if err != nil || src.Reference != want {
			t.Errorf("%s = %q, %v; want %q", word, src.Reference, err, want)
		}
	}
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"openclaw", "./x", "a@sha256:", "https://x", "localhost:1/a:b", "~/", "A", "a:b:c", "/../..", "ghcr.io/nvidia/openshell-community/sandboxes/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		src, err := Resolve(s, ResolveOptions{CommunityRegistry: "r.test/c"})
		if err != nil {
			if fault.KindOf(err) != fault.InvalidArgument && fault.KindOf(err) != fault.Unsupported {
				t.Errorf("Resolve(%q): %v", s, err)
			}
			return
		}
		// A resolved reference means itself.
		if src.Kind == Registry {
			again, err := Resolve(src.Reference, ResolveOptions{CommunityRegistry: "r.test/c"})
			if err != nil || again.Reference != src.Reference {
				t.Errorf("%q is %q, which is %q (%v)", s, src.Reference, again.Reference, err)
			}
		} else if src.Kind != Host {
			t.Errorf("Resolve(%q) looked at the disk: %+v", s, src)
		}
	})
}
