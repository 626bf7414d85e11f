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

from api.resources.errors import Cause, ConfigError, StorageError
from api.resources.versions import VERSION
from api.store import statements
from api.store.seam import Changes, Compacted, Event, Item, StoreConflict, another_schema

POLL_SECONDS = 0.05  # between looks for other processes' commits, while somebody waits for them
GROUP_MOST = 256  # changes in one transaction
READ_MOST = 1000  # changes in one answer of `since`
ROWS_MOST = 32  # in one statement
COMPACT_MOST = 1000  # changes compacted in one transaction
BUSY_SECONDS = 10.0
_ABSENT = (0, 0)  # revision and creation
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)  # of the file, of its index


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
        self._reader = _open(path, first, look=True)
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._committed = asyncio.Event()
        self._version, self._revision = -1, 0  # of `data_version`, and what the store was at then
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)
        self._thread.start()

    async def scan(self, prefix: str) -> tuple[int, list[Item]]:
        with _reading(), _snapshot(self._reader):
            rows = self._reader.execute(
                "SELECT h.key, l.value, l.rev, l.created FROM head h JOIN log l USING (rev) "
                "WHERE h.key >= ? AND h.key < ? ORDER BY h.key",
                (prefix, prefix + "\U0010ffff"),
            ).fetchall()
            return _last(self._reader), [Item(*row) for row in rows]

    async def since(self, after: int) -> Changes:
        if after == self._present():
            return Changes(after, [], more=False)
        with _reading(), _snapshot(self._reader):
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
                self._revision = _last(self._reader)
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
        connection = _open(self.path)
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
    first = _last(connection) + 1
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
    floor, target = _compacted(connection), min(target, _last(connection))
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


@contextlib.contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def _last(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
    return int(row[0]) if row else 0


def _compacted(connection: sqlite3.Connection) -> int:
    (floor,) = connection.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()
    return int(floor)


def _open(path: Path, first: int = 0, *, look: bool = False) -> sqlite3.Connection:
    """A connection to the file, made and checked, with `look` all of it; ConfigError says what to
    do about a bad one."""
    with contextlib.ExitStack() as stack:
        try:
            connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            stack.callback(connection.close)
            path.chmod(0o600)
            if look:
                _look(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
            if not made:
                _run(connection, statements.SCHEMA)
                if first:
                    _begin_at(connection, first)
            elif _schema(connection) == 1:
                _run(connection, statements.FROM_1)
            version, program = _schema(connection), _program(connection)
            if version == statements.VERSION:
                connection.execute(statements.TOLD)
                if program != VERSION:
                    connection.execute(statements.USED_BY, (VERSION,))
            connection.execute("COMMIT")
            moved = connection.execute(statements.MOVED).fetchone()
        except (sqlite3.Error, OSError) as error:
            raise _unusable(path, error) from error
        if moved:
            raise _elsewhere(path, moved[0])
        if version != statements.VERSION:
            problem = another_schema(version, statements.VERSION, program)
            raise ConfigError(f"store {path}", [Cause("", problem)])
        stack.pop_all()
        return connection


def _unusable(path: Path, error: Exception) -> ConfigError:
    hint = "restore it from a backup, or move it away to start empty"
    if getattr(error, "sqlite_errorcode", 0) in _NO_ROOM:
        hint = "its disk is full: make room, nothing of it is lost"
    return ConfigError(f"store {path}", [Cause("", f"cannot open it: {error}; {hint}")])


def _look(connection: sqlite3.Connection) -> None:
    """Damage anywhere is found when a store is opened, and not when that page is read."""
    (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        raise sqlite3.DatabaseError(f"it is damaged: {' '.join(said.split())}")


def _elsewhere(path: Path, place: str) -> ConfigError:
    return ConfigError(f"store {path}", [Cause("", f"its objects are elsewhere now: {place}")])


def read(path: Path) -> tuple[int, list[Item]]:
    """What the file holds at this moment, whoever uses it and whatever its schema; ConfigError."""
    try:
        with contextlib.closing(_existing(path, "ro")) as connection, _snapshot(connection):
            return _last(connection), _items(connection)
    except sqlite3.Error as error:
        raise ConfigError(f"store {path}", [Cause("", f"cannot read it: {error}")]) from error


@contextlib.contextmanager
def moving(path: Path, elsewhere: str) -> Iterator[tuple[int, list[Item]]]:
    """What the file holds, and nobody uses it: it is left as one whose objects are `elsewhere` if
    the block ends well. ConfigError if a program has it open, of whatever release."""
    try:
        with contextlib.closing(_existing(path, "rw")) as connection:
            (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            if mode != "delete":  # sqlite.org/wal.html: only the last who has it open can do that
                raise sqlite3.OperationalError("database is locked")
            connection.execute("BEGIN EXCLUSIVE")
            if moved := connection.execute(statements.MOVED).fetchone():
                raise _elsewhere(path, moved[0])
            yield _last(connection), _items(connection)
            connection.execute("INSERT INTO meta VALUES ('moved', ?)", (elsewhere,))
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        problem = f"cannot have it alone: {error}; stop the control plane that uses it"
        raise ConfigError(f"store {path}", [Cause("", problem)]) from error


def _existing(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None)


def _items(connection: sqlite3.Connection) -> list[Item]:
    rows = connection.execute(
        "SELECT h.key, l.value, l.rev, l.created FROM head h JOIN log l USING (rev) ORDER BY h.key"
    )
    return [Item(*row) for row in rows]


def _begin_at(connection: sqlite3.Connection, first: int) -> None:
    connection.execute("INSERT INTO sqlite_sequence VALUES ('log', ?)", (first,))
    connection.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (first,))


def _run(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        connection.execute(statement)


def _program(connection: sqlite3.Connection) -> str:
    """The release that last opened it; "": one that did not say."""
    found = connection.execute(statements.PROGRAM).fetchone()
    return str(found[0]) if found else ""


def _schema(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    return int(version)
