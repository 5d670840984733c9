package store

import (
	"context"
	"database/sql"
	"errors"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"openshell.dev/openshell/internal/fault"
)

// storageFault turns an error of the driver into a sentence for a person.
func storageFault(doing string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, sql.ErrConnDone) {
		return fault.New(fault.Unavailable, "the database is closed").Cause(err)
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return fault.New(fault.Internal, "%s: the database refused", doing).Cause(err)
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fault.New(fault.Exhausted, "%s: the disk with the database is full", doing).
			Hint("free some space, then try again; nothing was lost").Cause(err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fault.New(fault.Unavailable, "%s: the database is locked by another process", doing).
			Hint("stop the other program that has the database open").Cause(err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fault.New(fault.Internal, "%s: the database file is damaged", doing).
			Hint("move the file away and restore a backup made with an online backup").Cause(err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN:
		return fault.New(fault.PermissionDenied, "%s: the database file cannot be opened for writing", doing).Cause(err)
	case sqlite3.SQLITE_IOERR:
		return fault.New(fault.Internal, "%s: the disk with the database answers with errors", doing).Cause(err)
	}
	return fault.New(fault.Internal, "%s: the database refused", doing).Cause(err)
}

// unique reports whether err says that a unique rule was broken.
func unique(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code()
	return code == sqlite3.SQLITE_CONSTRAINT_UNIQUE || code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
}
