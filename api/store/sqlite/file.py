"""The file of the embedded store: made, checked, opened; read and left by whoever moves it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from api.resources.errors import Cause, ConfigError
from api.resources.versions import VERSION
from api.store.seam import Item, another_schema
from api.store.sqlite import statements

BUSY_SECONDS = 10.0
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)  # of the file, of its index


def opened(path: Path, first: int = 0, *, look: bool = False) -> sqlite3.Connection:
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
        with contextlib.closing(_existing(path, "ro")) as connection, snapshot(connection):
            return last(connection), _items(connection)
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
            yield last(connection), _items(connection)
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


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def last(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
    return int(row[0]) if row else 0
