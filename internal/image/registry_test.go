package image

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"openshell.dev/openshell/internal/fault"
)

func simpleImage(t testing.TB, content string) v1.Image {
	return makeImage(t, v1.Config{}, makeLayer(t, entry{name: "bin/x", body: content, mode: 0o755}))
}

func TestTheSecondPullNeedsNoNetwork(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "a:1", simpleImage(t, "one"))
	c := newCache(t, Limits{})
	first := mustPull(t, c, ref)
	reg.hook = func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "down", http.StatusTeapot)
		return true
	}
	if again := mustPull(t, c, ref); again.RootfsDir != first.RootfsDir {
		t.Errorf("second pull is at %s, first at %s", again.RootfsDir, first.RootfsDir)
	}
	if _, err := pull(t, c, ref, func(o *PullOptions) { o.Policy = Always }); err == nil {
		t.Error("policy Always did not ask the registry")
	}
}

func TestAMovedTagIsFollowedOnlyWhenAsked(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "a:1", simpleImage(t, "one"))
	c := newCache(t, Limits{})
	mustPull(t, c, ref)
	reg.push(t, "a:1", simpleImage(t, "two"))
	if got := readFile(t, mustPull(t, c, ref).RootfsDir, "bin/x"); got != "one" {
		t.Errorf("IfMissing gave %q, want the image that is here", got)
	}
	if got := readFile(t, mustPull(t, c, ref, func(o *PullOptions) { o.Policy = Always }).RootfsDir, "bin/x"); got != "two" {
		t.Errorf("Always gave %q", got)
	}
	if got := readFile(t, mustPull(t, c, ref).RootfsDir, "bin/x"); got != "two" {
		t.Errorf("IfMissing after Always gave %q", got)
	}
}

func TestPolicyNeverDoesNotPull(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "a:1", simpleImage(t, "one"))
	_, err := pull(t, newCache(t, Limits{}), ref, func(o *PullOptions) { o.Policy = Never })
	if fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "Never") {
		t.Errorf("error = %v", err)
	}
}

