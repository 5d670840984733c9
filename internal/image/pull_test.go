package image

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"openshell.dev/openshell/internal/fault"
)

const machineArch = runtime.GOARCH

func describe(err error) string {
	return fault.Detail(err) + " (hint: " + fault.HintOf(err) + ")"
}

func TestAnImageIsPulledFromARegistry(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "team/app:1", makeImage(t, v1.Config{
		User: "app", Env: []string{"A=1"}, WorkingDir: "/work", Entrypoint: []string{"/bin/app"}, Cmd: []string{"serve"},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}}, Labels: map[string]string{"k": "v"},
	},
		makeLayer(t, entry{name: "etc/"}, entry{name: "etc/passwd", body: "app:x:1234:1234::/work:/bin/sh\n"}, entry{name: "bin/app", body: "v1", mode: 0o755}),
		makeLayer(t, entry{name: "bin/app", body: "v2", mode: 0o755}, entry{name: "etc/openshell/policy.yaml", body: "version: 1\n"}),
	))
	c := newCache(t, Limits{})
	img := mustPull(t, c, ref)
	want := Config{User: "app", Env: []string{"A=1"}, WorkingDir: "/work", Entrypoint: []string{"/bin/app"}, Cmd: []string{"serve"},
		ExposedPorts: []string{"8080/tcp"}, Labels: map[string]string{"k": "v"}}
	if diff := cmp.Diff(want, img.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if got := readFile(t, img.RootfsDir, "bin/app"); got != "v2" {
		t.Errorf("bin/app = %q, the upper layer has v2", got)
	}
	if img.PolicyFile != filepath.Join(img.RootfsDir, "etc/openshell/policy.yaml") {
		t.Errorf("PolicyFile = %q", img.PolicyFile)
	}
	if got, err := img.ReadPolicy(); err != nil || string(got) != "version: 1\n" {
		t.Errorf("ReadPolicy = %q, %v", got, err)
	}
	info, err := os.Stat(filepath.Join(img.RootfsDir, "bin/app"))
	if err != nil || info.Mode().Perm() != 0o755 || !info.ModTime().Equal(testTime) {
		t.Errorf("bin/app is %v of %v, want 0755 of %v (%v)", info.Mode(), info.ModTime(), testTime, err)
	}
}
