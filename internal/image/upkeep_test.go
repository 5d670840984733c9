package image

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/kerneltest"
)

func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	reg := newRegistry(t)
	c := newCache(t, Limits{})
	ids := map[string]*Image{}
	for _, n := range []string{"held", "leased", "free", "kept"} {
		ids[n] = mustPull(t, c, reg.push(t, n+":1", simpleImage(t, n)))
	}
	sandbox := t.TempDir()
	if err := c.Hold(ids["held"].ID, sandbox); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"held", "free", "kept"} {
		if err := ids[n].Close(); err != nil {
			t.Fatal(err)
		}
	}
	young, err := c.Prune(t.Context(), PruneOptions{OlderThan: time.Hour})
	if err != nil || len(young.Removed) != 0 {
		t.Errorf("Prune of what is older than an hour = %+v, %v", young, err)
	}
	got, err := c.Prune(t.Context(), PruneOptions{Keep: func(l Listed) bool { return l.ID == ids["kept"].ID }})
	if err != nil || len(got.Removed) != 1 || got.Removed[0] != ids["free"].ID || got.Kept != 3 || got.Bytes != 4 {
		t.Errorf("Prune = %+v, %v", got, err)
	}
	for _, n := range []string{"held", "leased"} {
		if err := c.Remove(ids[n].ID); fault.KindOf(err) != fault.FailedPrecondition {
			t.Errorf("Remove(%s) = %v", n, err)
		}
	}
	if img, err := c.Get(ids["held"].ID); err != nil {
		t.Error(err)
	} else {
		img.Close()
	}
	if _, err := c.Get(ids["free"].ID); fault.KindOf(err) != fault.NotFound {
		t.Errorf("Get of a removed image = %v", err)
	}
	// A sandbox that is gone holds nothing any more.
	if err := os.RemoveAll(sandbox); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Prune(t.Context(), PruneOptions{}); err != nil || len(got.Removed) != 2 {
		t.Errorf("Prune = %+v, %v", got, err)
	}
	list, err := c.List()
	if err != nil || len(list) != 1 || !list[0].Leased || len(list[0].References) != 1 {
		t.Errorf("List = %+v, %v", list, err)
	}
}

func TestARemovedImageIsPulledAgain(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "a:1", simpleImage(t, "x"))
	c := newCache(t, Limits{})
	img := mustPull(t, c, ref)
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(img.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(img.ID); fault.KindOf(err) != fault.NotFound {
		t.Errorf("second Remove = %v", err)
	}
	mustPull(t, c, ref)
}

func TestIdsAreNotPaths(t *testing.T) {
	c := newCache(t, Limits{})
	for _, id := range []string{"", "x", "../../etc", "sha256:..", "sha256:" + strings.Repeat("/", 64), "sha256-" + strings.Repeat("0", 64)} {
		if _, err := c.Get(id); fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("Get(%q) = %v", id, err)
		}
		if err := c.Remove(id); fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("Remove(%q) = %v", id, err)
		}
		if err := c.Hold(id, t.TempDir()); id != "" && fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("Hold(%q) = %v", id, err)
		}
	}
}