// basicAuth guards a registry with a password.
func (r *testRegistry) basicAuth(user, pass string) {
	r.hook = func(w http.ResponseWriter, req *http.Request) bool {
		if u, p, ok := req.BasicAuth(); ok && u == user && p == pass {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`, http.StatusUnauthorized)
		return true
	}
}

func TestCredentialsComeFromTheUsualFiles(t *testing.T) {
	login := base64.StdEncoding.EncodeToString([]byte("me:s3cret"))
	wrong := base64.StdEncoding.EncodeToString([]byte("me:wrong"))
	doc := func(key, auth string) string { return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, auth) }
	for _, tc := range []struct {
		name  string
		files map[string]string // relative to the home, REG is the registry
		env   map[string]string // HOME is the home
		ok    bool
	}{
		{name: "nothing", ok: false},
		{name: "docker", files: map[string]string{".docker/config.json": doc("REG", login)}, ok: true},
		{name: "docker, elsewhere", files: map[string]string{"dc/config.json": doc("REG", login)}, env: map[string]string{"DOCKER_CONFIG": "HOME/dc"}, ok: true},
		{name: "docker, other registry only", files: map[string]string{".docker/config.json": doc("other.test", login)}, ok: false},
		{name: "docker, wrong password", files: map[string]string{".docker/config.json": doc("REG", wrong)}, ok: false},
		{name: "podman in the run directory", files: map[string]string{"run/containers/auth.json": doc("REG", login)}, env: map[string]string{"XDG_RUNTIME_DIR": "HOME/run"}, ok: true},
		{name: "podman in the configuration", files: map[string]string{".config/containers/auth.json": doc("REG", login)}, ok: true},
		{name: "REGISTRY_AUTH_FILE", files: map[string]string{"my.json": doc("REG", login)}, env: map[string]string{"REGISTRY_AUTH_FILE": "HOME/my.json"}, ok: true},
		{name: "both, docker's without this registry", files: map[string]string{".docker/config.json": `{"auths":{}}`, ".config/containers/auth.json": doc("REG", login)}, ok: true},
		{name: "podman by repository", files: map[string]string{".config/containers/auth.json": doc("REG/team", login)}, ok: true},
		{name: "podman, the nearest entry wins", files: map[string]string{".config/containers/auth.json": fmt.Sprintf(`{"auths":{"REG":{"auth":%q},"REG/team":{"auth":%q},"REG/team/other":{"auth":%q}}}`, wrong, login, wrong)}, ok: true},
		{name: "damaged", files: map[string]string{".config/containers/auth.json": `{`}, ok: false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg := newRegistry(t)
			ref := reg.push(t, "team/app:1", simpleImage(t, "x"))
			reg.basicAuth("me", "s3cret")
			home := t.TempDir()
			for _, k := range []string{"DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "REGISTRY_AUTH_FILE"} {
				t.Setenv(k, strings.Replace(tc.env[k], "HOME", home, 1))
			}
			t.Setenv("HOME", home)
			for file, text := range tc.files {
				file = filepath.Join(home, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "REG", reg.host)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tc.name == "docker" && os.Getenv("DOCKER_CONFIG") == "" {
				// The docker library fixes its directory at first use.
				t.Setenv("DOCKER_CONFIG", filepath.Join(home, ".docker"))
			}
			_, err := pull(t, newCache(t, Limits{}), ref, func(o *PullOptions) { o.Keychain = nil })
			if tc.ok && err != nil {
				t.Errorf("error = %s", describe(err))
			}
			if !tc.ok && (fault.KindOf(err) != fault.Unauthenticated || !strings.Contains(fault.HintOf(err), "login "+reg.host)) {
				t.Errorf("error = %v, hint %q; want a login to be asked for", err, fault.HintOf(err))
			}
			if err != nil && strings.Contains(fault.Detail(err), "s3cret") {
				t.Errorf("the password is in the error: %s", fault.Detail(err))
			}
		})
	}
}

func TestATokenServerIsAsked(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "a:1", simpleImage(t, "x"))
	var asked atomic.Int32
	reg.hook = func(w http.ResponseWriter, req *http.Request) bool {
		switch {
		case req.URL.Path == "/token":
			if u, p, _ := req.BasicAuth(); u != "me" || p != "pw" {
				http.Error(w, "no", http.StatusUnauthorized)
				return true
			}
			asked.Add(1)
			fmt.Fprint(w, `{"token":"T"}`)
			return true
		case req.Header.Get("Authorization") == "Bearer T":
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, reg.host))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	mustPull(t, newCache(t, Limits{}), ref, func(o *PullOptions) { o.Keychain = fixed{"me", "pw"} })
	if asked.Load() == 0 {
		t.Error("the token server was not asked")
	}
}

type fixed struct{ user, pass string }

func (f fixed) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: f.user, Password: f.pass}, nil
}

func TestWrongBytesAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		hook func(reg *testRegistry, digests map[string]string) func(http.ResponseWriter, *http.Request) bool
		pin  bool
	}{
		{name: "layer", hook: func(_ *testRegistry, d map[string]string) func(http.ResponseWriter, *http.Request) bool {
			return swap("/blobs/"+d["layer"], d["size"])
		}},
		{name: "config", hook: func(_ *testRegistry, d map[string]string) func(http.ResponseWriter, *http.Request) bool {
			return swap("/blobs/"+d["config"], d["configSize"])
		}},
		{name: "pinned manifest", pin: true, hook: func(reg *testRegistry, d map[string]string) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
				w.Header().Set("Docker-Content-Digest", d["manifest"])
				fmt.Fprint(w, `{"schemaVersion":2}`)
				return true
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg := newRegistry(t)
			img := simpleImage(t, strings.Repeat("content ", 1000))
			ref := reg.push(t, "a:1", img)
			m, err := img.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			digest, err := img.Digest()
			if err != nil {
				t.Fatal(err)
			}
			if tc.pin {
				ref = reg.host + "/a@" + digest.String()
			}
			reg.hook = tc.hook(reg, map[string]string{
				"layer": m.Layers[0].Digest.String(), "size": fmt.Sprint(m.Layers[0].Size),
				"config": m.Config.Digest.String(), "configSize": fmt.Sprint(m.Config.Size), "manifest": digest.String(),
			})
			c := newCache(t, Limits{})
			if _, err := pull(t, c, ref); err == nil {
				t.Fatal("wrong bytes were taken")
			} else if text := fault.Detail(err); !strings.Contains(text, "digest") && !strings.Contains(text, "checksum") {
				t.Errorf("error = %s", text)
			}
			if list, err := c.List(); err != nil || len(list) != 0 {
				t.Errorf("the cache holds %d images (%v)", len(list), err)
			}
			reg.hook = nil
			mustPull(t, c, ref)
		})
	}
}

// swap answers a blob with as many other bytes.
func swap(suffix, size string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		var n int
		fmt.Sscan(size, &n)
		w.Header().Set("Content-Length", size)
		w.Write([]byte(strings.Repeat("z", n)))
		return true
	}
}

func TestOnlyThePromisedBytesAreCopied(t *testing.T) {
	h, n, err := v1.SHA256(strings.NewReader("promised"))
	if err != nil {
		t.Fatal(err)
	}
	for data, want := range map[string]string{
		"promised": "", "promiseD": "does not match", "promise": "ended after 7 of 8", "promised!": "longer than",
	} {
		err := copyVerified(io.Discard, strings.NewReader(data), v1.Descriptor{Digest: h, Size: n})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", data, err, want)
		}
	}
}

func TestALyingDiffIDIsRefused(t *testing.T) {
	reg := newRegistry(t)
	img := simpleImage(t, "x")
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64)
	img, err = mutate.ConfigFile(img, file)
	if err != nil {
		t.Fatal(err)
	}
	c := newCache(t, Limits{})
	_, err = pull(t, c, reg.push(t, "a:1", img))
	if err == nil || !strings.Contains(err.Error(), "does not match its digest") || fault.HintOf(err) == "" {
		t.Errorf("error = %v (hint %q)", err, fault.HintOf(err))
	}
}

func TestThePlatformIsChosen(t *testing.T) {
	other := "arm64"
	if machineArch == other {
		other = "amd64"
	}
	variantOf := func(os, arch, body string) mutate.IndexAddendum {
		img := withConfig(t, simpleImage(t, body), v1.Config{}, os, arch)
		return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch}}}
	}
	attest := mutate.IndexAddendum{Add: simpleImage(t, "sbom"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}}
	reg := newRegistry(t)
	c := newCache(t, Limits{})
	both := reg.pushIndex(t, "both:1", mutate.AppendManifests(empty.Index, attest, variantOf("linux", other, "other"), variantOf("linux", machineArch, "mine")))
	if got := readFile(t, mustPull(t, c, both).RootfsDir, "bin/x"); got != "mine" {
		t.Errorf("chose %q", got)
	}
	if got := readFile(t, mustPull(t, c, both, func(o *PullOptions) { o.Platform = "linux/" + other }).RootfsDir, "bin/x"); got != "other" {
		t.Errorf("--platform chose %q", got)
	}
	foreign := reg.pushIndex(t, "foreign:1", mutate.AppendManifests(empty.Index, variantOf("linux", other, "other"), variantOf("windows", machineArch, "w")))
	if _, err := pull(t, c, foreign); fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "it offers linux/"+other) {
		t.Errorf("error = %v", err)
	}
	single := reg.push(t, "single:1", withConfig(t, simpleImage(t, "s"), v1.Config{}, "linux", other))
	if _, err := pull(t, c, single); fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "is for linux/"+other) {
		t.Errorf("error = %v", err)
	}
}

func TestZstdLayersAreRead(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	plain := makeTar(t, entry{name: "z", body: "zstd"})
	l := rawLayer{plain: plain, packed: enc.EncodeAll(plain, nil), kind: types.OCILayerZStd}
	reg := newRegistry(t)
	img := mustPull(t, newCache(t, Limits{}), reg.push(t, "z:1", makeImage(t, v1.Config{}, l)))
	if got := readFile(t, img.RootfsDir, "z"); got != "zstd" {
		t.Errorf("z = %q", got)
	}
}

func TestAnInterruptedDownloadIsTriedAgain(t *testing.T) {
	reg := newRegistry(t)
	img := simpleImage(t, strings.Repeat("content ", 4000))
	ref := reg.push(t, "a:1", img)
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int32
	reg.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()) || n.Add(1) > 2 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(m.Layers[0].Size))
		w.Write([]byte("cut"))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	three := func(o *PullOptions) { o.Attempts = 3 }
	mustPull(t, newCache(t, Limits{}), ref, three)
	if n.Load() != 3 {
		t.Errorf("%d requests for the layer, want 3", n.Load())
	}
	n.Store(-100)
	_, err = pull(t, newCache(t, Limits{}), ref, three)
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("error = %v, want Unavailable after three attempts", err)
	}
	if got := n.Load(); got != -97 {
		t.Errorf("%d attempts, want 3", got+100)
	}
}

func TestTwoPullsShareTheWork(t *testing.T) {
	reg := newRegistry(t)
	img := simpleImage(t, "shared")
	ref := reg.push(t, "a:1", img)
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var layers atomic.Int32
	reg.hook = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()) {
			layers.Add(1)
		}
		return false
	}
	c := newCache(t, Limits{})
	src := resolve(t, ref)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, err := c.Pull(t.Context(), src, PullOptions{Keychain: noCredentials, Attempts: 1})
			if err != nil {
				t.Error(describe(err))
				return
			}
			got.Close()
		})
	}
	wg.Wait()
	if n := layers.Load(); n != 1 {
		t.Errorf("the layer was fetched %d times, want once", n)
	}
}

func TestCancellingLeavesNothing(t *testing.T) {
	reg := newRegistry(t)
	img := simpleImage(t, "x")
	ref := reg.push(t, "a:1", img)
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reg.hook = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()) {
			cancel()
			<-r.Context().Done()
		}
		return false
	}
	c := newCache(t, Limits{})
	_, err = c.Pull(ctx, resolve(t, ref), PullOptions{Keychain: noCredentials})
	if fault.KindOf(err) != fault.Cancelled {
		t.Errorf("error = %v, want Cancelled", err)
	}
	if list, _ := c.List(); len(list) != 0 {
		t.Errorf("the cache holds %d images", len(list))
	}
}

func TestRegistryErrorsAreToldInWords(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "a:1", simpleImage(t, "x"))
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.WriteHeader(code)
				return true
			}
			return false
		}
	}
	for _, tc := range []struct {
		name, ref string
		hook      func(http.ResponseWriter, *http.Request) bool
		kind      fault.Kind
		text      string
	}{
		{"no such image", reg.host + "/nope:1", nil, fault.NotFound, "was not found"},
		{"no such tag", strings.TrimSuffix(ref, ":1") + ":2", nil, fault.NotFound, "was not found"},
		{"forbidden", ref, status(403), fault.Unauthenticated, "needs a login"},
		{"too many", ref, status(429), fault.Exhausted, "limits our requests"},
		{"broken", ref, status(502), fault.Unavailable, "a problem of its own (502)"},
		{"nobody there", nobody + "/a:1", nil, fault.Unavailable, "nothing answers"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reg.hook = tc.hook
			_, err := pull(t, newCache(t, Limits{}), tc.ref)
			if fault.KindOf(err) != tc.kind || !strings.Contains(fmt.Sprint(err), tc.text) {
				t.Errorf("error = %v %s, want %v with %q", fault.KindOf(err), describe(err), tc.kind, tc.text)
			}
		})
	}
}

func TestAReferenceThatLeadsNowhereIsHelped(t *testing.T) {
	reg := newRegistry(t)
	c := newCache(t, Limits{})
	o := PullOptions{Keychain: noCredentials, Attempts: 1}
	src, err := Resolve("openclaw", ResolveOptions{CommunityRegistry: reg.host})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Pull(t.Context(), src, o)
	if fault.KindOf(err) != fault.NotFound || !strings.Contains(fault.HintOf(err), "OPENSHELL_COMMUNITY_REGISTRY=") {
		t.Errorf("a word of the catalogue: %v (hint %q)", err, fault.HintOf(err))
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, reg.host, "app"), 0o755); err != nil {
		t.Fatal(err)
	}
	src, err = Resolve(reg.host+"/app", ResolveOptions{Local: true, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Pull(t.Context(), src, o)
	if fault.KindOf(err) != fault.NotFound || !strings.Contains(fault.HintOf(err), "--from ./"+reg.host+"/app") {
		t.Errorf("a directory without a dot: %v (hint %q)", err, fault.HintOf(err))
	}
}

func TestProgressAddsUp(t *testing.T) {
	reg := newRegistry(t)
	img := makeImage(t, v1.Config{}, makeLayer(t, entry{name: "a", body: "1"}), makeLayer(t, entry{name: "b", body: "2"}))
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	done := map[int]int64{}
	var last Step
	mustPull(t, newCache(t, Limits{}), reg.push(t, "a:1", img), func(o *PullOptions) {
		o.Progress = func(p Progress) {
			if p.String() == "" {
				t.Errorf("no words for %+v", p)
			}
			if p.Step == StepDownload {
				done[p.Layer] = p.Done
			}
			last = p.Step
		}
	})
	for i, l := range m.Layers {
		if done[i+1] != l.Size {
			t.Errorf("layer %d: %d bytes reported, it has %d", i+1, done[i+1], l.Size)
		}
	}
	if last != StepDone {
		t.Errorf("last step = %v", last)
	}
}
