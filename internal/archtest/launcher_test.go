package archtest

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestTheLauncherLinksOnlyItsList compares what openshell-sandbox links with
// testdata/launcher.txt, which is reviewed like code: the program stands next
// to the agent, starts within two milliseconds, and must not grow unseen.
func TestTheLauncherLinksOnlyItsList(t *testing.T) {
	var got []string
	for _, p := range list(t, "-deps", "./cmd/openshell-sandbox") {
		if p.Standard && strings.Contains(p.ImportPath, "internal/") {
			continue // the standard library's own parts come and go with its version
		}
		got = append(got, p.ImportPath)
	}
	slices.Sort(got)
	text := strings.Join(got, "\n") + "\n"
	const golden = "testdata/launcher.txt"
	if os.Getenv("UPDATE") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("openshell-sandbox links other packages than %s lists; got:\n%s\nif that is meant: UPDATE=1 go test ./internal/archtest", golden, text)
	}
}

// TestTheRunPathStaysLight keeps what costs milliseconds of start out of
// `openshell run`.
func TestTheRunPathStaysLight(t *testing.T) {
	heavy := []string{"google.golang.org/protobuf", "google.golang.org/grpc", "connectrpc.com", "modernc.org", "github.com/spf13/cobra",
		"net/http", "github.com/google/go-containerregistry", "github.com/google/nftables"}
	for _, p := range list(t, "-deps", "./cmd/openshell") {
		for _, h := range heavy {
			if under(p.ImportPath, h) {
				t.Errorf("openshell links %s: it starts in 2 ms, and this costs part of it", p.ImportPath)
			}
		}
	}
}
