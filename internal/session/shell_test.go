package session_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"openshell.dev/openshell/internal/session"
)

func TestAQuotedLineIsTheSameWords(t *testing.T) {
	for _, argv := range [][]string{
		{"echo", "a b", "it's", "$HOME", "`x`", "", "~", "*", "a\nb", "--x=y", "#c", "ü"},
		{"true"},
	} {
		out, err := exec.Command("sh", "-c", "printf '%s\\0' "+session.Quote(argv)).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(got, argv) {
			t.Errorf("%q came back as %q", argv, got)
		}
	}
}

func TestMergeEnv(t *testing.T) {
	got := session.MergeEnv([]string{"A=1", "B=2"}, "B=3", "C=4", "bad", "A=")
	if want := []string{"A=", "B=3", "C=4"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := session.WithTerm([]string{"TERM=dumb"}, ""); !slices.Equal(got, []string{"TERM=xterm-256color"}) {
		t.Errorf("%q", got)
	}
}
