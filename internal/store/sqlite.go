package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"openshell.dev/openshell/internal/fault"
)

// readers is the size of the read pool.
const readers = 4

// SQLite is the store of a single gateway: one file in WAL mode with one
// writer connection and a few readers. It is safe for concurrent use.
type SQLite struct {
	path  string
	write *sql.DB
	read  *sql.DB
	lock  *os.File // held while open: one gateway per file

	insert, update, lookup, find *sql.Stmt

	mu     sync.Mutex
	notify chan struct{} // closed and replaced at every change
	closed bool

	syncer syncer
}

var _ Store = (*SQLite)(nil)

// Open opens or creates the database at path, with mode 0600 in a directory
// of mode 0700, and brings its schema up to date.
func Open(ctx context.Context, path string) (*SQLite, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fault.New(fault.PermissionDenied, "cannot make the directory %s", filepath.Dir(path)).Cause(err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	s := &SQLite{path: path, lock: lock, notify: make(chan struct{})}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *SQLite) open(ctx context.Context) error {
	// The files take the mode of the first; umask plays no part that way.
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fault.New(fault.PermissionDenied, "cannot open the database %s", s.path).Cause(err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return fault.New(fault.PermissionDenied, "cannot protect the database %s", s.path).Cause(err)
	}
	// NORMAL commits without waiting for the disk; Sync adds the wait where
	// an answer promises durability, and many writers share one.
	pragmas := "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=foreign_keys(1)"
	dsn := "file:" + (&url.URL{Path: s.path}).EscapedPath() + "?" + pragmas
	if s.write, err = sql.Open("sqlite", dsn+"&_txlock=immediate"); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	s.write.SetMaxOpenConns(1)
	if err := s.write.PingContext(ctx); err != nil {
		return storageFault("open "+s.path, err)
	}
	steps, err := loadMigrations(migrations)
	if err != nil {
		return err
	}
	if err := migrate(ctx, s.write, steps); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(1)
	if err := s.prepare(ctx); err != nil {
		return storageFault("open "+s.path, err)
	}
	s.syncer.path = s.path + "-wal"
	return nil
}

func (s *SQLite) prepare(ctx context.Context) error {
	var err error
	for _, p := range []struct {
		into **sql.Stmt
		db   *sql.DB
		text string
	}{
		{&s.insert, s.write, `INSERT INTO objects (kind, id, workspace, name, scope, seq, labels, payload, created_us, updated_us, version)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)`},
		{&s.update, s.write, `UPDATE objects SET workspace = ?, name = ?, scope = ?, seq = ?, labels = ?, payload = ?, updated_us = ?, version = version + 1
			WHERE kind = ? AND id = ? AND version = ?`},
		{&s.lookup, s.read, selectColumns + ` WHERE kind = ? AND id = ?`},
		{&s.find, s.read, selectColumns + ` WHERE kind = ? AND workspace = ? AND name = ?`},
	} {
		if *p.into, err = p.db.PrepareContext(ctx, p.text); err != nil {
			return err
		}
	}
	return nil
}

// Path returns the file of the database.
func (s *SQLite) Path() string { return s.path }

// Close ends all watches and releases the file.
func (s *SQLite) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.notify)
	s.mu.Unlock()
	var errs []error
	for _, stmt := range []*sql.Stmt{s.insert, s.update, s.lookup, s.find} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// lockFile makes sure that one process has the database. The lock dies with
// the process, so a killed gateway leaves nothing to clean up.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.New(fault.PermissionDenied, "cannot open %s", path).Cause(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fault.New(fault.Unavailable, "another gateway has the database %s open", path[:len(path)-len(".lock")]).
			Hint("stop it, or choose another database with --db-url").Cause(err)
	}
	return f, nil
}
