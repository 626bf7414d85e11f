"""The store's contract, on SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from api.resources.errors import ConfigError
from api.store import Compacted, Event, StoreConflict
from api.store.sqlite import SqliteStore


def with_store(path: Path, body: Callable[[SqliteStore], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = SqliteStore(path / "s.db")
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(whole())


def test_a_change_is_whole_or_nothing(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        revisions = await store.commit({"/a": 0, "/b": 0}, {"/a": b"1", "/b": b"2"})
        with pytest.raises(StoreConflict, match="/b"):
            await store.commit(
                {"/a": revisions["/a"], "/b": 0}, {"/a": b"x", "/b": b"y", "/c": b"z"}
            )
        _, items = await store.scan("/")
        assert [(item.key, item.value) for item in items] == [("/a", b"1"), ("/b", b"2")]
        await store.commit({"/a": revisions["/a"]}, {"/a": None})
        assert await store.get("/a") is None
        again = await store.commit({"/a": 0}, {"/a": b"3"})
        assert again["/a"] > revisions["/b"]

    with_store(tmp_path, body)


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        async def attempt(number: int) -> bool:
            try:
                await store.commit({"/k": 0}, {"/k": str(number).encode()})
            except StoreConflict:
                return False
            return True

        won = await asyncio.gather(*(attempt(n) for n in range(50)))
        assert sum(won) == 1
        item = await store.get("/k")
        assert item is not None
        assert item.value == str(won.index(True)).encode()

    with_store(tmp_path, body)


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    async def write(store: SqliteStore) -> None:
        await asyncio.gather(*(store.commit({}, {f"/k{n}": b"v"}) for n in range(20)))

    async def read(store: SqliteStore) -> None:
        assert len((await store.scan("/k"))[1]) == 20

    with_store(tmp_path, write)
    with_store(tmp_path, read)
    assert (tmp_path / "s.db").stat().st_mode & 0o777 == 0o600


def test_a_watch_is_in_order_without_gaps_also_of_another_process(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        other = SqliteStore(tmp_path / "s.db")  # as another process: connections of its own
        seen: list[Event] = []

        async def watch() -> None:
            async for events in store.watch("/w/", 0):
                seen.extend(events)
                if len(seen) >= 41:
                    return

        watching = asyncio.create_task(watch())
        for number in range(20):
            await store.commit({}, {f"/w/{number}": b"one", "/elsewhere": b"x"})
            await other.commit({}, {f"/w/{number}": b"two"})
        await other.commit({}, {"/w/0": None})
        await asyncio.wait_for(watching, 10)
        revisions = [event.revision for event in seen]
        assert revisions == sorted(set(revisions))
        assert [e.value for e in seen[:2]] == [b"one", b"two"]
        assert seen[1].previous == b"one"
        assert seen[-1].value is None
        await other.close()

    with_store(tmp_path, body)


def test_a_compacted_revision_is_said_and_the_present_stays(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        for number in range(5):
            last = await store.commit({}, {"/k": str(number).encode()})
        await store.compact(last["/k"])
        item = await store.get("/k")
        assert item is not None
        assert item.value == b"4"
        with pytest.raises(Compacted):
            await anext(store.watch("/k", 1))

    with_store(tmp_path, body)


def test_a_corrupt_file_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(ConfigError, match="restore it from a backup"):
        SqliteStore(tmp_path / "s.db")


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
