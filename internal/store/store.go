// Package store keeps the records of the control plane.
//
// It owns durability, uniqueness of names, compare-and-swap and the order of
// changes; it knows nothing of what a record means. A write that returned is
// not lost when the process is killed; after Sync it is not lost when the
// machine loses power either. Only the gateway may use it, and only this
// package links a database driver.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Record is one stored object. Names are unique within (Kind, Workspace) and
// sequence numbers within (Kind, Scope); an empty name or scope takes part in
// neither rule.
type Record struct {
	Kind      string
	ID        string
	Workspace string
	Name      string
	Scope     string // the object this one belongs to, as a policy revision to its sandbox
	Seq       uint64 // its number within Scope
	Labels    map[string]string
	Payload   []byte
	Created   time.Time
	Updated   time.Time
	// Version starts at 1 and grows with every write. Zero in a Put means
	// that the record must not exist yet.
	Version uint64
}

// Query selects records of one kind. The order is creation time, then id, or
// sequence number when Scope is set; Newest turns it round.
type Query struct {
	Kind          string
	Workspace     string
	AllWorkspaces bool
	Scope         string // only records of this scope; then workspaces do not matter
	Labels        map[string]string
	Newest        bool
	After         Key // exclusive
	Limit         int // 0 means 100, at most MaxLimit
}

// MaxLimit is the most records that one List returns.
const MaxLimit = 1000

// Key is a place in the order of a list. The zero value is before the first.
type Key struct {
	Order int64 // creation time in microseconds, or the sequence number
	ID    string
}

// KeyOf returns where r stands in the order of q.
func KeyOf(q Query, r Record) Key {
	if q.Scope != "" {
		return Key{Order: int64(r.Seq), ID: r.ID}
	}
	return Key{Order: r.Created.UnixMicro(), ID: r.ID}
}

// Cursor is a position in the sequence of changes. It grows with every write.
type Cursor uint64

// Change says that a record was written or deleted.
type Change struct {
	Cursor  Cursor
	Kind    string
	ID      string
	Deleted bool
}

// Sentinels that callers branch on. Everything else is a fault.Error.
var (
	ErrNotFound   = errors.New("no such record")
	ErrExists     = errors.New("the name, id or sequence number is taken")
	ErrCursorGone = errors.New("the changes after this cursor are no longer kept")
)

// ConflictError says that the record was changed or deleted meanwhile.
type ConflictError struct {
	Current uint64 // 0 if the record is gone
}

// Error says what the current version is.
func (e *ConflictError) Error() string {
	if e.Current == 0 {
		return "concurrent modification (current resource_version: unknown)"
	}
	return fmt.Sprintf("concurrent modification (current resource_version: %d)", e.Current)
}

// Store is the contract that every back end passes (storetest.Run).
type Store interface {
	// Get returns the record with this id, or ErrNotFound.
	Get(ctx context.Context, kind, id string) (Record, error)
	// Find returns the record with this name, or ErrNotFound.
	Find(ctx context.Context, kind, workspace, name string) (Record, error)
	// List returns at most q.Limit records after q.After.
	List(ctx context.Context, q Query) ([]Record, error)
	// Put creates (Version 0) or replaces (matching Version) and returns the
	// record as stored. It fails with ErrExists, ErrNotFound or a
	// *ConflictError.
	Put(ctx context.Context, r Record) (Record, error)
	// Delete removes a record; version 0 means whichever is there.
	Delete(ctx context.Context, kind, id string, version uint64) error
	// Watch yields every change after the cursor, in order, and then waits
	// for more until ctx ends. It yields ErrCursorGone and stops when
	// changes after the cursor were trimmed.
	Watch(ctx context.Context, after Cursor) iter.Seq2[Change, error]
	// Sync returns when everything written before the call would survive
	// the loss of power.
	Sync(ctx context.Context) error
}
