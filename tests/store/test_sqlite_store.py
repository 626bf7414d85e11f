"""What is SQLite's own; the contract that it shares is in test_contract."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from api.resources.errors import ConfigError
from api.store import Compacted, Item
from api.store.sqlite import store as sqlite_store
from api.store.sqlite.store import SqliteStore


def with_store(path: Path, body: Callable[[SqliteStore], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = SqliteStore(path / "s.db")
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(whole())


async def held(store: SqliteStore, key: str) -> Item | None:
    _, items = await store.scan("/")
    return next((item for item in items if item.key == key), None)


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    async def write(store: SqliteStore) -> None:
        await asyncio.gather(*(store.commit({}, {f"/k{n}": b"v"}) for n in range(20)))

    async def read(store: SqliteStore) -> None:
        assert len((await store.scan("/k"))[1]) == 20

    with_store(tmp_path, write)
    with_store(tmp_path, read)
    assert (tmp_path / "s.db").stat().st_mode & 0o777 == 0o600


def rows(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path / "s.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM log").fetchone()
    return int(count)


def test_compaction_leaves_the_present_and_what_can_still_be_read(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        for number in range(10):
            await store.commit({}, {"/a": b"%d" % number, f"/once/{number}": b"x"})
        await store.commit({}, {f"/once/{number}": None for number in range(9)})
        first = await store.commit({}, {"/a": b"kept"})
        await store.commit({}, {"/a": b"now", "/once/9": None})
        await store.compact(first["/a"])
        revision, items = await store.scan("/")
        assert [(item.key, item.value) for item in items] == [("/a", b"now")]
        _, events, _ = await store.since(first["/a"] - 1)
        assert [(e.key, e.value, e.previous) for e in events] == [
            ("/a", b"kept", b"9"),
            ("/a", b"now", b"kept"),
            ("/once/9", None, b"x"),
        ]
        assert rows(tmp_path) == 3 + 2, "and what the first and the last of them took the place of"
        await store.compact(revision + 1000)
        assert rows(tmp_path) == 1
        assert (await store.since(revision)) == (revision, [], False), (
            "the present is never compacted"
        )
        made = await store.commit({"/once/9": 0}, {"/once/9": b"again"})
        assert made["/once/9"] == revision + 1

    with_store(tmp_path, body)


def test_compaction_is_done_in_parts_and_others_commit_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "COMPACT_MOST", 10)
    monkeypatch.setattr(sqlite_store, "GROUP_MOST", 1)

    async def body(store: SqliteStore) -> None:
        for number in range(200):
            last = await store.commit({}, {"/k": b"%d" % number})
        compacting = asyncio.create_task(store.compact(last["/k"] + 1))
        during = 0
        while not compacting.done():
            await store.commit({}, {"/other": b"x"})
            during += 1
        assert during >= 10
        await compacting
        assert rows(tmp_path) == 1 + during

    with_store(tmp_path, body)


SCHEMA_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE log (
    rev INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL, value BLOB, created INTEGER NOT NULL, previous BLOB
);
CREATE TABLE head (key TEXT PRIMARY KEY, rev INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema', 1), ('compacted', 0);
INSERT INTO log VALUES (1, '/a', 'one', 1, NULL), (2, '/b', 'x', 2, NULL),
    (3, '/a', 'two', 1, 'one'), (4, '/b', NULL, 2, 'x');
INSERT INTO head VALUES ('/a', 3);
"""


@pytest.mark.parametrize("used", [True, False])
def test_a_store_of_the_schema_before_is_taken_over(tmp_path: Path, used: bool) -> None:
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.executescript(SCHEMA_1 if used else SCHEMA_1.partition("INSERT INTO log")[0])
    connection.close()

    async def body(store: SqliteStore) -> None:
        revision, items = await store.scan("/")
        assert revision == (4 if used else 0)
        assert [(i.key, i.revision, i.created) for i in items] == [("/a", 3, 1)] * used
        if used:
            with pytest.raises(Compacted):
                await store.since(3)
        made = await store.commit({"/a": 3 * used}, {"/a": b"three"})
        assert made["/a"] == revision + 1
        _, events, _ = await store.since(revision)
        assert [(e.value, e.created) for e in events] == [(b"three", 1 if used else made["/a"])]
        assert [e.previous for e in events] == ["two" if used else None]

    with_store(tmp_path, body)
    with_store(tmp_path, lambda store: store.compact(5))


def test_a_corrupt_file_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(ConfigError, match="restore it from a backup"):
        SqliteStore(tmp_path / "s.db")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8])
def test_a_server_does_not_start_on_a_file_that_is_damaged_inside(
    tmp_path: Path, part: float
) -> None:
    """One page of many is overwritten, as by a disk; nothing is served, and nothing is changed."""
    path = tmp_path / "routed.db"

    async def body() -> None:
        store = SqliteStore(path)
        for number in range(50):
            await store.commit({}, {f"/a/{number}-{one}": b"x" * 500 for one in range(20)})
        await store.close()

    asyncio.run(body())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * part) // 4096 * 4096)
        file.write(b"\xa5" * 4096)
    damaged = path.read_bytes()
    ran = subprocess.run(
        [sys.executable, "-m", "routed.main", "server", "--data-dir", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 2, ran.stderr
    assert f"store {path}" in ran.stderr
    assert "restore it from a backup" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert path.read_bytes() == damaged


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    async def nothing(store: SqliteStore) -> None:
        pass

    with_store(tmp_path, nothing)
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    connection.commit()
    connection.close()
    with pytest.raises(ConfigError, match="schema 99"):
        SqliteStore(tmp_path / "s.db")