// A process that dies in the middle of a pull leaves something; the next
// start removes it, and a living one's work stays.
func TestTheNextStartSweepsWhatACrashLeft(t *testing.T) {
	if dir := os.Getenv("IMAGE_TEST_CRASH"); dir != "" {
		c, err := Open(dir, CacheOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w, err := c.newWorkplace()
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(w.dir, "image/rootfs/usr/x"), []byte("half"))
		fmt.Println("working")
		select {}
	}
	dir := filepath.Join(t.TempDir(), "cache")
	cmd := exec.Command(os.Args[0], "-test.run=^TestTheNextStartSweepsWhatACrashLeft$")
	cmd.Env = append(os.Environ(), "IMAGE_TEST_CRASH="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if n, err := out.Read(buf); err != nil || !strings.Contains(string(buf[:n]), "working") {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	count := func() int {
		t.Helper()
		c, err := Open(dir, CacheOptions{})
		if err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(c.path("tmp"))
		if err != nil {
			t.Fatal(err)
		}
		return len(left)
	}
	if n := count(); n != 2 {
		t.Errorf("%d entries while the process lives, want its directory and its lock", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if n := count(); n != 0 {
		t.Errorf("%d entries after its death, want none", n)
	}
}

func TestACacheOfOthersIsNotUsed(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(open, CacheOptions{}); fault.KindOf(err) != fault.PermissionDenied {
		t.Errorf("a cache that all can write: %v", err)
	}
	if _, err := Open("/proc/nowhere", CacheOptions{}); err == nil {
		t.Error("a cache below /proc was made")
	}
}

func TestAnOrdinaryAccountPullsAndRemoves(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Fatal("still root")
		}
		reg := newRegistry(t)
		c := newCache(t, Limits{})
		img := mustPull(t, c, reg.push(t, "a:1", makeImage(t, v1Config(), makeLayer(t,
			entry{name: "./", mode: 0o111}, entry{name: "root/", mode: 0o000, uid: 0}, entry{name: "root/secret", mode: 0o000, body: "x"},
			entry{name: "etc/shadow", mode: 0o600, body: "x", uid: 99}, entry{name: "bin/su", mode: 0o4711, body: "x"}),
			makeLayer(t, entry{name: "root/more", body: "y"}, entry{name: "etc/.wh.shadow"}))))
		for _, f := range []string{"root/secret", "root/more", "bin/su"} {
			readFile(t, img.RootfsDir, f)
		}
		if _, err := os.Lstat(filepath.Join(img.RootfsDir, "etc/shadow")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("etc/shadow: %v", err)
		}
		sandbox := t.TempDir()
		upper, work, err := Layer(sandbox, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		// As the overlay and an agent leave them.
		for _, d := range []string{filepath.Join(work, "work"), filepath.Join(upper, "a/closed")} {
			if err := os.MkdirAll(filepath.Join(d, "x"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(d, 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := Layer(sandbox, 0o755); err != nil {
			t.Errorf("second start: %v", describe(err))
		}
		if err := RemoveLayer(sandbox); err != nil {
			t.Errorf("remove: %v", describe(err))
		}
		img.Close()
		if _, err := c.Prune(t.Context(), PruneOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// What an ordinary account unpacks is what its overlay can stand on.
func TestAnOverlayStandsOnTheImage(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS)
	kerneltest.Child{Ordinary: true, Clone: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, Ambient: true, InsideID: 1000}.Run(t, func(t *testing.T) {
		c := newCache(t, Limits{})
		img := mustPull(t, c, writeLayout(t, filepath.Join(t.TempDir(), "lay"), map[string]v1.Image{"": makeImage(t, v1Config(), makeLayer(t,
			entry{name: "etc/", mode: 0o500}, entry{name: "etc/old", body: "lower", mode: 0o200}, entry{name: "gone", body: "x"}))}))
		sandbox := t.TempDir()
		merged := t.TempDir()
		mount := func() {
			t.Helper()
			upper, work, err := Layer(sandbox, 0o755)
			if err != nil {
				t.Fatal(describe(err))
			}
			opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,userxattr", img.RootfsDir, upper, work)
			if err := unix.Mount("overlay", merged, "overlay", 0, opts); err != nil {
				if err == unix.EPERM || err == unix.ENODEV {
					t.Skip("needs overlay mounts in a user namespace")
				}
				t.Fatal(err)
			}
		}
		mount()
		if got := readFile(t, merged, "etc/old"); got != "lower" {
			t.Errorf("etc/old = %q", got)
		}
		writeFile(t, filepath.Join(merged, "etc/new"), []byte("upper"))
		if err := os.Remove(filepath.Join(merged, "gone")); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(merged, 0); err != nil {
			t.Fatal(err)
		}
		mount() // stopped and started again
		if got := readFile(t, merged, "etc/new"); got != "upper" {
			t.Errorf("etc/new = %q", got)
		}
		if _, err := os.Lstat(filepath.Join(merged, "gone")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("gone is back: %v", err)
		}
		if err := unix.Unmount(merged, 0); err != nil {
			t.Fatal(err)
		}
		readFile(t, img.RootfsDir, "gone") // the image itself is untouched
		if err := RemoveLayer(sandbox); err != nil {
			t.Error(describe(err))
		}
	})
}

func TestTheLayerSurvivesStopAndStart(t *testing.T) {
	dir := t.TempDir()
	upper, work, err := Layer(dir, 0o711)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(upper); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("upper is %v, %v", info.Mode(), err)
	}
	writeFile(t, filepath.Join(upper, "home/x"), []byte("kept"))
	writeFile(t, filepath.Join(work, "left"), nil)
	again, work2, err := Layer(dir, 0o755)
	if err != nil || again != upper || work2 != work {
		t.Fatalf("%s, %s, %v", again, work2, err)
	}
	if readFile(t, upper, "home/x") != "kept" {
		t.Error("the layer lost a file")
	}
	if left, err := os.ReadDir(work); err != nil || len(left) != 0 {
		t.Errorf("work holds %v, %v", left, err)
	}
	if info, _ := os.Stat(upper); info.Mode().Perm() != 0o711 {
		t.Errorf("upper became %v", info.Mode())
	}
}

func TestRemovalFollowsNothing(t *testing.T) {
	outside := t.TempDir()
	writeFile(t, filepath.Join(outside, "canary"), []byte("x"))
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{"link", "a/link", "a/b/link"} {
		if err := os.Symlink(outside, filepath.Join(dir, l)); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveTree(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	readFile(t, outside, "canary")
	top := filepath.Join(t.TempDir(), "toplink")
	if err := os.Symlink(outside, top); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTree(top); err != nil {
		t.Fatal(err)
	}
	readFile(t, outside, "canary")
}

// A full disk is a clear error, and what was half-made is gone.
func TestAFullDiskIsToldAndCleaned(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS)
	kerneltest.Child{Clone: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, Ambient: true}.Run(t, func(t *testing.T) {
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		reg := newRegistry(t)
		big := makeImage(t, v1Config(), makeLayer(t, entry{name: "big", body: strings.Repeat("compresses well ", 1<<17)}))
		noise := makeImage(t, v1Config(), rawLayerOf(t, entry{name: "noise", body: strings.Repeat("x", 2<<20)}))
		c, err := Open(filepath.Join(dir, "cache"), CacheOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for name, ref := range map[string]string{"while unpacking": reg.push(t, "big:1", big), "before fetching": reg.push(t, "noise:1", noise)} {
			_, err := pull(t, c, ref)
			if fault.KindOf(err) != fault.Exhausted || !strings.Contains(err.Error(), "no space left") || fault.HintOf(err) == "" {
				t.Errorf("%s: %v", name, err)
			}
			checkTidy(t, c)
		}
		if list, err := c.List(); err != nil || len(list) != 0 {
			t.Errorf("%d images, %v", len(list), err)
		}
		mustPull(t, c, reg.push(t, "small:1", simpleImage(t, "x")))
	})
}

func TestAReadOnlyCacheIsTold(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(dir, 0o700)
		if _, err := Open(filepath.Join(dir, "cache"), CacheOptions{}); fault.KindOf(err) != fault.PermissionDenied {
			t.Errorf("error = %v", err)
		}
	})
}

func TestAnImageThatAPowerCutDamagedIsMadeAgain(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "a:1", simpleImage(t, "content"))
	for _, tc := range []struct {
		name   string
		damage func(rootfs string) error
		again  bool
	}{
		{"a file is empty", func(r string) error { return os.Truncate(filepath.Join(r, "bin/x"), 0) }, true},
		{"a file is missing", func(r string) error { return os.Remove(filepath.Join(r, "bin/x")) }, true},
		{"nothing is damaged", func(string) error { return nil }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCache(t, Limits{})
			img := mustPull(t, c, ref)
			img.Close()
			if err := tc.damage(img.RootfsDir); err != nil {
				t.Fatal(err)
			}
			// As after a restart of the machine.
			note := filepath.Join(filepath.Dir(img.RootfsDir), "image.json")
			old := strings.Replace(readFile(t, note), bootID(), "another-boot", 1)
			writeFile(t, note, []byte(old))
			fetched := false
			reg.hook = func(_ http.ResponseWriter, r *http.Request) bool {
				fetched = fetched || strings.Contains(r.URL.Path, "/blobs/")
				return false
			}
			again := mustPull(t, c, ref)
			if got := readFile(t, again.RootfsDir, "bin/x"); got != "content" {
				t.Errorf("bin/x = %q", got)
			}
			if fetched != tc.again {
				t.Errorf("made again: %v, want %v", fetched, tc.again)
			}
			if strings.Contains(readFile(t, note), "another-boot") {
				t.Error("the survey was not noted")
			}
		})
	}
}
