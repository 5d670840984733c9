package e2e

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"openshell.dev/openshell/test/person"
)

// TestKillingAnyPartEndsEverything kills each half at a random moment of a
// busy sandbox: no process may be left, and what a crash left on disk is
// collected by the next start.
func TestKillingAnyPartEndsEverything(t *testing.T) {
	person.Each(t, func(t *testing.T, p *person.Person) {
		for _, victim := range []string{"openshell", "openshell-sandbox"} {
			t.Run(victim, func(t *testing.T) {
				mark := unique()
				cmd := p.Command(t.Context(), "openshell", "run", "--", "/bin/bash", "-c",
					"(setsid sleep "+mark+" &); echo ready; sleep "+mark)
				var errs strings.Builder
				cmd.Stderr = &errs
				t.Cleanup(func() { t.Log(errs.String()) })
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
					t.Fatalf("first line %q", line)
				}
				pid := cmd.Process.Pid
				if victim == "openshell-sandbox" {
					pid = childNamed(t, pid, victim)
				}
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()
				deadline := time.Now().Add(5 * time.Second)
				for processesOf(t, p, "sleep "+mark) != "" {
					if time.Now().After(deadline) {
						t.Fatal("a process inside survived")
					}
					time.Sleep(5 * time.Millisecond)
				}
				p.Sh("true") // sweeps
				entries, err := os.ReadDir(p.Workspace)
				if err != nil || len(entries) != 0 {
					t.Errorf("left in the workspace: %v, %v", entries, err)
				}
			})
		}
	})
}

// childNamed returns the child of pid whose program has this name.
func childNamed(t *testing.T, pid int, name string) int {
	t.Helper()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		stat, err := os.ReadFile(filepath.Join(d, "stat"))
		if err != nil {
			continue
		}
		text := string(stat)
		end := strings.LastIndexByte(text, ')')
		fields := strings.Fields(text[end+1:])
		cmdline, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		if fields[1] == itoa(pid) && strings.HasPrefix(string(cmdline), name) {
			return atoi(filepath.Base(d))
		}
	}
	t.Fatalf("no child %s of %d", name, pid)
	return 0
}
