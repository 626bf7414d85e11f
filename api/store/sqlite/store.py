"""The embedded store: one SQLite file, WAL, `synchronous=FULL`.

All commits go through one writer thread, which takes whatever is waiting into one transaction
(group commit): the fsync is shared, each change still succeeds or fails by itself. Several
processes may share the file: `BEGIN IMMEDIATE` serialises their transactions, and `PRAGMA
data_version` (sqlite.org/pragma.html) says in a microsecond whether anybody has committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from api.resources.errors import StorageError
from api.store.seam import Changes, Compacted, Event, Item, StoreConflict
from api.store.sqlite import statements
from api.store.sqlite.file import last, opened, snapshot

POLL_SECONDS = 0.05  # between looks for other processes' commits, while somebody waits for them
GROUP_MOST = 256  # changes in one transaction
READ_MOST = 1000  # changes in one answer of `since`
ROWS_MOST = 32  # in one statement
COMPACT_MOST = 1000  # changes compacted in one transaction
_ABSENT = (0, 0)  # revision and creation


@dataclass(slots=True)
class _Work:
    """Something for the writer thread to do within a transaction; `settle` takes its outcome."""

    do: Callable[[sqlite3.Connection], object]
    done: asyncio.Future[object]
    loop: asyncio.AbstractEventLoop


class SqliteStore:
    """`first` is the least revision of a store that is new. `commit_delay` seconds are spent inside
    every write transaction (tests of races)."""

    spacing = 1

    def __init__(self, path: Path, *, first: int = 0, commit_delay: float = 0.0) -> None:
        self.path = path
        self._delay = commit_delay
        self._reader = opened(path, first, look=True)
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._committed = asyncio.Event()
        self._version, self._revision = -1, 0  # of `data_version`, and what the store was at then
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)
        self._thread.start()

    async def scan(self, prefix: str) -> tuple[int, list[Item]]:
        with _reading(), snapshot(self._reader):
            rows = self._reader.execute(
                "SELECT h.key, l.value, l.rev, l.created FROM head h JOIN log l USING (rev) "
                "WHERE h.key >= ? AND h.key < ? ORDER BY h.key",
                (prefix, prefix + "\U0010ffff"),
            ).fetchall()
            return last(self._reader), [Item(*row) for row in rows]

    async def since(self, after: int) -> Changes:
        if after == self._present():
            return Changes(after, [], more=False)
        with _reading(), snapshot(self._reader):
            floor = _compacted(self._reader)
            if after < floor:
                raise Compacted(f"cannot watch from revision {after}: compacted up to {floor}")
            rows = self._reader.execute(statements.SINCE, (after, READ_MOST)).fetchall()
        events = [Event(*row) for row in rows]
        return Changes(rows[-1][1] if rows else after, events, len(rows) == READ_MOST)

    async def changed(self, after: int) -> None:
        while True:
            self._committed.clear()
            if self._present() > after:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._committed.wait()

    def _present(self) -> int:
        """The store's revision. The version is read first: a commit in between is seen next."""
        try:
            (version,) = self._reader.execute("PRAGMA data_version").fetchone()
            if version != self._version:
                self._revision = last(self._reader)
                self._version = version
        except sqlite3.Error as error:
            raise _storage_error(error, "read") from error
        return self._revision

    async def commit(
        self, expect: Mapping[str, int], puts: Mapping[str, bytes | None]
    ) -> dict[str, int]:
        revisions = await self._do(lambda connection: _apply(connection, expect, puts))
        self._committed.set()
        assert isinstance(revisions, dict)
        return revisions

    async def tell(self, teller: str, text: bytes) -> None:
        await self._do(lambda connection: _tell(connection, teller, text))

    async def told(self) -> dict[str, bytes]:
        with _reading():
            return dict(self._reader.execute("SELECT teller, text FROM told").fetchall())

    async def compact(self, before: int) -> None:
        while await self._do(lambda connection: _compact(connection, before - 1)):
            pass

    async def _do(self, do: Callable[[sqlite3.Connection], object]) -> object:
        loop = asyncio.get_running_loop()
        work = _Work(do, loop.create_future(), loop)
        self._work.put(work)
        return await work.done

    async def close(self) -> None:
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)
        self._reader.close()

    # -- the writer thread -------------------------------------------------------------------------

    def _write(self) -> None:
        connection = opened(self.path)
        while True:
            group = [self._work.get()]
            while len(group) < GROUP_MOST:
                try:
                    group.append(self._work.get_nowait())
                except queue.Empty:
                    break
            if works := [work for work in group if work is not None]:
                self._do_group(connection, works)
            if None in group:
                connection.close()
                return

    def _do_group(self, connection: sqlite3.Connection, works: list[_Work]) -> None:
        outcomes: list[object] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for work in works:
                outcomes.append(work.do(connection))
            if self._delay:
                time.sleep(self._delay)
            connection.execute("COMMIT")
        except (sqlite3.Error, ValueError) as error:  # ValueError: a key that is no text
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            outcomes = [_storage_error(error, "write to")] * len(works)
        for work, outcome in zip(works, outcomes, strict=True):
            with contextlib.suppress(RuntimeError):  # its loop has ended
                work.loop.call_soon_threadsafe(_settle, work.done, outcome)


