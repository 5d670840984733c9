package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"openshell.dev/openshell/internal/fault"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migration is one numbered step; an applied one never changes again, which
// its checksum proves.
type migration struct {
	number int
	name   string
	body   string
	sum    string
}

func loadMigrations(dir fs.FS) ([]migration, error) {
	entries, err := fs.ReadDir(dir, "migrations")
	if err != nil {
		return nil, err
	}
	var out []migration
	for _, e := range entries {
		digits, _, _ := strings.Cut(e.Name(), "_")
		n, err := strconv.Atoi(digits)
		if err != nil || n != len(out)+1 {
			return nil, fmt.Errorf("migration %s is not number %d", e.Name(), len(out)+1)
		}
		body, err := fs.ReadFile(dir, "migrations/"+e.Name())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(body)
		out = append(out, migration{number: n, name: e.Name(), body: string(body), sum: hex.EncodeToString(sum[:])})
	}
	return out, nil
}

// migrate brings the schema up to the newest step, each in a transaction of
// its own. A database made by a newer program is refused.
func migrate(ctx context.Context, db *sql.DB, steps []migration) error {
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS migrations (
		number INTEGER PRIMARY KEY, name TEXT NOT NULL, sum TEXT NOT NULL)`); err != nil {
		return storageFault("prepare the schema", err)
	}
	applied := map[int]string{}
	rows, err := db.QueryContext(ctx, `SELECT number, sum FROM migrations ORDER BY number`)
	if err != nil {
		return storageFault("read the schema", err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		var sum string
		if err := rows.Scan(&n, &sum); err != nil {
			return storageFault("read the schema", err)
		}
		applied[n] = sum
	}
	if err := rows.Err(); err != nil {
		return storageFault("read the schema", err)
	}
	for n := range applied {
		if n > len(steps) {
			return fault.New(fault.FailedPrecondition, "the database has schema %d, this program knows only %d", n, len(steps)).
				Hint("start the newer gateway that wrote it")
		}
	}
	for _, m := range steps {
		if sum, done := applied[m.number]; done {
			if sum != m.sum {
				return fault.New(fault.FailedPrecondition, "migration %s of the database is not the one this program has", m.name)
			}
			continue
		}
		if err := apply(ctx, db, m); err != nil {
			return storageFault("migrate to "+m.name, err)
		}
	}
	return nil
}

func apply(ctx context.Context, db *sql.DB, m migration) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, m.body); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO migrations (number, name, sum) VALUES (?, ?, ?)`, m.number, m.name, m.sum); err != nil {
		return err
	}
	return tx.Commit()
}
