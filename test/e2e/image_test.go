package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"openshell.dev/openshell/test/imagebuild"
	"openshell.dev/openshell/test/person"
)

// layout writes a small image as an OCI layout that everybody may read.
func layout(t *testing.T) string {
	t.Helper()
	layer, err := imagebuild.BaseLayer()
	if err != nil {
		t.Fatal(err)
	}
	img, err := imagebuild.Image(v1.Config{
		User: "sandbox", WorkingDir: "/sandbox", Env: []string{"PATH=/usr/bin", "FROM_IMAGE=yes"},
	}, layer)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "openshell-layout-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := imagebuild.WriteLayout(dir, img); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRunFromAnImage(t *testing.T) {
	dir := layout(t)
	person.Each(t, func(t *testing.T, p *person.Person) {
		p.File("here.txt", "from the workspace")
		r := p.Run("--from", dir, "--", "/bin/sh", "-c",
			"pwd; echo $FROM_IMAGE; cat here.txt; echo; echo new > made.txt; echo x > /usr/local-file && cat /usr/local-file; ls /")
		if r.Code != 0 {
			t.Fatal(r)
		}
		for _, want := range []string{"/sandbox\n", "yes\n", "from the workspace\n", "x\n"} {
			if !strings.Contains(r.Stdout, want) {
				t.Errorf("%q is missing: %v", want, r)
			}
		}
		if strings.Contains(r.Stdout, "/opt\n") {
			t.Errorf("the host's directories are visible: %v", r)
		}
		if data, err := os.ReadFile(filepath.Join(p.Workspace, "made.txt")); err != nil || string(data) != "new\n" {
			t.Errorf("made.txt: %q, %v", data, err)
		}
		// The next run starts from the image again.
		if r := p.Run("--from", dir, "--", "/bin/cat", "/usr/local-file"); r.Code == 0 {
			t.Errorf("a change of the image outlived its run: %v", r)
		}
		if r := p.Run("--from", "./no-such-dir", "--", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "no-such-dir") {
			t.Errorf("a missing source: %v", r)
		}
	})
}
