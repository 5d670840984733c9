package native_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"openshell.dev/openshell/internal/compute"
	"openshell.dev/openshell/internal/compute/computetest"
	"openshell.dev/openshell/internal/compute/native"
	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/kerneltest"
	"openshell.dev/openshell/internal/model"
	"openshell.dev/openshell/internal/secret"
)

// TestMain lets this binary play the supervisor, which the driver executes:
// it starts a child, as a launcher, and ends as it is asked to.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "--spec" {
		playSupervisor(os.Args[2])
	}
	os.Exit(m.Run())
}

func playSupervisor(file string) {
	body, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	var spec struct {
		StateDir string `json:"state_dir"`
		Main     struct{ Argv []string }
	}
	if err := json.Unmarshal(body, &spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if spec.Main.Argv[0] == "refuse" {
		_ = os.WriteFile(filepath.Join(spec.StateDir, "outcome.json"), []byte(`{"reason":"StartFailed","message":"the walls do not stand"}`), 0o600)
		os.Exit(1)
	}
	child := exec.Command("sleep", "600")
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		os.Exit(3)
	}
	_ = os.WriteFile(filepath.Join(spec.StateDir, "pids"), fmt.Appendf(nil, "%d %d", os.Getpid(), child.Process.Pid), 0o600)
	asked := make(chan os.Signal, 2)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT)
	sig := <-asked
	if spec.Main.Argv[0] == "stubborn" && sig == syscall.SIGINT {
		select {}
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	os.Exit(0)
}

func open(t *testing.T, dir string) *native.Driver {
	t.Helper()
	d, err := native.Open(native.Options{Dir: dir, Supervisor: "/proc/self/exe"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// pids returns the supervisor and its child.
func pids(t *testing.T, dir, id string) []int {
	t.Helper()
	for range 1000 {
		if body, err := os.ReadFile(filepath.Join(dir, id, "pids")); err == nil && strings.Contains(string(body), " ") {
			var out []int
			for w := range strings.FieldsSeq(string(body)) {
				n, err := strconv.Atoi(w)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, n)
			}
			return out
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the supervisor never said its pid")
	return nil
}

func conformance(t *testing.T) {
	computetest.Run(t, func(t *testing.T) computetest.Fixture {
		dir := t.TempDir()
		d := open(t, dir)
		return computetest.Fixture{
			Driver: d, Endpoint: "unix:///nowhere",
			Kill: func(t *testing.T, id model.SandboxID) {
				if err := syscall.Kill(pids(t, dir, string(id))[0], syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			},
			Left: func(t *testing.T, id model.SandboxID) []string {
				var left []string
				if entries, _ := os.ReadDir(filepath.Join(dir, string(id))); len(entries) > 0 {
					for _, e := range entries {
						left = append(left, e.Name())
					}
				}
				return left
			},
			Reopen: func(t *testing.T) compute.Driver {
				d.Close() // what a gateway that ends does; the sandbox goes on
				return open(t, dir)
			},
		}
	})
}

func TestConformance(t *testing.T) { conformance(t) }

func TestConformanceAsAnOrdinaryAccount(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, conformance)
}

func desired(id, instance string, argv ...string) compute.Desired {
	return compute.Desired{ID: model.SandboxID(id), Name: "n", Command: argv, Run: compute.Run{InstanceID: instance, Endpoint: "unix:///x", Token: secret.New("t0k3n")}}
}

func TestNoProcessIsLeft(t *testing.T) {
	for _, how := range []string{"sleep", "stubborn"} {
		dir := t.TempDir()
		d := open(t, dir)
		if err := d.Create(t.Context(), desired("a", "r1", how)); err != nil {
			t.Fatal(err)
		}
		running := pids(t, dir, "a")
		if err := d.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		for _, pid := range running {
			if err := syscall.Kill(pid, 0); err == nil && !zombie(pid) {
				t.Errorf("%s: process %d is left", how, pid)
			}
		}
	}
}

// zombie: a dead child of somebody else's that was not reaped yet.
func zombie(pid int) bool {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(body), ") Z ")
}

func TestTheSupervisorsOwnWordsAreTold(t *testing.T) {
	d := open(t, t.TempDir())
	if err := d.Create(t.Context(), desired("a", "r1", "refuse")); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		list, err := d.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if o := list[0]; o.State == compute.Failed {
			if o.Reason != "StartFailed" || o.Message != "the walls do not stand" {
				t.Errorf("observation = %+v", o)
			}
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("the failure was never seen")
}

func TestSecretsAreInPrivateFilesOnly(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	if err := d.Create(t.Context(), desired("a", "r1", "sleep")); err != nil {
		t.Fatal(err)
	}
	pid := pids(t, dir, "a")[0]
	for _, f := range []string{"spec.json", "token", "run.json", "supervisor.log"} {
		info, err := os.Stat(filepath.Join(dir, "a", f))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
	}
	for _, f := range []string{"cmdline", "environ"} {
		body, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, f))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(body), "t0k3n") {
			t.Errorf("the token is in %s", f)
		}
	}
	if sid, err := syscall.Getpgid(pid); err != nil || sid != pid {
		t.Errorf("the supervisor's process group is %d (%v), want its own", sid, err)
	}
	if err := d.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
}

func TestUnwritableDirectoriesAreRemoved(t *testing.T) {
	kerneltest.Child{Ordinary: true}.Run(t, func(t *testing.T) {
		dir := t.TempDir()
		d := open(t, dir)
		if err := d.Create(t.Context(), desired("a", "r1", "sleep")); err != nil {
			t.Fatal(err)
		}
		pids(t, dir, "a")
		deep := filepath.Join(dir, "a", "workspace", "x", "y")
		if err := os.MkdirAll(deep, 0o755); err != nil {
			t.Fatal(err)
		}
		outside := filepath.Join(t.TempDir(), "kept")
		if err := os.Mkdir(outside, 0o500); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, filepath.Join(deep, "link")); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{deep, filepath.Dir(deep)} {
			if err := os.Chmod(p, 0o500); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o500 {
			t.Errorf("a directory outside was touched: %v, %v", info, err)
		}
	})
}

func TestIDsArePathElements(t *testing.T) {
	d := open(t, t.TempDir())
	for _, id := range []string{"", ".", "..", "../x", "a/b"} {
		if err := d.Create(t.Context(), desired(id, "r")); fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestDriverConfigIsOffByDefault(t *testing.T) {
	d := open(t, t.TempDir())
	want := desired("a", "r", "sleep")
	want.Config = map[string]any{"x": 1}
	if err := d.Create(t.Context(), want); fault.KindOf(err) != fault.FailedPrecondition {
		t.Errorf("err = %v", err)
	}
}
