package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"openshell.dev/openshell/internal/fault"
)

// jail is a directory to unpack into, with things beside it that must not
// change.
type jail struct {
	base, rootfs string
	outside      string // digest of everything but rootfs
}

func newJail(t testing.TB) *jail {
	t.Helper()
	base := t.TempDir()
	j := &jail{base: base, rootfs: filepath.Join(base, "in", "rootfs")}
	for _, d := range []string{"in/rootfs", "outside/dir"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"canary", "in/canary", "outside/canary", "outside/dir/canary"} {
		if err := os.WriteFile(filepath.Join(base, f), []byte("untouched"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	j.outside = j.snapshot(t)
	return j
}

// snapshot describes all but rootfs: names, kinds, modes, sizes, contents,
// link counts.
func (j *jail) snapshot(t testing.TB) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(j.base, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == j.rootfs {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s %v %s", p, info.Mode(), links(info))
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %x", sha256.Sum256(data))
		}
		out.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func (j *jail) check(t testing.TB) {
	t.Helper()
	if diff := cmp.Diff(j.outside, j.snapshot(t)); diff != "" {
		t.Errorf("something outside of the image changed:\n%s", diff)
	}
}

// unpack applies tars as layers.
func (j *jail) unpack(ctx context.Context, l Limits, tars ...[]byte) (*unpacker, error) {
	root, err := os.OpenRoot(j.rootfs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	u := newUnpacker(root, l.withDefaults())
	defer u.disk.close()
	for _, data := range tars {
		u.meter.nextLayer()
		z, err := decompress(countPacked{bytes.NewReader(data), u.meter})
		if err != nil {
			return u, err
		}
		if err := u.layer(ctx, countStream{z, u.meter}); err != nil {
			return u, err
		}
	}
	return u, u.finish()
}

// tree lists what is in rootfs: "name", "name/", "name -> target".
func (j *jail) tree(t testing.TB) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(j.rootfs, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == j.rootfs {
			return err
		}
		rel, _ := filepath.Rel(j.rootfs, p)
		switch {
		case d.IsDir():
			rel += "/"
		case d.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(p)
			rel += " -> " + target
		case !d.Type().IsRegular():
			rel += " (special)"
		}
		out = append(out, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(out)
	return out
}

func TestNoArchiveReachesOutsideTheImage(t *testing.T) {
	const dir, link, hard = tar.TypeDir, tar.TypeSymlink, tar.TypeLink
	long := strings.Repeat("a", 200)
	for _, tc := range []struct {
		name   string
		layers [][]entry
		want   []string   // the tree, if it unpacks
		kind   fault.Kind // of the error, if it does not
		text   string     // in the error
	}{
		{name: "dot dot", layers: [][]entry{{{name: "../canary", body: "x"}}}, text: "leaves the image"},
		{name: "dot dot inside", layers: [][]entry{{{name: "a/../../canary", body: "x"}}}, text: "leaves the image"},
		{name: "dot dot that would stay inside", layers: [][]entry{{{name: "a/b/../c", body: "x"}}}, text: "leaves the image"},
		{name: "dot dot as a directory", layers: [][]entry{{{name: "../", kind: dir}}}, text: "leaves the image"},
		{name: "absolute name", layers: [][]entry{{{name: "/etc/x", body: "x"}}}, want: []string{"etc/", "etc/x"}},
		{name: "absolute name of a real file", layers: [][]entry{{{name: "OUTSIDE/canary", body: "x"}}}, want: []string{"OUTSIDE/", "OUTSIDE/canary"}},
		{name: "many slashes", layers: [][]entry{{{name: "//a///b", body: "x"}}}, want: []string{"a/", "a/b"}},
		{name: "absolute link in a parent", layers: [][]entry{{{name: "l", kind: link, link: "OUTSIDE"}, {name: "l/canary", body: "x"}}},
			want: []string{"OUTSIDE/", "OUTSIDE/canary", "l -> OUTSIDE"}},
		{name: "relative link in a parent", layers: [][]entry{{{name: "l", kind: link, link: "../../outside"}, {name: "l/canary", body: "x"}}},
			want: []string{"l -> ../../outside", "outside/", "outside/canary"}},
		{name: "link in a parent, from the layer below", layers: [][]entry{{{name: "l", kind: link, link: "../../outside"}}, {{name: "l/canary", body: "x"}}},
			want: []string{"l -> ../../outside", "outside/", "outside/canary"}},
		{name: "link to the host root", layers: [][]entry{{{name: "l", kind: link, link: "/"}, {name: "l/x", body: "x"}}},
			want: []string{"l -> /", "x"}},
		{name: "link to proc", layers: [][]entry{{{name: "l", kind: link, link: "/proc/self/cwd"}, {name: "l/x", body: "x"}}},
			want: []string{"l -> /proc/self/cwd", "proc/", "proc/self/", "proc/self/cwd/", "proc/self/cwd/x"}},
		{name: "link in the last place is replaced, not written through", layers: [][]entry{{{name: "l", kind: link, link: "../canary"}, {name: "l", body: "x"}}},
			want: []string{"l"}},
		{name: "link in the last place, directory over it", layers: [][]entry{{{name: "l", kind: link, link: "../../outside"}, {name: "l/", kind: dir}, {name: "l/x", body: "x"}}},
			want: []string{"l/", "l/x"}},
		{name: "usr merge in an upper layer", layers: [][]entry{{{name: "usr/bin/"}, {name: "bin", kind: link, link: "usr/bin"}}, {{name: "bin/tool", body: "x"}}},
			want: []string{"bin -> usr/bin", "usr/", "usr/bin/", "usr/bin/tool"}},
		{name: "an absolute link starts at the image's root", layers: [][]entry{{{name: "d/l", kind: link, link: "/x"}, {name: "d/l/f", body: "x"}}},
			want: []string{"d/", "d/l -> /x", "x/", "x/f"}},
		{name: "a relative link starts where it stands", layers: [][]entry{{{name: "d/l", kind: link, link: "x"}, {name: "d/l/f", body: "x"}}},
			want: []string{"d/", "d/l -> x", "d/x/", "d/x/f"}},
		{name: "links in a circle", layers: [][]entry{{{name: "a", kind: link, link: "b"}, {name: "b", kind: link, link: "a"}, {name: "a/x", body: "x"}}}, text: "too many symbolic links"},
		{name: "link to nothing", layers: [][]entry{{{name: "a", kind: link}}}, text: "to nowhere"},
		{name: "hard link outside", layers: [][]entry{{{name: "h", kind: hard, link: "../canary"}}}, text: "leaves the image"},
		{name: "hard link to an absolute path", layers: [][]entry{{{name: "h", kind: hard, link: "/etc/passwd"}}}, text: "not there"},
		{name: "hard link through a link in a parent", layers: [][]entry{{{name: "l", kind: link, link: "../../outside"}, {name: "h", kind: hard, link: "l/canary"}}}, text: "not there"},
		{name: "hard link to a symbolic link, then written", layers: [][]entry{{{name: "l", kind: link, link: "../canary"}, {name: "h", kind: hard, link: "l"}, {name: "h", body: "x"}}},
			want: []string{"h", "l -> ../canary"}},
		{name: "hard link to a symbolic link, then entered", layers: [][]entry{{{name: "l", kind: link, link: "../../outside"}, {name: "h", kind: hard, link: "l"}, {name: "h/canary", body: "x"}}},
			want: []string{"h -> ../../outside", "l -> ../../outside", "outside/", "outside/canary"}},
		{name: "hard link to a directory", layers: [][]entry{{{name: "d/"}, {name: "h", kind: hard, link: "d"}}}, text: "to a directory"},
		{name: "hard link to itself", layers: [][]entry{{{name: "f", body: "x"}, {name: "f", kind: hard, link: "f"}}}, want: []string{"f"}},
		{name: "hard link over its own directory", layers: [][]entry{{{name: "d/f", body: "x"}, {name: "d", kind: hard, link: "d/f"}}}, text: "would replace the directory"},
		{name: "hard link to the root", layers: [][]entry{{{name: "h", kind: hard, link: "/"}}}, text: "to the root"},
		{name: "whiteout of the parent", layers: [][]entry{{{name: "d/.wh...", body: ""}}}, text: "names no file"},
		{name: "whiteout of the directory itself", layers: [][]entry{{{name: "d/.wh..", body: ""}}}, text: "names no file"},
		{name: "whiteout of nothing", layers: [][]entry{{{name: "d/.wh.", body: ""}}}, text: "names no file"},
		{name: "whiteout through a link", layers: [][]entry{{{name: "l", kind: link, link: "../../outside"}}, {{name: "l/.wh.canary"}}},
			want: []string{"l -> ../../outside"}},
		{name: "opaque through a link", layers: [][]entry{{{name: "l", kind: link, link: "../../outside"}}, {{name: "l/.wh..wh..opq"}}},
			want: []string{"l -> ../../outside"}},
		{name: "whiteout with a dot dot parent", layers: [][]entry{{{name: "../.wh.canary"}}}, text: "leaves the image"},
		{name: "devices", layers: [][]entry{{{name: "dev/sda", kind: tar.TypeBlock}, {name: "dev/null", kind: tar.TypeChar}, {name: "p", kind: tar.TypeFifo}}}},
		{name: "file below a file", layers: [][]entry{{{name: "f", body: "x"}, {name: "f/g", body: "x"}}}, text: "below a file"},
		{name: "file below a device that was left out", layers: [][]entry{{{name: "p", kind: tar.TypeFifo}, {name: "p/g", body: "x"}}}, want: []string{"p/", "p/g"}},
		{name: "root as a file", layers: [][]entry{{{name: "./", kind: tar.TypeSymlink, link: "/"}}}, text: "replace the root"},
		{name: "the same name twice", layers: [][]entry{{{name: "f", body: "1"}, {name: "f", body: "2"}, {name: "./f", body: "3"}}}, want: []string{"f"}},
		{name: "names that differ in case", layers: [][]entry{{{name: "F", body: "1"}, {name: "f", body: "2"}}}, want: []string{"F", "f"}},
		{name: "a directory where a file was", layers: [][]entry{{{name: "x", body: "1"}}, {{name: "x/"}, {name: "x/y", body: "1"}}}, want: []string{"x/", "x/y"}},
		{name: "a file where a directory was", layers: [][]entry{{{name: "x/y/z", body: "1"}}, {{name: "x", body: "1"}}}, want: []string{"x"}},
		{name: "reserved directory", layers: [][]entry{{{name: ".openshell/x", body: "1"}}}, text: "reserved"},
		{name: "reserved directory through a link", layers: [][]entry{{{name: "l", kind: link, link: "/.openshell"}, {name: "l/x", body: "1"}}}, text: "reserved"},
		{name: "reserved directory through a link to the root", layers: [][]entry{{{name: "l", kind: link, link: "/"}, {name: "l/.openshell", body: "1"}}}, text: "reserved"},
		{name: "long name", layers: [][]entry{{{name: strings.Repeat("b", 256), body: "1"}}}, text: "longer than 255"},
		{name: "long name by a link", layers: [][]entry{{{name: "l", kind: link, link: strings.Repeat("b", 256)}, {name: "l/x", body: "1"}}}, text: "longer than 255"},
		{name: "long path", layers: [][]entry{{{name: strings.Repeat(long+"/", 30) + "x", body: "1"}}}, text: "longer than 3800"},
		{name: "long path by links", layers: [][]entry{{{name: "l", kind: link, link: strings.Repeat(long+"/", 18)}, {name: "l/m", kind: link, link: strings.Repeat(long+"/", 18)}, {name: "l/m/x", body: "1"}}}, text: "longer than 3800"},
		{name: "deep path", layers: [][]entry{{{name: strings.Repeat("d/", 300) + "x", body: "1"}}}, text: "deeper than 200"},
		{name: "deep path by links", layers: [][]entry{{{name: "l", kind: link, link: strings.Repeat("d/", 150)}, {name: "l/m", kind: link, link: strings.Repeat("d/", 150)}, {name: "l/m/x", body: "1"}}}, text: "deeper than 200"},
		{name: "newlines and control characters", layers: [][]entry{{{name: "a\nb\x1b[31m", body: "1"}}}, want: []string{"a\nb\x1b[31m"}},
		{name: "PAX path over the header's", layers: [][]entry{{{name: "ok", body: "1", pax: map[string]string{"VENDOR.x": "1"}}, {name: strings.Repeat("p/", 60) + "../../../x", body: "1"}}}, text: "leaves the image"},
		{name: "sockets and unknown kinds", layers: [][]entry{{{name: "s", kind: 'Z'}}}, text: "unknown kind"},
		{name: "overlay attributes", layers: [][]entry{{{name: "d/", pax: map[string]string{"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc"}}}}, want: []string{"d/"}},
		{name: "hello after escape attempt", layers: [][]entry{{{name: "..foo", body: "1"}, {name: "...", body: "1"}}}, want: []string{"...", "..foo"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := newJail(t)
			fill := func(s string) string {
				return strings.Replace(s, "OUTSIDE", filepath.Join(j.base, "outside"), 1)
			}
			var tars [][]byte
			for _, entries := range tc.layers {
				var es []entry
				for _, e := range entries {
					e.name, e.link = fill(e.name), fill(e.link)
					es = append(es, e)
				}
				tars = append(tars, makeTar(t, es...))
			}
			_, err := j.unpack(t.Context(), Limits{}, tars...)
			j.check(t)
			if tc.text != "" {
				if err == nil || !strings.Contains(fault.Detail(err), tc.text) {
					t.Fatalf("error = %v, want one with %q", err, tc.text)
				}
				return
			}
			if err != nil {
				t.Fatalf("error = %v", err)
			}
			got := j.tree(t)
			if tc.name == "devices" {
				got = trimDirs(got)
			}
			want := wantTree(t, j, tc.want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
}

func trimDirs(in []string) []string {
	var out []string
	for _, s := range in {
		if !strings.HasSuffix(s, "/") {
			out = append(out, s)
		}
	}
	return out
}

// wantTree puts the path of the outside directory where the table says
// OUTSIDE, with its parents.
func wantTree(t *testing.T, j *jail, want []string) []string {
	t.Helper()
	outside := filepath.Join(j.base, "outside")
	set := map[string]bool{}
	for _, w := range want {
		if strings.HasPrefix(w, "OUTSIDE") {
			rel := outside[1:]
			for d := filepath.Dir(rel); d != "."; d = filepath.Dir(d) {
				set[d+"/"] = true
			}
			w = strings.Replace(w, "OUTSIDE", rel, 1)
		}
		set[strings.Replace(w, "-> OUTSIDE", "-> "+outside, 1)] = true
	}
	var out []string
	for w := range set {
		out = append(out, w)
	}
	sort.Strings(out)
	return out
}

func TestWhiteoutsSpeakOfLowerLayers(t *testing.T) {
	base := []entry{{name: "d/"}, {name: "d/a", body: "1"}, {name: "d/b", body: "1"}, {name: "d/sub/c", body: "1"}, {name: "e", body: "1"}}
	for _, tc := range []struct {
		name  string
		upper []entry
		want  []string
	}{
		{"a file", []entry{{name: "d/.wh.a"}}, []string{"d/", "d/b", "d/sub/", "d/sub/c", "e"}},
		{"a directory", []entry{{name: ".wh.d"}}, []string{"e"}},
		{"a missing file", []entry{{name: "d/.wh.zz"}, {name: "zz/.wh.a"}}, []string{"d/", "d/a", "d/b", "d/sub/", "d/sub/c", "e"}},
		{"opaque first", []entry{{name: "d/"}, {name: "d/.wh..wh..opq"}, {name: "d/new", body: "1"}}, []string{"d/", "d/new", "e"}},
		{"opaque last", []entry{{name: "d/new", body: "1"}, {name: "d/sub/n2", body: "1"}, {name: "d/.wh..wh..opq"}}, []string{"d/", "d/new", "d/sub/", "d/sub/n2", "e"}},
		{"opaque twice", []entry{{name: "d/.wh..wh..opq"}, {name: "d/new", body: "1"}, {name: "d/.wh..wh..opq"}}, []string{"d/", "d/new", "e"}},
		{"whiteout after the new file", []entry{{name: "e", body: "2"}, {name: ".wh.e"}}, []string{"d/", "d/a", "d/b", "d/sub/", "d/sub/c", "e"}},
		{"whiteout of a directory that is filled again", []entry{{name: ".wh.d"}, {name: "d/x", body: "1"}}, []string{"d/", "d/x", "e"}},
		{"the same, in the other order", []entry{{name: "d/x", body: "1"}, {name: ".wh.d"}}, []string{"d/", "d/x", "e"}},
		{"bookkeeping of AUFS", []entry{{name: ".wh..wh.plnk/"}, {name: ".wh..wh.aufs"}}, []string{"d/", "d/a", "d/b", "d/sub/", "d/sub/c", "e"}},
		{"opaque root", []entry{{name: ".wh..wh..opq"}, {name: "n", body: "1"}}, []string{"n"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := newJail(t)
			if _, err := j.unpack(t.Context(), Limits{}, makeTar(t, base...), makeTar(t, tc.upper...)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, j.tree(t)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
			j.check(t)
		})
	}
}

func TestModesStayUsableAndHarmless(t *testing.T) {
	j := newJail(t)
	u, err := j.unpack(t.Context(), Limits{}, makeTar(t,
		entry{name: "./", mode: 0o555},
		entry{name: "closed/", mode: 0o001}, entry{name: "closed/f", mode: 0o7000, body: "x"},
		entry{name: "su", mode: 0o4755, body: "x", uid: 7}, entry{name: "sg", mode: 0o2755, body: "x"},
		entry{name: "tmp/", mode: 0o1777}, entry{name: "sgdir/", mode: 0o2755}))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		".": fs.ModeDir | 0o755, "closed": fs.ModeDir | 0o701, "closed/f": 0o400, "su": 0o755, "sg": 0o755,
		"tmp": fs.ModeDir | fs.ModeSticky | 0o777, "sgdir": fs.ModeDir | 0o755,
	} {
		info, err := os.Lstat(filepath.Join(j.rootfs, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Mode() != want {
			t.Errorf("%s is %v, want %v", name, info.Mode(), want)
		}
	}
	if want := (Dropped{SetID: 4, Owners: 1}); u.dropped != want {
		t.Errorf("dropped = %+v, want %+v", u.dropped, want)
	}
}

func TestLimitsEndTheWork(t *testing.T) {
	zeros := string(make([]byte, 1<<20))
	var many []entry
	for i := range 100 {
		many = append(many, entry{name: fmt.Sprintf("f%d", i)})
	}
	bomb := gz(t, makeTar(t, entry{name: "big", body: strings.Repeat("\x00", 5<<20)}))
	for _, tc := range []struct {
		name   string
		limits Limits
		tars   [][]byte
		text   string
	}{
		{"bytes", Limits{Bytes: 1 << 20}, [][]byte{makeTar(t, entry{name: "a", body: zeros}, entry{name: "b", body: zeros})}, "more than 1 MB"},
		{"bytes over layers", Limits{Bytes: 3 << 19}, [][]byte{makeTar(t, entry{name: "a", body: zeros}), makeTar(t, entry{name: "a", body: zeros})}, "more than 1 MB"},
		{"entries", Limits{Entries: 99}, [][]byte{makeTar(t, many...)}, "more than 99 files"},
		{"ratio", Limits{Ratio: 100, Free: 1 << 20}, [][]byte{bomb}, "more than 100 times"},
		{"ratio of what is not a file", Limits{Ratio: 100, Free: 1 << 20}, [][]byte{gz(t, append(makeTar(t, entry{name: "a"}), make([]byte, 5<<20)...))}, "more than 100 times"},
		{"bytes after the end of the archive", Limits{Bytes: 1 << 20}, [][]byte{gz(t, append(makeTar(t, entry{name: "a"}), make([]byte, 2<<20)...))}, "more than 1 MB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := newJail(t)
			_, err := j.unpack(t.Context(), tc.limits, tc.tars...)
			if fault.KindOf(err) != fault.Exhausted || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error = %v, want an Exhausted fault with %q", err, tc.text)
			}
			j.check(t)
		})
	}
}

func TestATruncatedArchiveIsAnError(t *testing.T) {
	whole := makeTar(t, entry{name: "a", body: strings.Repeat("x", 5000)}, entry{name: "b", body: "y"})
	for _, cut := range []int{1, 511, 600, 4000, 6000} {
		j := newJail(t)
		_, err := j.unpack(t.Context(), Limits{}, whole[:cut])
		if fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("cut at %d: error = %v, want a malformed image", cut, err)
		}
	}
}

func TestUnpackingStopsWhenTheCallerLeaves(t *testing.T) {
	j := newJail(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.unpack(ctx, Limits{}, makeTar(t, entry{name: "a", body: "x"})); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want cancelled", err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(makeTar(f, entry{name: "a/b", body: "x"}, entry{name: "l", kind: tar.TypeSymlink, link: "../.."}, entry{name: "l/x", body: "x"}), []byte{})
	f.Add(makeTar(f, entry{name: "d/a", body: "x"}), makeTar(f, entry{name: "d/.wh.a"}, entry{name: "d/.wh..wh..opq"}))
	f.Add(makeTar(f, entry{name: "a", body: "x"}, entry{name: "h", kind: tar.TypeLink, link: "a"}, entry{name: "h", body: "y"}), makeTar(f, entry{name: "a/"}))
	f.Add(gz(f, makeTar(f, entry{name: "x", body: "x", pax: map[string]string{"SCHILY.xattr.a": "b"}})), []byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		j := newJail(t)
		limits := Limits{Bytes: 1 << 20, Entries: 64}
		u, err := j.unpack(t.Context(), limits, one, two)
		j.check(t)
		if err != nil || t.Failed() {
			return
		}
		if diff := cmp.Diff(modelTree(u.tree.root), j.tree(t)); diff != "" {
			t.Errorf("the model and the disk differ (-model +disk):\n%s", diff)
		}
	})
}
