// Package storetest is the suite that every store passes.
//
// It owns the contract as tests and nothing else. Tests of a back end call
// Run with a way to open an empty store.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"openshell.dev/openshell/internal/store"
)

// Run checks the whole contract on stores made by open.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, tt := range []struct {
		name string
		body func(t *testing.T, s store.Store)
	}{
		{"create, read, replace, delete", life},
		{"names and sequence numbers are unique", uniqueness},
		{"a stale version loses", compareAndSwap},
		{"one of many writers wins", race},
		{"pages are stable under change", pages},
		{"labels select", labels},
		{"a watch sees every change once and in order", watch},
		{"a trimmed cursor is refused", trimmed},
		{"sync returns", sync_},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.body(t, open(t)) })
	}
}

func put(t *testing.T, s store.Store, r store.Record) store.Record {
	t.Helper()
	out, err := s.Put(t.Context(), r)
	if err != nil {
		t.Fatalf("Put(%s/%s): %v", r.Kind, r.ID, err)
	}
	return out
}

func life(t *testing.T, s store.Store) {
	ctx := t.Context()
	made := put(t, s, store.Record{Kind: "box", ID: "1", Workspace: "w", Name: "n", Labels: map[string]string{"a": "b"}, Payload: []byte("x")})
	if made.Version != 1 || made.Created.IsZero() {
		t.Errorf("made = %+v, want version 1 and a time", made)
	}
	for what, get := range map[string]func() (store.Record, error){
		"Get":  func() (store.Record, error) { return s.Get(ctx, "box", "1") },
		"Find": func() (store.Record, error) { return s.Find(ctx, "box", "w", "n") },
	} {
		got, err := get()
		if err != nil || string(got.Payload) != "x" || got.Labels["a"] != "b" || got.Version != 1 || !got.Created.Equal(made.Created) {
			t.Errorf("%s = %+v, %v; want %+v", what, got, err, made)
		}
	}
	made.Payload = []byte("y")
	if again := put(t, s, made); again.Version != 2 || !again.Created.Equal(made.Created) {
		t.Errorf("replaced = %+v, want version 2 and the old creation time", again)
	}
	if err := s.Delete(ctx, "box", "1", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "box", "1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after Delete: %v, want ErrNotFound", err)
	}
	if err := s.Delete(ctx, "box", "1", 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("second Delete: %v, want ErrNotFound", err)
	}
}

func uniqueness(t *testing.T, s store.Store) {
	put(t, s, store.Record{Kind: "box", ID: "1", Workspace: "w", Name: "n"})
	put(t, s, store.Record{Kind: "box", ID: "2", Workspace: "other", Name: "n"})
	put(t, s, store.Record{Kind: "box", ID: "3", Workspace: "w"})
	put(t, s, store.Record{Kind: "box", ID: "4", Workspace: "w"})
	put(t, s, store.Record{Kind: "rev", ID: "5", Scope: "1", Seq: 1})
	put(t, s, store.Record{Kind: "rev", ID: "6", Scope: "2", Seq: 1})
	for _, r := range []store.Record{
		{Kind: "box", ID: "1", Name: "other"},
		{Kind: "box", ID: "9", Workspace: "w", Name: "n"},
		{Kind: "rev", ID: "9", Scope: "1", Seq: 1},
	} {
		if _, err := s.Put(t.Context(), r); !errors.Is(err, store.ErrExists) {
			t.Errorf("Put(%+v) = %v, want ErrExists", r, err)
		}
	}
}

func compareAndSwap(t *testing.T, s store.Store) {
	ctx := t.Context()
	first := put(t, s, store.Record{Kind: "box", ID: "1"})
	put(t, s, first)
	var c *store.ConflictError
	if _, err := s.Put(ctx, first); !errors.As(err, &c) || c.Current != 2 {
		t.Errorf("stale Put = %v, want a conflict with current 2", err)
	}
	if err := s.Delete(ctx, "box", "1", 1); !errors.As(err, &c) {
		t.Errorf("stale Delete = %v, want a conflict", err)
	}
	if _, err := s.Put(ctx, store.Record{Kind: "box", ID: "none", Version: 3}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Put of a missing record with a version = %v, want ErrNotFound", err)
	}
}

