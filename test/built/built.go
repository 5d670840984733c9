// Package built gives tests the real programs, built once, in a directory
// that every account may enter. It is used by tests only.
package built

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// Dir returns the directory with all programs. The variable OPENSHELL_BIN
// names one that is already there; it must hold what `go build ./cmd/...` makes.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("OPENSHELL_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Dir(filepath.Dir(filepath.Dir(here)))
	dir, err := os.MkdirTemp("", "openshell-bin-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+"/", "./cmd/...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

// Clean removes what Dir built; call it from TestMain after the tests.
func Clean() {
	if os.Getenv("OPENSHELL_BIN") == "" {
		if dir, err := build(); err == nil {
			_ = os.RemoveAll(dir)
		}
	}
}
