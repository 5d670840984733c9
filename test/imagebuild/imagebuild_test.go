package imagebuild

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"openshell.dev/openshell/internal/image"
	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/test/fetched"
)

// unpacked pushes an image and pulls it as a sandbox would.
func unpacked(t *testing.T, name string, img v1.Image) *image.Image {
	t.Helper()
	ref := Serve(t).Push(t, name+":1", img)
	src, err := image.Resolve(ref, image.ResolveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := image.Open(filepath.Join(t.TempDir(), "cache"), image.CacheOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := cache.Pull(t.Context(), src, image.PullOptions{Keychain: authn.NewMultiKeychain()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { got.Close() })
	return got
}

// inside runs a program of the image in namespaces of its own.
func inside(t *testing.T, img *image.Image, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Path = args[0] // of the image, not of the host
	cmd.Err = nil
	cmd.Dir = "/"
	cmd.Env = append([]string{"HOME=/sandbox"}, img.Config.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:      img.RootfsDir,
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestTheBaseImageIsASmallSystem(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS)
	layer, err := BaseLayer()
	if err != nil {
		t.Fatal(err)
	}
	img, err := Image(v1.Config{User: "sandbox", WorkingDir: "/sandbox", Env: []string{"PATH=/usr/bin"}}, layer)
	if err != nil {
		t.Fatal(err)
	}
	got := unpacked(t, "base", img)
	user, err := image.ResolveUser(got.RootfsDir, got.Config.User)
	if err != nil || user.UID != 1000 || user.GID != 1000 || user.Home != "/sandbox" {
		t.Errorf("user = %+v, %v", user, err)
	}
	out := inside(t, got, "/bin/bash", "-lc", `id -un && echo a b | awk '{print $2}' && printf x | sha256sum | cut -c1-4 && ls -d /bin /tmp && sh -c 'echo $0' && getent passwd sandbox`)
	want := "sandbox\nb\n2d71\n/bin\n/tmp\nsh\nsandbox:x:1000:1000:sandbox:/sandbox:/bin/bash\n"
	if out != want {
		t.Errorf("output:\n%s\nwant:\n%s", out, want)
	}
}

func TestNodeImagesRun(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS)
	if testing.Short() {
		t.Skip("needs packages from npm")
	}
	for _, major := range []int{22, 24, 26} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			img := orSkip(t)(NodeImage(t.Context(), major))
			got := unpacked(t, "node", img)
			out := inside(t, got, "/usr/local/bin/node", "-p", "process.version")
			if strings.TrimSpace(out) != "v"+fetched.Node[major] {
				t.Errorf("version = %q", out)
			}
		})
	}
}

func TestTheOpenClawImageHasItsStartScript(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS)
	if testing.Short() {
		t.Skip("needs packages from npm")
	}
	got := unpacked(t, "openclaw", orSkip(t)(OpenClaw(t.Context())))
	if cmd := image.Command(got.Config, nil); len(cmd) != 1 || cmd[0] != "openclaw-start" {
		t.Errorf("command = %q", cmd)
	}
	// env looks the name up on the image's PATH, the script's way in.
	out := inside(t, got, "/usr/bin/env", "openclaw", "--version")
	if !strings.Contains(out, strings.TrimPrefix(fetched.OpenClaw, "openclaw@")) {
		t.Errorf("openclaw --version = %q, want %s", out, fetched.OpenClaw)
	}
	if out := inside(t, got, "/bin/bash", "-lc", "command -v openclaw-start"); strings.TrimSpace(out) != "/usr/local/bin/openclaw-start" {
		t.Errorf("openclaw-start is at %q", out)
	}
}

// orSkip skips the test where an image cannot be had.
func orSkip(t *testing.T) func(v1.Image, error) v1.Image {
	return func(img v1.Image, err error) v1.Image {
		t.Helper()
		if errors.Is(err, ErrUnavailable) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
}

func TestWhatIsUnknownIsUnavailable(t *testing.T) {
	if _, err := node(context.Background(), 7); !errors.Is(err, ErrUnavailable) {
		t.Errorf("node 7: %v", err)
	}
	if _, err := NewTree().Program("no-such-program").Layer(filepath.Join(t.TempDir(), "l")); err == nil {
		t.Error("a program that is not there was packed")
	}
}