def _settle(done: asyncio.Future[object], outcome: object) -> None:
    if done.cancelled():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


def _apply(
    connection: sqlite3.Connection, expect: Mapping[str, int], puts: Mapping[str, bytes | None]
) -> dict[str, int] | StoreConflict:
    """The new revisions, or the conflict, with nothing done.

    In few statements, whatever the number of keys: each gives up the interpreter's lock and takes
    it again, which costs more than the statement when the service has requests to look at.
    """
    keys = json.dumps([*expect, *puts.keys() - expect.keys()])
    (found,) = connection.execute(statements.HEADS, (keys,)).fetchone()
    held = {key: (rev, created) for key, rev, created in json.loads(found)}
    for key, revision in expect.items():
        if held.get(key, _ABSENT)[0] != revision:
            return StoreConflict(key)
    first = last(connection) + 1
    revisions = dict(zip(puts, range(first, first + len(puts)), strict=True))
    changes = list(revisions.items())
    for start in range(0, len(changes), ROWS_MOST):
        part = changes[start : start + ROWS_MOST]
        rows: list[object] = []
        heads: list[object] = []
        for key, rev in part:
            prior, created = held.get(key, _ABSENT)
            rows += (rev, key, puts[key], created or rev, prior)
            if puts[key] is not None:
                heads += (key, rev)
        _insert(connection, "INSERT INTO log", 5, rows)
        _insert(connection, "INSERT OR REPLACE INTO head", 2, heads)
    gone = [(key,) for key, value in puts.items() if value is None]
    connection.executemany("DELETE FROM head WHERE key = ?", gone)
    return revisions


def _insert(connection: sqlite3.Connection, into: str, width: int, values: list[object]) -> None:
    if values:
        row = f"({', '.join('?' * width)})"
        connection.execute(f"{into} VALUES {', '.join([row] * (len(values) // width))}", values)


def _tell(connection: sqlite3.Connection, teller: str, text: bytes) -> None:
    if text:
        connection.execute("INSERT OR REPLACE INTO told VALUES (?, ?)", (teller, text))
    else:
        connection.execute("DELETE FROM told WHERE teller = ?", (teller,))


def _compact(connection: sqlite3.Connection, target: int) -> bool:
    """Compact a part of what lies between the last compaction and `target`; whether more is left.

    A row that was superseded, or a deletion: each is found from the row that did it, so the work
    is that of the changes since the last time, not of the whole store.
    """
    floor, target = _compacted(connection), min(target, last(connection))
    part = connection.execute(
        "SELECT rev FROM log WHERE rev > ? AND rev <= ? ORDER BY rev LIMIT 1 OFFSET ?",
        (floor, target, COMPACT_MOST - 1),
    ).fetchone()
    end = part[0] if part else target
    if end <= floor:
        return False
    connection.execute(
        "DELETE FROM log WHERE rev IN (SELECT prior FROM log WHERE rev > ? AND rev <= ?)",
        (floor, end),
    )
    connection.execute("DELETE FROM log WHERE rev > ? AND rev <= ? AND value IS NULL", (floor, end))
    connection.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (end,))
    return end < target


def _storage_error(error: Exception, doing: str) -> StorageError:
    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return StorageError(f"cannot {doing} the store: {error}", full=full)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _storage_error(error, "read") from error


def _compacted(connection: sqlite3.Connection) -> int:
    (floor,) = connection.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()
    return int(floor)