func race(t *testing.T, s store.Store) {
	base := put(t, s, store.Record{Kind: "box", ID: "1"})
	var wg sync.WaitGroup
	won := make(chan int, 16)
	for n := range 16 {
		wg.Go(func() {
			r := base
			r.Payload = fmt.Append(nil, n)
			if _, err := s.Put(t.Context(), r); err == nil {
				won <- n
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d writers won, want 1", len(won))
	}
	got, err := s.Get(t.Context(), "box", "1")
	if err != nil || string(got.Payload) != fmt.Sprint(<-won) {
		t.Errorf("stored %q, %v", got.Payload, err)
	}
}

func pages(t *testing.T, s store.Store) {
	ctx := t.Context()
	for n := range 7 {
		put(t, s, store.Record{Kind: "box", ID: fmt.Sprint(n), Workspace: "w"})
		put(t, s, store.Record{Kind: "rev", ID: fmt.Sprint(n), Scope: "b", Seq: uint64(n + 1)})
	}
	put(t, s, store.Record{Kind: "box", ID: "x", Workspace: "elsewhere"})
	q := store.Query{Kind: "box", Workspace: "w", Limit: 3}
	var seen []string
	for {
		page, err := s.List(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			seen = append(seen, r.ID)
		}
		q.After = store.KeyOf(q, page[len(page)-1])
		if len(seen) == 3 { // a page in the middle of which things change
			if err := s.Delete(ctx, "box", "1", 0); err != nil {
				t.Fatal(err)
			}
			put(t, s, store.Record{Kind: "box", ID: "new", Workspace: "w"})
		}
	}
	if got := fmt.Sprint(seen); got != "[0 1 2 3 4 5 6 new]" {
		t.Errorf("pages = %v", got)
	}
	newest, err := s.List(ctx, store.Query{Kind: "rev", Scope: "b", Newest: true, Limit: 2})
	if err != nil || len(newest) != 2 || newest[0].Seq != 7 || newest[1].Seq != 6 {
		t.Errorf("newest = %+v, %v", newest, err)
	}
	all, err := s.List(ctx, store.Query{Kind: "box", AllWorkspaces: true})
	if err != nil || len(all) != 8 {
		t.Errorf("all workspaces: %d records, %v, want 8", len(all), err)
	}
}

func labels(t *testing.T, s store.Store) {
	put(t, s, store.Record{Kind: "box", ID: "1", Labels: map[string]string{"team.example/x": "a", "y": "b"}})
	put(t, s, store.Record{Kind: "box", ID: "2", Labels: map[string]string{"team.example/x": "a"}})
	got, err := s.List(t.Context(), store.Query{Kind: "box", Labels: map[string]string{"team.example/x": "a", "y": "b"}})
	if err != nil || len(got) != 1 || got[0].ID != "1" {
		t.Errorf("selected %+v, %v", got, err)
	}
}

func watch(t *testing.T, s store.Store) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	put(t, s, store.Record{Kind: "box", ID: "before"})
	var got []string
	for c, err := range s.Watch(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(c.ID, c.Deleted))
		switch len(got) {
		case 1: // the rest happens while we wait
			go func() {
				_, err := s.Put(ctx, store.Record{Kind: "box", ID: "after"})
				if err == nil {
					err = s.Delete(ctx, "box", "after", 0)
				}
				if err != nil {
					t.Error(err)
				}
			}()
		case 3:
			cancel()
		}
		if len(got) == 3 {
			break
		}
	}
	if want := "[beforefalse afterfalse aftertrue]"; fmt.Sprint(got) != want {
		t.Errorf("changes = %v, want %v", got, want)
	}
}

func trimmed(t *testing.T, s store.Store) {
	for _, err := range s.Watch(t.Context(), 1<<40) {
		if !errors.Is(err, store.ErrCursorGone) {
			t.Errorf("err = %v, want ErrCursorGone", err)
		}
		return
	}
	t.Error("a cursor of the future was accepted")
}

func sync_(t *testing.T, s store.Store) {
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			if _, err := s.Put(t.Context(), store.Record{Kind: "box", ID: fmt.Sprint(n)}); err != nil {
				t.Error(err)
			}
			if err := s.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
