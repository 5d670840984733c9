package store

import (
	"context"
	"database/sql"
	"iter"
)

// keptChanges is how far back a watch may start.
const keptChanges = 4096

// change runs f in a transaction together with the note that (kind, id)
// changed, and wakes the watchers after the commit.
func (s *SQLite) change(ctx context.Context, kind, id string, deleted bool, f func(*sql.Tx) error) error {
	// A caller that leaves must not leave half a change: the commit does not
	// depend on it once the work has begun.
	tx, err := s.write.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return err
	}
	res, err := tx.Exec(`INSERT INTO changes (kind, id, deleted) VALUES (?, ?, ?)`, kind, id, deleted)
	if err != nil {
		return err
	}
	if n, err := res.LastInsertId(); err == nil && n%256 == 0 {
		if _, err := tx.Exec(`DELETE FROM changes WHERE cursor <= ?`, n-keptChanges); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	s.mu.Lock()
	if !s.closed {
		close(s.notify)
		s.notify = make(chan struct{})
	}
	s.mu.Unlock()
	return nil
}

// Cursor returns the position after the newest change.
func (s *SQLite) Cursor(ctx context.Context) (Cursor, error) {
	var c Cursor
	err := s.read.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'changes'`).Scan(&c)
	return c, storageFault("read the newest change", err)
}

// Watch implements Store.
func (s *SQLite) Watch(ctx context.Context, after Cursor) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for {
			s.mu.Lock()
			wake, closed := s.notify, s.closed
			s.mu.Unlock()
			batch, err := s.changes(ctx, after)
			if err != nil {
				yield(Change{}, err)
				return
			}
			for _, c := range batch {
				if !yield(c, nil) {
					return
				}
				after = c.Cursor
			}
			if len(batch) > 0 {
				continue
			}
			if closed {
				return
			}
			select {
			case <-wake:
			case <-ctx.Done():
				yield(Change{}, ctx.Err())
				return
			}
		}
	}
}

func (s *SQLite) changes(ctx context.Context, after Cursor) ([]Change, error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, storageFault("read the changes", err)
	}
	defer tx.Rollback()
	var oldest, newest Cursor
	if err := tx.QueryRow(`SELECT coalesce(min(cursor), 0), coalesce(max(cursor), 0) FROM changes`).Scan(&oldest, &newest); err != nil {
		return nil, storageFault("read the changes", err)
	}
	if after > newest || (oldest > 0 && after+1 < oldest) {
		return nil, ErrCursorGone
	}
	rows, err := tx.Query(`SELECT cursor, kind, id, deleted FROM changes WHERE cursor > ? ORDER BY cursor LIMIT 256`, after)
	if err != nil {
		return nil, storageFault("read the changes", err)
	}
	defer rows.Close()
	var out []Change
	for rows.Next() {
		var c Change
		if err := rows.Scan(&c.Cursor, &c.Kind, &c.ID, &c.Deleted); err != nil {
			return nil, storageFault("read the changes", err)
		}
		out = append(out, c)
	}
	return out, storageFault("read the changes", rows.Err())
}
