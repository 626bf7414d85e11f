"""The tables of the embedded store, and what is asked of them.

    meta(name, value)                      schema version; the release that last opened it; the
                                           revision that is compacted up to; where the objects were
                                           moved to, if they were
    log(rev, key, value, created, prior)   every change; value NULL: deletion; prior: the change of
                                           the key that it took the place of, or 0
    head(key, rev)                         the present state: the log row of each key
    told(teller, text)                     what processes tell each other, beside all that

Of the log, compaction takes away what each row took the place of, and the deletions. So what came
before a change stays for as long as the change can be read by `since`.
"""

from __future__ import annotations

VERSION = 2
SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE log (
    rev INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, value BLOB, created INTEGER NOT NULL, prior INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE head (key TEXT PRIMARY KEY, rev INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('compacted', 0), ('schema', 2)
"""
# Schema 1 kept the bytes before each change in its row. The past is given up: watchers list again.
FROM_1 = """
DELETE FROM log WHERE rev NOT IN (SELECT rev FROM head);
ALTER TABLE log DROP COLUMN previous;
ALTER TABLE log ADD COLUMN prior INTEGER NOT NULL DEFAULT 0;
UPDATE meta SET value = (SELECT coalesce(max(seq), 0) FROM sqlite_sequence)
WHERE name = 'compacted';
UPDATE meta SET value = 2 WHERE name = 'schema'
"""
# a store of schema 2 may be from before it; who does not know it does not miss it
TOLD = "CREATE TABLE IF NOT EXISTS told (teller TEXT PRIMARY KEY, text BLOB) WITHOUT ROWID"
PROGRAM = "SELECT value FROM meta WHERE name = 'program'"
USED_BY = "INSERT OR REPLACE INTO meta VALUES ('program', ?)"
MOVED = "SELECT value FROM meta WHERE name = 'moved'"
HEADS = """
SELECT json_group_array(json_array(h.key, h.rev, l.created))
FROM json_each(?) k JOIN head h ON h.key = k.value JOIN log l USING (rev)
"""
SINCE = """
SELECT l.key, l.rev, l.created, l.value, p.value FROM log l LEFT JOIN log p ON p.rev = l.prior
WHERE l.rev > ? ORDER BY l.rev LIMIT ?
"""
