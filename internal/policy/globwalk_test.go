package policy

import (
	"testing"

	"pgregory.net/rapid"
)

// TestWalkAgreesWithSimulate holds the fast matcher to the one that follows
// every possibility.
func TestWalkAgreesWithSimulate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sep := rapid.SampledFrom([]byte{'/', '.'}).Draw(t, "sep")
		ops, err := globOps(rapid.StringMatching(`([ab/.]|\*|\*\*|/\*\*/|\?|\[ab\]|\[!a\]){0,8}`).Draw(t, "pattern"), sep)
		if err != nil {
			t.Fatal(err)
		}
		a := newGlobAlt(ops, sep)
		for range 8 {
			s := rapid.StringMatching(`[ab/.]{0,12}`).Draw(t, "subject")
			if !a.crossing && a.walk(s, sep) != a.simulate(s, sep) {
				t.Fatalf("%+v on %q: walk says %v", a, s, a.walk(s, sep))
			}
		}
	})
}
