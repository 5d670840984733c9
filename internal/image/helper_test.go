package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is one archive entry of a test.
type entry struct {
	name, body, link string
	kind             byte // tar.TypeReg if 0 and the name has no trailing slash
	mode             int64
	pax              map[string]string
	uid              int
}

var testTime = time.Unix(1_700_000_000, 0)

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: e.mode, Uid: e.uid,
			Size: int64(len(e.body)), ModTime: testTime, PAXRecords: e.pax}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(e.name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if h.Typeflag != tar.TypeReg {
			h.Size = 0
		}
		if e.pax != nil {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("%q: %v", e.name, err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatalf("%q: %v", e.name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gz(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func makeLayer(t testing.TB, entries ...entry) v1.Layer {
	t.Helper()
	data := makeTar(t, entries...)
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// makeImage builds an image for this machine's platform.
func makeImage(t testing.TB, cfg v1.Config, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	if err != nil {
		t.Fatal(err)
	}
	return withConfig(t, img, cfg, "linux", machineArch)
}

func withConfig(t testing.TB, img v1.Image, cfg v1.Config, os, arch string) v1.Image {
	t.Helper()
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = os, arch, cfg
	img, err = mutate.ConfigFile(img, file)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// testRegistry is a registry on loopback.
type testRegistry struct {
	host string

	hook func(w http.ResponseWriter, r *http.Request) bool
}

func newRegistry(t testing.TB) *testRegistry {
	t.Helper()
	reg := &testRegistry{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if reg.hook != nil && reg.hook(w, r) {
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	reg.host = strings.TrimPrefix(srv.URL, "http://")
	return reg
}

// push stores an image and returns its reference.
func (r *testRegistry) push(t testing.TB, repo string, img v1.Image, opts ...remote.Option) string {
	t.Helper()
	ref, err := name.ParseReference(r.host + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, opts...); err != nil {
		t.Fatal(err)
	}
	return ref.Name()
}

func (r *testRegistry) pushIndex(t testing.TB, repo string, idx v1.ImageIndex) string {
	t.Helper()
	ref, err := name.ParseReference(r.host + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, idx); err != nil {
		t.Fatal(err)
	}
	return ref.Name()
}

// noCredentials keeps the files of whoever runs the tests out of them.
var noCredentials = authn.NewMultiKeychain()

func newCache(t testing.TB, l Limits) *Cache {
	t.Helper()
	c, err := Open(filepath.Join(t.TempDir(), "cache"), CacheOptions{Limits: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { checkTidy(t, c) })
	return c
}

// checkTidy fails the test if anything half-made is left.
func checkTidy(t testing.TB, c *Cache) {
	t.Helper()
	left, err := os.ReadDir(c.path("tmp"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("left behind: tmp/%s", e.Name())
	}
}

func resolve(t testing.TB, source string) Source {
	t.Helper()
	src, err := Resolve(source, ResolveOptions{Local: true})
	if err != nil {
		t.Fatalf("Resolve(%q): %v", source, err)
	}
	return src
}

// pull resolves and pulls, without retries and without the caller's
// credentials.
func pull(t testing.TB, c *Cache, source string, change ...func(*PullOptions)) (*Image, error) {
	t.Helper()
	o := PullOptions{Keychain: noCredentials, Attempts: 1, Backoff: time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	img, err := c.Pull(t.Context(), resolve(t, source), o)
	if err == nil {
		t.Cleanup(func() { img.Close() })
	}
	return img, err
}

func mustPull(t testing.TB, c *Cache, source string, change ...func(*PullOptions)) *Image {
	t.Helper()
	img, err := pull(t, c, source, change...)
	if err != nil {
		t.Fatalf("pull %s: %v", source, describe(err))
	}
	return img
}

func readFile(t testing.TB, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// rawLayer is a layer of given bytes.
type rawLayer struct {
	plain, packed []byte
	kind          types.MediaType
}

func (l rawLayer) Digest() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.packed))
	return h, err
}
func (l rawLayer) DiffID() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.plain))
	return h, err
}
func (l rawLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.packed)), nil
}
func (l rawLayer) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.plain)), nil
}
func (l rawLayer) Size() (int64, error)                { return int64(len(l.packed)), nil }
func (l rawLayer) MediaType() (types.MediaType, error) { return l.kind, nil }

// taggable is any manifest document.
type taggable struct{ m *v1.Manifest }

func (g taggable) RawManifest() ([]byte, error)        { return json.Marshal(g.m) }
func (g taggable) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func v1Config() v1.Config { return v1.Config{} }

// rawLayerOf is a layer that is not packed.
func rawLayerOf(t testing.TB, entries ...entry) v1.Layer {
	data := makeTar(t, entries...)
	return rawLayer{plain: data, packed: data, kind: types.OCIUncompressedLayer}
}
