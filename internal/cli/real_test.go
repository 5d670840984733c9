package cli

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"openshell.dev/openshell/internal/image"
	"openshell.dev/openshell/internal/kerneltest"
)

// realVar names the directory with the built programs and the scripts, in a
// child that runs as an ordinary account.
const realVar = "CLI_TEST_REAL"

// The scripts in testdata/real run the programs themselves: the command line
// starts its private gateway, which starts supervisors, which start sandboxes.
func TestTheWholeProductAnswersTheCommandLine(t *testing.T) {
	kerneltest.Require(t, kerneltest.UserNS, kerneltest.NetAdmin, kerneltest.Seccomp)
	dir := os.Getenv(realVar)
	if dir == "" {
		dir = buildAll(t)
	}
	if os.Getenv(realVar) == "" {
		t.Run("caller", func(t *testing.T) { realScripts(t, dir) })
	}
	t.Run("ordinary", func(t *testing.T) {
		if os.Getuid() != 0 && os.Getenv(realVar) == "" {
			t.Skip("the caller is an ordinary account")
		}
		kerneltest.Child{Ordinary: true, Env: []string{realVar + "=" + dir}}.Run(t, func(t *testing.T) { realScripts(t, dir) })
	})
}

// buildAll builds the programs where every account can execute them.
func buildAll(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli-real-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", dir+"/bin/", "../../cmd/...")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	if err := os.CopyFS(dir+"/scripts", os.DirFS("testdata/real")); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func realScripts(t *testing.T, dir string) {
	root, err := os.MkdirTemp("/tmp", "cli-") // short: a socket's path has a limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := image.RemoveTree(root); err != nil {
			t.Error(err)
		}
	})
	testscript.Run(t, testscript.Params{
		Dir:                 dir + "/scripts",
		RequireExplicitExec: true,
		WorkdirRoot:         root,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", dir+"/bin:"+os.Getenv("PATH"))
			e.Setenv("HOME", e.WorkDir+"/home")
			e.Setenv("FREE", freeAddress(e.T()))
			e.Setenv("STATE", e.WorkDir+"/home/.local/state/openshell/local")
			state := e.WorkDir + "/home/.local/state/openshell/local"
			e.Defer(func() { endForwards(e.WorkDir + "/home/.config/openshell"); endProcesses(t, state) })
			return os.MkdirAll(e.WorkDir+"/home", 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"say": say, "busy": busy, "type": typeKeys,
			// end-gateway SIGNAL ends the gateway of this script's account.
			"end-gateway": func(ts *testscript.TestScript, _ bool, args []string) {
				sig := syscall.SIGTERM
				if len(args) > 0 && args[0] == "KILL" {
					sig = syscall.SIGKILL
				}
				pids := processesOf(ts.Getenv("STATE"), "openshell-gateway")
				if len(pids) != 1 {
					ts.Fatalf("%d gateways run: %v", len(pids), pids)
				}
				ts.Check(syscall.Kill(pids[0], sig))
				for range 500 {
					if len(processesOf(ts.Getenv("STATE"), "openshell-gateway")) == 0 {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				ts.Fatalf("the gateway did not end")
			},
			"one-gateway": func(ts *testscript.TestScript, _ bool, _ []string) {
				if pids := processesOf(ts.Getenv("STATE"), "openshell-gateway"); len(pids) != 1 {
					ts.Fatalf("%d gateways run: %v", len(pids), pids)
				}
			},
		},
	})
}

// processesOf finds our processes by program and by the state directory in
// their arguments.
func processesOf(state, program string) []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		line, err := os.ReadFile(dir + "/cmdline")
		if err != nil || !strings.Contains(string(line), state) {
			continue
		}
		argv0, _, _ := strings.Cut(string(line), "\x00")
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil && (program == "" || filepath.Base(argv0) == program) && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// endProcesses ends what a script has started, gateway first.
func endProcesses(t *testing.T, state string) {
	for _, program := range []string{"openshell-gateway", ""} {
		for _, pid := range processesOf(state, program) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	for range 300 {
		if len(processesOf(state, "")) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("processes are left: %v", processesOf(state, ""))
}
