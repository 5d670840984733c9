package gatewaypath

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"openshell.dev/openshell/api/gen/openshellv1"
	"openshell.dev/openshell/test/imagebuild"
	"openshell.dev/openshell/test/person"
)

// TestASandboxFromAnImage: the image is pulled while the sandbox is
// provisioning, its settings are honoured, and what the sandbox changes of it
// is kept over stop and start.
func TestASandboxFromAnImage(t *testing.T) {
	layer, err := imagebuild.BaseLayer()
	if err != nil {
		t.Fatal(err)
	}
	img, err := imagebuild.Image(v1.Config{User: "sandbox", WorkingDir: "/srv/app", Env: []string{"PATH=/usr/bin:/bin", "FROM_IMAGE=yes"}}, layer)
	if err != nil {
		t.Fatal(err)
	}
	reg := imagebuild.Serve(t)
	ref := reg.Push(t, "team/small:1", img)
	person.Each(t, func(t *testing.T, p *person.Person) {
		w := newWorld(t, p)
		w.create("box", &openshellv1.SandboxSpec{Command: []string{"/bin/sh", "-c", "while :; do sleep 1; done"}, Template: &openshellv1.SandboxTemplate{Image: ref}})
		w.phase("box", ready)
		script := "pwd; echo $FROM_IMAGE; test -e /var/lib/dpkg && echo host; echo kept > /usr/mine; echo kept > here; id -u"
		if got := w.run("box", "/bin/sh", "-c", script); !strings.HasPrefix(got, "/srv/app\nyes\n") || strings.Contains(got, "host") {
			t.Errorf("inside: %q", got)
		}
		w.call("StopSandbox", &openshellv1.StopSandboxRequest{WorkspaceScope: scope(), Name: "box"}, &openshellv1.SandboxResponse{})
		w.call("StartSandbox", &openshellv1.StartSandboxRequest{WorkspaceScope: scope(), Name: "box"}, &openshellv1.SandboxResponse{})
		w.phase("box", ready)
		if got := w.run("box", "/bin/sh", "-c", "cat /usr/mine here"); got != "kept\nkept\n" {
			t.Errorf("after stop and start: %q", got)
		}
		w.create("none", &openshellv1.SandboxSpec{Template: &openshellv1.SandboxTemplate{Image: strings.Replace(ref, "small:1", "small:9", 1)}})
		limit := time.Now().Add(30 * time.Second)
		for {
			b := w.get("none")
			if c := b.GetStatus().GetConditions()[0]; b.GetStatus().GetPhase() == openshellv1.SandboxPhase_SANDBOX_PHASE_ERROR {
				if !strings.Contains(c.GetMessage(), "small") {
					t.Errorf("condition = %v", c)
				}
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("a missing image: %v", b.GetStatus())
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}
