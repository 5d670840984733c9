package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"openshell.dev/openshell/internal/fault"
	"openshell.dev/openshell/internal/store"
	"openshell.dev/openshell/internal/store/storetest"
)

func open(t *testing.T, path string) *store.SQLite {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, filepath.Join(t.TempDir(), "sub", "a b.db")) })
}

func TestFilesArePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	s := open(t, path)
	if _, err := s.Put(t.Context(), store.Record{Kind: "k", ID: "1"}); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", suffix, info.Mode())
		}
	}
}

func TestASecondGatewayIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	open(t, path)
	_, err := store.Open(t.Context(), path)
	if fault.KindOf(err) != fault.Unavailable || fault.HintOf(err) == "" {
		t.Errorf("second open = %v, want Unavailable with a hint", err)
	}
}

func TestDamageIsSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database ", 400)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), path)
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("open of a damaged file = %v", err)
	}
}

func TestAFullDiskIsSaidAndLosesNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "x.db"))
	if _, err := s.Put(t.Context(), store.Record{Kind: "k", ID: "kept"}); err != nil {
		t.Fatal(err)
	}
	store.LimitPages(t, s)
	_, err := s.Put(t.Context(), store.Record{Kind: "k", ID: "big", Payload: make([]byte, 8<<20)})
	if fault.KindOf(err) != fault.Exhausted || !strings.Contains(err.Error(), "full") {
		t.Errorf("Put on a full disk = %v", err)
	}
	if _, err := s.Get(t.Context(), "k", "kept"); err != nil {
		t.Errorf("the earlier record: %v", err)
	}
}

// TestNothingIsLostWhenAWriterIsKilled kills a process in the middle of a
// stream of writes; every write that it had been told was done is there.
func TestNothingIsLostWhenAWriterIsKilled(t *testing.T) {
	const role = "OPENSHELL_STORE_TEST_WRITER"
	if path := os.Getenv(role); path != "" {
		s, err := store.Open(context.Background(), path)
		if err != nil {
			fmt.Println("error", err)
			return
		}
		for n := 0; ; n++ {
			if _, err := s.Put(context.Background(), store.Record{Kind: "k", ID: fmt.Sprint(n), Payload: make([]byte, 3000)}); err != nil {
				fmt.Println("error", err)
				return
			}
			fmt.Println("done", n)
		}
	}
	path := filepath.Join(t.TempDir(), "x.db")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), role+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := -1
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if n, err := fmt.Sscanf(lines.Text(), "done %d", &last); n != 1 {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if last == 200 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed
	if last < 200 {
		t.Fatalf("the writer ended after %d", last)
	}
	s := open(t, path)
	for n := range last + 1 {
		if _, err := s.Get(t.Context(), "k", fmt.Sprint(n)); err != nil {
			t.Fatalf("record %d of %d: %v", n, last, err)
		}
	}
}

func TestAChangedMigrationIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	changed := fstest.MapFS{"migrations/0001_objects.sql": {Data: []byte("SELECT 1;")}}
	if err := store.MigrateWith(s, changed); err == nil || !strings.Contains(err.Error(), "not the one") {
		t.Errorf("changed migration: %v", err)
	}
	if err := store.MigrateWith(s, fstest.MapFS{}); err == nil {
		t.Error("a program without migrations accepted a newer database")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkPut(b *testing.B) {
	s, err := store.Open(context.Background(), filepath.Join(b.TempDir(), "x.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for n := 0; b.Loop(); n++ {
		if _, err := s.Put(b.Context(), store.Record{Kind: "k", ID: fmt.Sprint(n), Workspace: "w", Name: fmt.Sprint(n), Payload: make([]byte, 500)}); err != nil {
			b.Fatal(err)
		}
	}
}
