package image

import (
	"archive/tar"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"openshell.dev/openshell/internal/fault"
)

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func writeLayout(t testing.TB, dir string, images map[string]v1.Image) string {
	t.Helper()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for tag, img := range images {
		opts := []layout.Option{}
		if tag != "" {
			opts = append(opts, layout.WithAnnotations(map[string]string{refNameAnnotation: tag}))
		}
		if err := p.AppendImage(img, opts...); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tarDir packs a directory as oci-archive tools do.
func tarDir(t testing.TB, dir string) []byte {
	t.Helper()
	var es []entry
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		es = append(es, entry{name: rel, body: readFile(t, p)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return makeTar(t, es...)
}

func TestImagesComeFromLocalFiles(t *testing.T) {
	dir := t.TempDir()
	img := makeImage(t, v1.Config{User: "7:8"}, makeLayer(t, entry{name: "bin/x", body: "layer one"}), makeLayer(t, entry{name: "bin/.wh.y"}, entry{name: "bin/z", body: "layer two"}))
	tag, err := name.NewTag("r.test/app:1")
	if err != nil {
		t.Fatal(err)
	}
	docker := filepath.Join(dir, "docker.tar")
	if err := tarball.WriteToFile(docker, tag, img); err != nil {
		t.Fatal(err)
	}
	lay := writeLayout(t, filepath.Join(dir, "lay"), map[string]v1.Image{"": img})
	packedDocker := writeFile(t, filepath.Join(dir, "docker.tar.gz"), gz(t, []byte(readFile(t, docker))))
	oci := writeFile(t, filepath.Join(dir, "oci.tar"), tarDir(t, lay))
	want, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	c := newCache(t, Limits{})
	for _, source := range []string{lay, docker, packedDocker, oci} {
		got := mustPull(t, c, source)
		if got.ID != want.String() || got.Config.User != "7:8" || readFile(t, got.RootfsDir, "bin/x") != "layer one" || readFile(t, got.RootfsDir, "bin/z") != "layer two" {
			t.Errorf("%s gave %+v", filepath.Base(source), got)
		}
		got.Close()
		if err := c.Remove(got.ID); err != nil {
			t.Error(err)
		}
	}
}

func TestAPlainArchiveIsARootFilesystem(t *testing.T) {
	dir := t.TempDir()
	data := makeTar(t, entry{name: "./"}, entry{name: "./etc/hostname", body: "h"}, entry{name: "./bin", kind: tar.TypeSymlink, link: "usr/bin"})
	c := newCache(t, Limits{})
	for _, source := range []string{
		writeFile(t, filepath.Join(dir, "a.tar"), data),
		writeFile(t, filepath.Join(dir, "b.tgz"), gz(t, data)),
	} {
		img := mustPull(t, c, source)
		if readFile(t, img.RootfsDir, "etc/hostname") != "h" || img.ID == "" {
			t.Errorf("%s gave %+v", source, img)
		}
	}
	if list, err := c.List(); err != nil || len(list) != 2 {
		t.Errorf("%d images, %v", len(list), err)
	}
}

func TestADirectoryIsUsedWhereItStands(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "usr/bin/x"), nil)
	img := mustPull(t, newCache(t, Limits{}), dir)
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	if img.RootfsDir != real || img.ID != "" || img.Host() {
		t.Errorf("image = %+v", img)
	}
	if host := mustPull(t, newCache(t, Limits{}), "host"); !host.Host() {
		t.Errorf("host = %+v", host)
	}
}

func TestALayoutWithSeveralImagesNeedsAName(t *testing.T) {
	dir := writeLayout(t, filepath.Join(t.TempDir(), "lay"), map[string]v1.Image{"one": simpleImage(t, "1"), "two": simpleImage(t, "2")})
	c := newCache(t, Limits{})
	if _, err := pull(t, c, dir); fault.KindOf(err) != fault.InvalidArgument || !strings.Contains(err.Error(), `["one" "two"]`) {
		t.Errorf("error = %v", err)
	}
	if got := readFile(t, mustPull(t, c, dir+":two").RootfsDir, "bin/x"); got != "2" {
		t.Errorf("two has %q", got)
	}
	if _, err := pull(t, c, dir+":three"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("error = %v", err)
	}
}

func TestDamagedLocalImagesAreRefused(t *testing.T) {
	good := func(t *testing.T) string {
		return writeLayout(t, filepath.Join(t.TempDir(), "lay"), map[string]v1.Image{"": simpleImage(t, "x")})
	}
	blobs := func(t *testing.T, dir string, f func(name string)) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
		if err != nil || len(files) != 3 {
			t.Fatalf("%v %v", files, err)
		}
		for _, b := range files {
			f(b)
		}
	}
	config, err := json.Marshal(v1.ConfigFile{OS: "linux", Architecture: machineArch, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}}}})
	if err != nil {
		t.Fatal(err)
	}
	manifest := func(config string, layers ...string) string {
		data, err := json.Marshal([]dockerManifest{{Config: config, Layers: layers}})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for _, tc := range []struct {
		name string
		make func(t *testing.T) string
		text string
	}{
		{"a blob changed", func(t *testing.T) string {
			d := good(t)
			blobs(t, d, func(b string) {
				data := []byte(readFile(t, b))
				data[len(data)-1] ^= 1
				writeFile(t, b, data)
			})
			return d
		}, "does not match its digest"},
		{"blobs are links to a file outside", func(t *testing.T) string {
			d := good(t)
			blobs(t, d, func(b string) { os.Remove(b); os.Symlink("/etc/hostname", b) })
			return d
		}, "not a regular file"},
		{"blobs are missing", func(t *testing.T) string {
			d := good(t)
			blobs(t, d, func(b string) { os.Remove(b) })
			return d
		}, "lacks the manifest"},
		{"later layout", func(t *testing.T) string {
			d := good(t)
			writeFile(t, filepath.Join(d, "oci-layout"), []byte(`{"imageLayoutVersion":"2.0.0"}`))
			return d
		}, "version 1"},
		{"index is not JSON", func(t *testing.T) string {
			d := good(t)
			writeFile(t, filepath.Join(d, "index.json"), []byte(`{`))
			return d
		}, "manifest cannot be read"},
		{"not an archive", func(t *testing.T) string {
			return writeFile(t, filepath.Join(t.TempDir(), "x.tar"), []byte(strings.Repeat("hello ", 1000)))
		}, "is not a tar archive"},
		{"empty archive", func(t *testing.T) string {
			return writeFile(t, filepath.Join(t.TempDir(), "x.tar"), makeTar(t))
		}, "empty archive"},
		{"empty file", func(t *testing.T) string {
			return writeFile(t, filepath.Join(t.TempDir(), "x.tar"), nil)
		}, "empty archive"},
		{"packed with xz", func(t *testing.T) string {
			return writeFile(t, filepath.Join(t.TempDir(), "x.tar"), []byte("\xfd7zXZ\x00..."))
		}, "xz or bzip2"},
		{"damaged gzip", func(t *testing.T) string {
			data := gz(t, makeTar(t, entry{name: "usr/x", body: strings.Repeat("x", 5000)}))
			return writeFile(t, filepath.Join(t.TempDir(), "x.tar.gz"), data[:len(data)-10])
		}, "damaged"},
		{"docker archive, configuration outside", func(t *testing.T) string {
			return writeFile(t, filepath.Join(t.TempDir(), "x.tar"), makeTar(t, entry{name: "manifest.json", body: manifest("../../../../etc/hostname")}))
		}, "configuration"},
		{"docker archive, layer by a link outside", func(t *testing.T) string {
			return writeFile(t, filepath.Join(t.TempDir(), "x.tar"), makeTar(t, entry{name: "manifest.json", body: manifest("c.json", "l.tar")},
				entry{name: "c.json", body: string(config)}, entry{name: "l.tar", kind: tar.TypeSymlink, link: "../../../etc/hostname"}))
		}, "points outside"},
		{"docker archive, absolute link", func(t *testing.T) string {
			return writeFile(t, filepath.Join(t.TempDir(), "x.tar"), makeTar(t, entry{name: "manifest.json", body: manifest("c.json", "l.tar")},
				entry{name: "l.tar", kind: tar.TypeSymlink, link: "/etc/hostname"}))
		}, "points outside"},
		{"docker archive, layer that is another", func(t *testing.T) string {
			return writeFile(t, filepath.Join(t.TempDir(), "x.tar"), makeTar(t, entry{name: "manifest.json", body: manifest("c.json", "l.tar")},
				entry{name: "c.json", body: string(config)}, entry{name: "l.tar", body: string(makeTar(t, entry{name: "a"}))}))
		}, "does not match its digest"},
		{"docker archive, the same file twice", func(t *testing.T) string {
			return writeFile(t, filepath.Join(t.TempDir(), "x.tar"), makeTar(t, entry{name: "manifest.json", body: "[]"}, entry{name: "manifest.json", body: "[]"}))
		}, "twice"},
		{"docker archive of two images", func(t *testing.T) string {
			return writeFile(t, filepath.Join(t.TempDir(), "x.tar"), makeTar(t, entry{name: "manifest.json", body: `[{},{}]`}))
		}, "holds 2 images"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCache(t, Limits{})
			_, err := pull(t, c, tc.make(t))
			if err == nil || !strings.Contains(fault.Detail(err), tc.text) {
				t.Errorf("error = %v, want one with %q", err, tc.text)
			}
			if fault.KindOf(err) == fault.Internal {
				t.Errorf("%v has no public kind", err)
			}
			if list, _ := c.List(); len(list) != 0 {
				t.Errorf("%d images were kept", len(list))
			}
		})
	}
}
