package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

const selectColumns = `SELECT kind, id, workspace, name, scope, seq, labels, payload, created_us, updated_us, version FROM objects`

// Get implements Store.
func (s *SQLite) Get(ctx context.Context, kind, id string) (Record, error) {
	return one(s.lookup.QueryRowContext(ctx, kind, id))
}

// Find implements Store.
func (s *SQLite) Find(ctx context.Context, kind, workspace, name string) (Record, error) {
	return one(s.find.QueryRowContext(ctx, kind, workspace, name))
}

func one(row *sql.Row) (Record, error) {
	r, err := scan(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Record{}, ErrNotFound
	}
	return r, storageFault("read a record", err)
}

func scan(into func(...any) error) (Record, error) {
	var r Record
	var name, scope sql.NullString
	var seq sql.NullInt64
	var labels string
	var created, updated int64
	if err := into(&r.Kind, &r.ID, &r.Workspace, &name, &scope, &seq, &labels, &r.Payload, &created, &updated, &r.Version); err != nil {
		return Record{}, err
	}
	r.Name, r.Scope, r.Seq = name.String, scope.String, uint64(seq.Int64)
	r.Created, r.Updated = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	if labels != "{}" {
		if err := json.Unmarshal([]byte(labels), &r.Labels); err != nil {
			return Record{}, fmt.Errorf("labels of %s %s: %w", r.Kind, r.ID, err)
		}
	}
	return r, nil
}

// List implements Store.
func (s *SQLite) List(ctx context.Context, q Query) ([]Record, error) {
	order, where, args := "created_us", []string{"kind = ?"}, []any{q.Kind}
	switch {
	case q.Scope != "":
		order = "seq"
		where, args = append(where, "scope = ?"), append(args, q.Scope)
	case !q.AllWorkspaces:
		where, args = append(where, "workspace = ?"), append(args, q.Workspace)
	}
	direction, than := "ASC", ">"
	if q.Newest {
		direction, than = "DESC", "<"
	}
	if q.After != (Key{}) {
		where = append(where, "("+order+", id) "+than+" (?, ?)")
		args = append(args, q.After.Order, q.After.ID)
	}
	for k, v := range q.Labels {
		path, err := json.Marshal(k)
		if err != nil {
			return nil, err
		}
		where, args = append(where, "json_extract(labels, ?) = ?"), append(args, "$."+string(path), v)
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	args = append(args, min(limit, MaxLimit))
	rows, err := s.read.QueryContext(ctx, selectColumns+" WHERE "+strings.Join(where, " AND ")+
		" ORDER BY "+order+" "+direction+", id "+direction+" LIMIT ?", args...)
	if err != nil {
		return nil, storageFault("list records", err)
	}
	defer rows.Close()
	var out []Record
	for rows.Next() {
		r, err := scan(rows.Scan)
		if err != nil {
			return nil, storageFault("list records", err)
		}
		out = append(out, r)
	}
	return out, storageFault("list records", rows.Err())
}

// Put implements Store.
func (s *SQLite) Put(ctx context.Context, r Record) (Record, error) {
	if r.Kind == "" || r.ID == "" {
		return Record{}, errors.New("a record needs a kind and an id")
	}
	labels := []byte("{}")
	if len(r.Labels) > 0 {
		var err error
		if labels, err = json.Marshal(r.Labels); err != nil {
			return Record{}, err
		}
	}
	if r.Payload == nil {
		r.Payload = []byte{}
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	name, scope := nullable(r.Name), nullable(r.Scope)
	seq := sql.NullInt64{Int64: int64(r.Seq), Valid: r.Seq != 0}
	err := s.change(ctx, r.Kind, r.ID, false, func(tx *sql.Tx) error {
		if r.Version == 0 {
			if r.Created.IsZero() {
				r.Created = now
			}
			_, err := tx.StmtContext(ctx, s.insert).ExecContext(ctx, r.Kind, r.ID, r.Workspace, name, scope, seq, string(labels), r.Payload, r.Created.UnixMicro(), now.UnixMicro())
			return err
		}
		res, err := tx.StmtContext(ctx, s.update).ExecContext(ctx, r.Workspace, name, scope, seq, string(labels), r.Payload, now.UnixMicro(), r.Kind, r.ID, r.Version)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return conflict(ctx, tx, r.Kind, r.ID)
	})
	if unique(err) {
		return Record{}, ErrExists
	}
	if err != nil {
		return Record{}, passOrFault("write a record", err)
	}
	r.Created, r.Updated, r.Version = r.Created.UTC().Truncate(time.Microsecond), now, r.Version+1
	return r, nil
}

// Delete implements Store.
func (s *SQLite) Delete(ctx context.Context, kind, id string, version uint64) error {
	err := s.change(ctx, kind, id, true, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM objects WHERE kind = ? AND id = ? AND (? = 0 OR version = ?)`, kind, id, version, version)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return conflict(ctx, tx, kind, id)
	})
	return passOrFault("delete a record", err)
}

// conflict says why a compare-and-swap touched nothing.
func conflict(ctx context.Context, tx *sql.Tx, kind, id string) error {
	var current uint64
	err := tx.QueryRowContext(ctx, `SELECT version FROM objects WHERE kind = ? AND id = ?`, kind, id).Scan(&current)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	return &ConflictError{Current: current}
}

func passOrFault(doing string, err error) error {
	var c *ConflictError
	if errors.Is(err, ErrNotFound) || errors.As(err, &c) {
		return err
	}
	return storageFault(doing, err)
}

func nullable(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }
