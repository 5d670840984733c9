package gateways_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/gateways"
)

func TestARegistrationComesBack(t *testing.T) {
	r := gateways.Registry{Root: filepath.Join(t.TempDir(), "c"), System: t.TempDir()}
	if name, err := r.Active(); name != "" || err != nil {
		t.Errorf("Active of nothing = %q, %v", name, err)
	}
	if _, err := r.Get("x"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("Get of nothing = %v", err)
	}
	want := gateways.Metadata{Name: "x", Endpoint: "https://127.0.0.1:17670", AuthMode: "mtls", UnixSocket: "/s", Private: true}
	if err := r.Put(want); err != nil {
		t.Fatal(err)
	}
	if err := r.SetActive("x"); err != nil {
		t.Fatal(err)
	}
	got, err := r.Get("x")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if name, err := r.Active(); name != "x" || err != nil {
		t.Errorf("Active = %q, %v", name, err)
	}
	if err := r.Remove("x"); err != nil {
		t.Fatal(err)
	}
	if list, err := r.List(); len(list) != 0 || err != nil {
		t.Errorf("List = %v, %v", list, err)
	}
}

func TestAUsersEntryHidesTheSystems(t *testing.T) {
	r := gateways.Registry{Root: t.TempDir(), System: t.TempDir()}
	system := gateways.Registry{Root: r.System}
	for _, name := range []string{"a", "b"} {
		if err := system.Put(gateways.Metadata{Name: name, Endpoint: "http://system"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Put(gateways.Metadata{Name: "a", Endpoint: "http://user"}); err != nil {
		t.Fatal(err)
	}
	list, err := r.List()
	if err != nil || len(list) != 2 || list[0].Endpoint != "http://user" || list[1].Endpoint != "http://system" {
		t.Errorf("List = %+v, %v", list, err)
	}
	if err := os.WriteFile(filepath.Join(r.Dir("a"), "metadata.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get("a"); fault.KindOf(err) != fault.FailedPrecondition {
		t.Errorf("a broken user entry: %v, want FailedPrecondition", err)
	}
}

func TestNamesAreOnePathElement(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", `a\b`} {
		if gateways.CheckName(name) == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}
