package image

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"openshell.dev/openshell/internal/fault"
)

func TestManifestsThatWouldReachFurtherAreRefused(t *testing.T) {
	reg := newRegistry(t)
	var hits atomic.Int32
	reg.hook = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/elsewhere") {
			hits.Add(1)
		}
		return false
	}
	base := simpleImage(t, "x")
	push := func(name string, change func(*v1.Manifest)) string {
		m, err := base.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		m = m.DeepCopy()
		change(m)
		reg.push(t, "src:1", base)
		ref := reg.push(t, name, base)
		reg.put(t, ref, m)
		return ref
	}
	for _, tc := range []struct {
		name, text string
		change     func(*v1.Manifest)
	}{
		{"foreign layer", "another server", func(m *v1.Manifest) { m.Layers[0].URLs = []string{"http://" + reg.host + "/elsewhere"} }},
		{"unknown layer kind", "of kind", func(m *v1.Manifest) { m.Layers[0].MediaType = "application/x-encrypted" }},
		{"not an image", "no container image", func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.x.chart" }},
		{"old schema", "old manifest schema", func(m *v1.Manifest) { m.SchemaVersion = 1 }},
		{"huge configuration", "bytes long", func(m *v1.Manifest) { m.Config.Size = 1 << 40 }},
		{"huge layer", "larger than", func(m *v1.Manifest) { m.Layers[0].Size = 1 << 50 }},
		{"negative layer", "larger than", func(m *v1.Manifest) { m.Layers[0].Size = -1 }},
		{"more layers than the configuration has", "diff ids", func(m *v1.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }},
		{"many layers", "more than 256 layers", func(m *v1.Manifest) {
			for len(m.Layers) < 300 {
				m.Layers = append(m.Layers, m.Layers[0])
			}
		}},
		{"shorter layer", "longer than", func(m *v1.Manifest) { m.Layers[0].Size-- }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := pull(t, newCache(t, Limits{}), push(strings.ReplaceAll(tc.name, " ", "-")+":1", tc.change))
			if err == nil || !strings.Contains(fault.Detail(err), tc.text) {
				t.Errorf("error = %v, want one with %q", err, tc.text)
			}
		})
	}
	if hits.Load() != 0 {
		t.Error("another address was asked")
	}
}

// put replaces the manifest of a reference by any document.
func (r *testRegistry) put(t testing.TB, ref string, m *v1.Manifest) {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Put(parsed, taggable{m}); err != nil {
		t.Fatal(err)
	}
}

func TestARegistryElsewhereCannotSendUsHome(t *testing.T) {
	for _, tc := range []struct {
		registry, address string
		ok                bool
	}{
		{"registry.test", "127.0.0.1:80", false},
		{"registry.test", "[::1]:80", false},
		{"registry.test", "[::ffff:127.0.0.1]:80", false},
		{"registry.test", "169.254.169.254:80", false},
		{"registry.test", "[fe80::1%eth0]:80", false},
		{"registry.test", "0.0.0.0:80", false},
		{"registry.test", "10.0.0.7:443", true}, // a company's own
		{"registry.test", "203.0.113.9:443", true},
		{"localhost:5000", "127.0.0.1:5000", true},
		{"127.0.0.1:5000", "[::1]:5000", true},
		{"127.0.0.1:5000", "169.254.169.254:80", false},
		{"own.test:5000", "127.0.0.1:5000", true}, // configured as plain
	} {
		g := newGuard(tc.registry, []string{"own.test:5000"})
		if err := g.allowed(tc.address); (err == nil) != tc.ok {
			t.Errorf("%s sends us to %s: %v, want ok=%v", tc.registry, tc.address, err, tc.ok)
		}
	}
}

func TestPlainHTTPStaysOnThisMachine(t *testing.T) {
	for _, tc := range []struct {
		url string
		ok  bool
	}{
		{"http://127.0.0.1:1/", true}, {"http://localhost:1/", true}, {"http://[::1]:1/", true},
		{"http://own.test:5000/", true}, {"http://own.test/", false}, {"http://192.168.0.9:5000/", false},
		{"http://registry.local:5000/", false}, {"http://localhost.evil.test/", false},
	} {
		g := newGuard("registry.test", []string{"own.test:5000"})
		g.base.DialContext = func(context.Context, string, string) (net.Conn, error) { return nil, errDialled }
		req, err := http.NewRequest(http.MethodGet, tc.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.RoundTrip(req)
		if dialled := strings.Contains(err.Error(), errDialled.Error()); dialled != tc.ok {
			t.Errorf("%s: %v, want to be dialled: %v", tc.url, err, tc.ok)
		}
	}
}

var errDialled = fmt.Errorf("would have dialled")

func TestAnEndlessAnswerIsCut(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "a:1", simpleImage(t, "x"))
	reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		block := []byte(strings.Repeat(" ", 1<<20))
		for range 64 {
			if _, err := w.Write(block); err != nil {
				return true
			}
		}
		return true
	}
	if _, err := pull(t, newCache(t, Limits{}), ref); err == nil {
		t.Error("a manifest of 64 MiB was read")
	}
}

func TestAStalledAnswerIsCut(t *testing.T) {
	reg := newRegistry(t)
	release := make(chan struct{})
	defer close(release)
	reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		w.Write([]byte("beginning"))
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return true
	}
	g := newGuard(reg.host, nil)
	defer g.close()
	g.stall = 20 * time.Millisecond
	req, err := http.NewRequest(http.MethodGet, "http://"+reg.host+"/v2/a/blobs/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 64)
	for err == nil {
		_, err = resp.Body.Read(buf)
	}
	if err != errStalled {
		t.Errorf("error = %v, want %v", err, errStalled)
	}
}
