package fault

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestTheCauseStaysPrivate(t *testing.T) {
	err := New(Conflict, "policy of %q changed", "box").Hint("get it again").Cause(io.ErrUnexpectedEOF)
	if got, want := err.Error(), `policy of "box" changed`; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	wrapped := fmt.Errorf("set policy: %w", err)
	if !errors.Is(wrapped, io.ErrUnexpectedEOF) {
		t.Error("the cause is not reachable")
	}
	if got := KindOf(wrapped); got != Conflict {
		t.Errorf("KindOf = %v", got)
	}
	if got := HintOf(wrapped); got != "get it again" {
		t.Errorf("HintOf = %q", got)
	}
}

func TestKindsAreABijectionWithCodes(t *testing.T) {
	for k := range kinds {
		if got := FromCode(Kind(k).Code()); got != Kind(k) {
			t.Errorf("FromCode(%d) = %v, want %v", Kind(k).Code(), got, Kind(k))
		}
	}
	if Kind(0) != Internal {
		t.Error("the zero kind must be Internal")
	}
}
