"""The store's contract, on SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.resources.errors import ConfigError, StorageError
from api.store import Compacted, Event, Item, StoreConflict, sqlite
from api.store.sqlite import SqliteStore


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
        assert await held(store, "/a") is None
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
        item = await held(store, "/k")
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
            after = 0
            while len(seen) < 41:
                await store.changed(after)
                after, events = await store.since(after)
                seen.extend(event for event in events if event.key.startswith("/w/"))

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
        item = await held(store, "/k")
        assert item is not None
        assert item.value == b"4"
        with pytest.raises(Compacted):
            await store.since(1)

    with_store(tmp_path, body)


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
        _, events = await store.since(first["/a"] - 1)
        assert [(e.key, e.value, e.previous) for e in events] == [
            ("/a", b"kept", b"9"),
            ("/a", b"now", b"kept"),
            ("/once/9", None, b"x"),
        ]
        assert rows(tmp_path) == 3 + 2, "and what the first and the last of them took the place of"
        await store.compact(revision + 1000)
        assert rows(tmp_path) == 1
        assert (await store.since(revision)) == (revision, []), "the present is never compacted"
        made = await store.commit({"/once/9": 0}, {"/once/9": b"again"})
        assert made["/once/9"] == revision + 1

    with_store(tmp_path, body)


def test_compaction_is_done_in_parts_and_others_commit_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "COMPACT_MOST", 10)
    monkeypatch.setattr(sqlite, "GROUP_MOST", 1)

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


def test_much_is_read_in_parts_without_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "READ_MOST", 7)

    async def body(store: SqliteStore) -> None:
        for number in range(20):
            await store.commit({}, {f"/{number}": b"x"})
        after, sizes = 0, []
        while events := (await store.since(after))[1]:
            assert [event.revision for event in events] == list(
                range(after + 1, after + 1 + len(events))
            )
            after = events[-1].revision
            sizes.append(len(events))
        assert sizes == [7, 7, 6]

    with_store(tmp_path, body)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.dictionaries(st.sampled_from("abcd"), st.one_of(st.none(), st.binary(max_size=3)),
                            min_size=1, max_size=3),
            st.integers(0, 30),
        ),
        max_size=25,
    )
)  # fmt: skip
def test_the_log_and_the_present_are_the_same_story(
    history: list[dict[str, bytes | None] | int],
) -> None:
    """Any commits and compactions: whoever reads the present once and then the log, from whatever
    revision is not compacted, has the present, and each change says what was before it."""

    async def body(store: SqliteStore) -> None:
        seen: dict[int, dict[str, bytes]] = {0: {}}  # by revision, everything
        floor = 0
        for step in history:
            if isinstance(step, int):
                await store.compact(step)
                floor = max(floor, min(step - 1, max(seen)))
                continue
            now = dict(seen[max(seen)])
            for key, revision in (await store.commit({}, step)).items():
                value = step[key]
                if value is None:
                    now.pop(key, None)
                else:
                    now[key] = value
                seen[revision] = dict(now)
        revision, items = await store.scan("")
        assert revision == max(seen)
        assert {item.key: item.value for item in items} == seen[revision]
        for start, held in seen.items():
            if start < floor:
                with pytest.raises(Compacted):
                    await store.since(start)
                continue
            copy = dict(held)
            for event in (await store.since(start))[1]:
                assert event.previous == copy.get(event.key)
                if event.value is None:
                    copy.pop(event.key, None)
                else:
                    copy[event.key] = event.value
                assert copy == seen[event.revision]
            assert copy == seen[revision]

    with tempfile.TemporaryDirectory() as place:
        with_store(Path(place), body)


def test_a_key_that_is_no_text_harms_nobody_else(tmp_path: Path) -> None:
    async def body(store: SqliteStore) -> None:
        with pytest.raises(StorageError):
            await store.commit({}, {"/\ud800": b"x"})
        await store.commit({"/a": 0}, {"/a": b"x"})

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
        _, events = await store.since(revision)
        assert [(e.value, e.created) for e in events] == [(b"three", 1 if used else made["/a"])]
        assert [e.previous for e in events] == ["two" if used else None]

    with_store(tmp_path, body)
    with_store(tmp_path, lambda store: store.compact(5))


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
