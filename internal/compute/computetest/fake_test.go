package computetest_test

import (
	"testing"

	"openshell.dev/openshell/internal/compute/computetest"
	"openshell.dev/openshell/internal/model"
)

func TestTheFakePasses(t *testing.T) {
	computetest.Run(t, func(t *testing.T) computetest.Fixture {
		f := &computetest.Fake{}
		return computetest.Fixture{Driver: f,
			Kill: func(_ *testing.T, id model.SandboxID) { f.Kill(id) },
			Left: func(*testing.T, model.SandboxID) []string { return nil }}
	})
}
