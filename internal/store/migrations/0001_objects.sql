CREATE TABLE objects (
	kind       TEXT    NOT NULL,
	id         TEXT    NOT NULL,
	workspace  TEXT    NOT NULL DEFAULT '',
	name       TEXT,
	scope      TEXT,
	seq        INTEGER,
	labels     TEXT    NOT NULL DEFAULT '{}',
	payload    BLOB    NOT NULL,
	created_us INTEGER NOT NULL,
	updated_us INTEGER NOT NULL,
	version    INTEGER NOT NULL,
	PRIMARY KEY (kind, id)
) WITHOUT ROWID;

CREATE UNIQUE INDEX objects_name  ON objects (kind, workspace, name) WHERE name IS NOT NULL;
CREATE UNIQUE INDEX objects_seq   ON objects (kind, scope, seq) WHERE scope IS NOT NULL AND seq IS NOT NULL;
CREATE INDEX        objects_order ON objects (kind, created_us, id);

CREATE TABLE changes (
	cursor  INTEGER PRIMARY KEY AUTOINCREMENT,
	kind    TEXT    NOT NULL,
	id      TEXT    NOT NULL,
	deleted INTEGER NOT NULL
);
