package store

import (
	"context"
	"io/fs"
	"testing"
)

// LimitPages makes the database file believe that the disk is nearly full.
func LimitPages(t *testing.T, s *SQLite) {
	t.Helper()
	if _, err := s.write.Exec(`PRAGMA max_page_count = 64`); err != nil {
		t.Fatal(err)
	}
}

// MigrateWith runs the migrations of dir on an open database.
func MigrateWith(s *SQLite, dir fs.FS) error {
	steps, err := loadMigrations(dir)
	if err != nil {
		steps = nil
	}
	return migrate(context.Background(), s.write, steps)
}
