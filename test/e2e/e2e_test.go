// Package e2e runs the built programs as a person would, with an ordinary
// account and with whatever account the tests have.
package e2e

import (
	"os"
	"testing"

	"openshell.dev/openshell/test/built"
)

func TestMain(m *testing.M) {
	code := m.Run()
	built.Clean()
	os.Exit(code)
}
