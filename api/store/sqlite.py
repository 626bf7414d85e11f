"""The embedded store: one SQLite file, WAL, `synchronous=FULL`.

All commits go through one writer thread, which takes whatever is waiting into one transaction
(group commit): the fsync is shared, each change still succeeds or fails by itself. Several
processes may share the file: `BEGIN IMMEDIATE` serialises their transactions, and a watcher
notices another process's commits by `PRAGMA data_version` (sqlite.org/pragma.html).

    meta(name, value)                                schema version
    log(rev, key, value, created, previous)          every change; value NULL: deletion
    head(key, rev)                                   the present state: the log row of each key
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from api.resources.errors import Cause, ConfigError, StorageError
from api.store.seam import Compacted, Event, Item, StoreConflict

SCHEMA_VERSION = 1
POLL_SECONDS = 0.05  # between looks for other processes' commits, while somebody watches
GROUP_MOST = 256
BUSY_SECONDS = 10.0

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE log (
    rev INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, value BLOB, created INTEGER NOT NULL, previous BLOB
);
CREATE TABLE head (key TEXT PRIMARY KEY, rev INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(slots=True)
class _Change:
    expect: Mapping[str, int]
    puts: Mapping[str, bytes | None]
    done: asyncio.Future[dict[str, int]]
    loop: asyncio.AbstractEventLoop


class SqliteStore:
    """`commit_delay` seconds are spent inside every write transaction (tests of races)."""

    def __init__(self, path: Path, *, commit_delay: float = 0.0) -> None:
        self.path = path
        self._delay = commit_delay
        self._reader = _open(path)
        self._changes: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._committed: set[asyncio.Event] = set()
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)
        self._thread.start()

    async def get(self, key: str) -> Item | None:
        row = self._reader.execute(
            "SELECT l.value, l.rev, l.created FROM head h JOIN log l USING (rev) WHERE h.key = ?",
            (key,),
        ).fetchone()
        return Item(key, *row) if row else None

    async def scan(self, prefix: str) -> tuple[int, list[Item]]:
        with _snapshot(self._reader):
            rows = self._reader.execute(
                "SELECT h.key, l.value, l.rev, l.created FROM head h JOIN log l USING (rev) "
                "WHERE h.key >= ? AND h.key < ? ORDER BY h.key",
                (prefix, prefix + "\U0010ffff"),
            ).fetchall()
            return _revision(self._reader), [Item(*row) for row in rows]

    async def commit(
        self, expect: Mapping[str, int], puts: Mapping[str, bytes | None]
    ) -> dict[str, int]:
        loop = asyncio.get_running_loop()
        change = _Change(expect, puts, loop.create_future(), loop)
        self._changes.put(change)
        revisions = await change.done
        for event in self._committed:
            event.set()
        return revisions

    async def watch(self, prefix: str, after: int) -> AsyncIterator[list[Event]]:
        committed = asyncio.Event()
        self._committed.add(committed)
        try:
            version = -1
            while True:
                (now,) = self._reader.execute("PRAGMA data_version").fetchone()
                if now != version or committed.is_set():
                    version = now
                    committed.clear()
                    events, after = self._since(prefix, after)
                    if events:
                        yield events
                        continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await committed.wait()
        finally:
            self._committed.discard(committed)

    def _since(self, prefix: str, after: int) -> tuple[list[Event], int]:
        with _snapshot(self._reader):
            (floor,) = self._reader.execute(
                "SELECT value FROM meta WHERE name = 'compacted'"
            ).fetchone()
            if after < floor:
                raise Compacted(f"cannot watch from revision {after}: compacted up to {floor}")
            rows = self._reader.execute(
                "SELECT key, rev, created, value, previous FROM log WHERE rev > ? ORDER BY rev",
                (after,),
            ).fetchall()
        last = rows[-1][1] if rows else after
        return [Event(*row) for row in rows if row[0].startswith(prefix)], last

    async def compact(self, before: int) -> None:
        def work() -> None:
            with contextlib.closing(_open(self.path)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    "UPDATE meta SET value = max(value, ?) WHERE name = 'compacted'", (before - 1,)
                )
                connection.execute(
                    "DELETE FROM log WHERE rev < ? AND rev NOT IN (SELECT rev FROM head)", (before,)
                )
                connection.execute("COMMIT")

        await asyncio.to_thread(work)

    async def close(self) -> None:
        self._changes.put(None)
        await asyncio.to_thread(self._thread.join)
        self._reader.close()

    # -- the writer thread -------------------------------------------------------------------------

    def _write(self) -> None:
        connection = _open(self.path)
        while True:
            group = [self._changes.get()]
            while len(group) < GROUP_MOST:
                try:
                    group.append(self._changes.get_nowait())
                except queue.Empty:
                    break
            changes = [change for change in group if change is not None]
            if changes:
                self._commit_group(connection, changes)
            if None in group:
                connection.close()
                return

    def _commit_group(self, connection: sqlite3.Connection, changes: list[_Change]) -> None:
        outcomes: list[dict[str, int] | StoreConflict | StorageError] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for change in changes:
                outcomes.append(_apply(connection, change))
            if self._delay:
                time.sleep(self._delay)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            outcomes = [_storage_error(error)] * len(changes)
        for change, outcome in zip(changes, outcomes, strict=True):
            with contextlib.suppress(RuntimeError):  # its loop has ended
                change.loop.call_soon_threadsafe(_settle, change.done, outcome)


def _settle(
    done: asyncio.Future[dict[str, int]], outcome: dict[str, int] | StoreConflict | StorageError
) -> None:
    if done.cancelled():
        return
    if isinstance(outcome, dict):
        done.set_result(outcome)
    else:
        done.set_exception(outcome)


def _apply(connection: sqlite3.Connection, change: _Change) -> dict[str, int] | StoreConflict:
    for key, revision in change.expect.items():
        row = connection.execute("SELECT rev FROM head WHERE key = ?", (key,)).fetchone()
        if (row[0] if row else 0) != revision:
            return StoreConflict(key)
    revisions: dict[str, int] = {}
    for key, value in change.puts.items():
        row = connection.execute(
            "SELECT l.value, l.created FROM head h JOIN log l USING (rev) WHERE h.key = ?", (key,)
        ).fetchone()
        previous, created = row or (None, 0)
        cursor = connection.execute(
            "INSERT INTO log (key, value, created, previous) VALUES (?, ?, ?, ?)",
            (key, value, created, previous),
        )
        revision = int(cursor.lastrowid or 0)
        if not created:
            connection.execute("UPDATE log SET created = ? WHERE rev = ?", (revision, revision))
        if value is None:
            connection.execute("DELETE FROM head WHERE key = ?", (key,))
        else:
            connection.execute(
                "INSERT INTO head (key, rev) VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET rev = excluded.rev",
                (key, revision),
            )
        revisions[key] = revision
    return revisions


def _storage_error(error: sqlite3.Error) -> StorageError:
    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return StorageError(f"cannot write to the store: {error}", full=full)


@contextlib.contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def _revision(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
    return int(row[0]) if row else 0


def _open(path: Path) -> sqlite3.Connection:
    """A connection to the file, made and checked; ConfigError says what to do about a bad one."""
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
        if not made:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES ('schema', ?)", (SCHEMA_VERSION,))
            connection.execute("INSERT INTO meta VALUES ('compacted', 0)")
        connection.execute("COMMIT")
        (version,) = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    except (sqlite3.Error, OSError) as error:
        hint = "restore it from a backup, or move it away to start empty"
        raise ConfigError(
            f"store {path}", [Cause("", f"cannot open it: {error}; {hint}")]
        ) from error
    if version != SCHEMA_VERSION:
        connection.close()
        problem = f"has schema {version}; this program knows {SCHEMA_VERSION}: run the newer one"
        raise ConfigError(f"store {path}", [Cause("", problem)])
    return connection
