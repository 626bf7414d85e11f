"""What api.store.seam promises, asked of SQLite and of a real etcd."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.stores import Backend

from api.resources.errors import StorageError
from api.store import Compacted, Event, Item, Store, StoreConflict
from api.store.etcd import following
from api.store.etcd import store as etcd_store
from api.store.sqlite import store as sqlite_store

SECONDS = 20.0


async def held(store: Store, key: str) -> Item | None:
    _, items = await store.scan(key)
    return next((item for item in items if item.key == key), None)


async def everything(store: Store, after: int) -> list[Event]:
    """All changes after `after`, in however many parts."""
    found: list[Event] = []
    while True:
        after, events, more = await store.since(after)
        found += events
        if not more:
            return found


def replayed(events: Sequence[Event], start: dict[str, bytes]) -> dict[str, bytes]:
    """What `start` becomes; each change says what was before it, and the revisions only grow."""
    copy, last = dict(start), -1
    for event in events:
        assert event.revision > last
        last = event.revision
        assert event.previous == copy.get(event.key), event
        if event.value is None:
            copy.pop(event.key)
        else:
            copy[event.key] = event.value
    return copy


def test_a_change_is_whole_or_nothing(backend: Backend) -> None:
    async def body(store: Store) -> None:
        revisions = await store.commit({"/a": 0, "/b": 0}, {"/a": b"1", "/b": b"2"})
        before = await store.scan("/")
        with pytest.raises(StoreConflict, match="/b"):
            await store.commit(
                {"/a": revisions["/a"], "/b": 0}, {"/a": b"x", "/b": b"y", "/c": b"z"}
            )
        assert await store.scan("/") == before
        assert [(item.key, item.value) for item in before[1]] == [("/a", b"1"), ("/b", b"2")]
        assert {item.key: item.revision for item in before[1]} == revisions
        await store.commit({"/a": revisions["/a"]}, {"/a": None})
        assert await held(store, "/a") is None
        again = await store.commit({"/a": 0}, {"/a": b"3"})
        assert again["/a"] > revisions["/b"]

    backend.run(body)


@pytest.mark.parametrize("wrong", [-1, 1, 1000])
def test_a_revision_that_is_not_that_of_the_key_is_a_conflict(backend: Backend, wrong: int) -> None:
    async def body(store: Store) -> None:
        made = await store.commit({}, {"/a": b"1"})
        moved = made["/a"] + wrong * store.spacing
        with pytest.raises(StoreConflict, match="/a "):
            await store.commit({"/a": moved}, {"/a": b"2"})
        with pytest.raises(StoreConflict, match="/b "):
            await store.commit({"/a": made["/a"], "/b": made["/a"]}, {"/b": b"2"})
        item = await held(store, "/a")
        assert item is not None
        assert item.value == b"1"

    backend.run(body)


def test_of_many_at_once_one_wins(backend: Backend) -> None:
    async def body(store: Store) -> None:
        stores = [store, backend.open(), backend.open()]

        async def attempt(number: int) -> bool:
            try:
                await stores[number % 3].commit({"/k": 0}, {"/k": str(number).encode()})
            except StoreConflict:
                return False
            return True

        won = await asyncio.gather(*(attempt(n) for n in range(60)))
        assert sum(won) == 1
        item = await held(store, "/k")
        assert item is not None
        assert item.value == str(won.index(True)).encode()

    backend.run(body)


def test_a_guard_key_lets_no_two_decisions_of_the_same_state_pass(backend: Backend) -> None:
    """Write skew: each writes a key that the other has not looked at; the guard is what both do."""

    async def body(store: Store) -> None:
        other = backend.open()
        guard = await store.commit({}, {"/guard": b""})

        async def decide(one: Store, key: str) -> bool:
            try:
                await one.commit({"/guard": guard["/guard"], key: 0}, {key: b"x", "/guard": b""})
            except StoreConflict:
                return False
            return True

        done = await asyncio.gather(*(decide(s, f"/{n}") for n, s in enumerate([store, other] * 8)))
        assert sum(done) == 1
        assert len((await store.scan("/"))[1]) == 2

    backend.run(body)


def test_what_was_acknowledged_is_there_after_a_restart(backend: Backend) -> None:
    async def write(store: Store) -> None:
        await asyncio.gather(*(store.commit({}, {f"/k{n}": b"v"}) for n in range(20)))

    async def read(store: Store) -> None:
        assert len((await store.scan("/k"))[1]) == 20
        assert len(await everything(store, 0)) == 20

    backend.run(write)
    backend.run(read)


def test_what_one_process_has_committed_the_others_read_at_once(backend: Backend) -> None:
    async def body(store: Store) -> None:
        other = backend.open()
        after, _ = await other.scan("/")
        for number in range(100):
            made = await store.commit({}, {"/k": b"%d" % number})
            after, events, more = await other.since(after)
            assert [(e.value, e.revision) for e in events] == [(b"%d" % number, made["/k"])]
            assert not more
            revision, _ = await store.scan("/none/")
            assert revision == after, "the same state has the same revision, whoever is asked"

    backend.run(body)


def test_changes_are_in_order_and_without_gaps_under_writers(backend: Backend) -> None:
    """Three processes write; two read, one of them coming back at the revision of every event."""

    async def body(store: Store) -> None:
        stores = [store, backend.open(), backend.open()]
        start, _ = await store.scan("/")
        done = False

        async def write(one: Store, seed: int) -> None:
            chance = random.Random(seed)  # noqa: S311 - a repeatable choice
            for number in range(60):
                keys = chance.sample("abcdefgh", 3)
                _, present = await one.scan("/")
                revisions = {item.key: item.revision for item in present}
                puts: dict[str, bytes | None] = {f"/{k}": b"%d %d" % (seed, number) for k in keys}
                gone = chance.choice(keys)
                if f"/{gone}" in revisions:
                    puts[f"/{gone}"] = None
                try:
                    await one.commit({key: revisions.get(key, 0) for key in puts}, puts)
                except StoreConflict:
                    continue

        async def read(one: Store, *, timid: bool) -> list[Event]:
            after, seen = start, []
            while True:
                last = done
                if not last:
                    waiting = asyncio.create_task(one.changed(after))
                    await asyncio.wait([waiting], timeout=0.1)
                    waiting.cancel()
                after, events, more = await one.since(after)
                if timid and events:  # as a watcher whose connection was lost after one event
                    events = events[:1]
                    after, more = events[0].revision, True
                seen += events
                if last and not more:
                    return seen

        readers = [
            asyncio.create_task(read(backend.open(), timid=timid)) for timid in (False, True)
        ]
        await asyncio.gather(*(write(one, seed) for seed, one in enumerate(stores)))
        done = True
        bold, timid = await asyncio.wait_for(asyncio.gather(*readers), SECONDS)
        assert len(bold) > 60
        assert bold == timid
        _, present = await store.scan("/")
        assert replayed(bold, {}) == {item.key: item.value for item in present}

    backend.run(body)


def test_a_scan_is_one_snapshot_under_writers(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_store, "PAGE", 3)

    async def body(store: Store) -> None:
        other, keys = backend.open(), [f"/k{n:02}" for n in range(20)]
        writing = True

        async def write() -> int:
            number = 0
            while writing:
                number += 1
                await other.commit({}, dict.fromkeys(keys, b"%d" % number))
            return number

        writer = asyncio.create_task(write())
        await other.changed(0)
        seen = set()
        async with asyncio.timeout(SECONDS):
            while len(seen) < 10:
                revision, items = await store.scan("/k")
                assert [item.key for item in items] == keys
                assert len({item.value for item in items}) == 1
                assert max(item.revision for item in items) <= revision
                seen.add(items[0].value)
                await asyncio.sleep(0)  # SQLite is read at once: the writer would not run
        writing = False
        assert await writer >= 10

    backend.run(body)


def test_changed_returns_for_what_others_commit(backend: Backend) -> None:
    async def body(store: Store) -> None:
        after, _ = await store.scan("/")
        waiting = asyncio.create_task(store.changed(after))
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
        await backend.open().commit({}, {"/a": b"x"})
        await asyncio.wait_for(waiting, SECONDS)

    backend.run(body)


def test_a_compacted_revision_is_said_and_the_present_stays(backend: Backend) -> None:
    async def body(store: Store) -> None:
        other = backend.open()
        first = await store.commit({}, {"/k": b"first", "/gone": b"x"})
        await store.commit({}, {"/gone": None})
        for number in range(5):
            last = await store.commit({}, {"/k": b"%d" % number})
        await store.compact(last["/k"])
        item = await held(store, "/k")
        assert item is not None
        assert item.value == b"4"
        for one in (store, backend.open()):
            with pytest.raises(Compacted):
                await one.since(first["/k"])
            _, events, _ = await one.since(last["/k"] - 1)
            assert [(e.value, e.previous) for e in events] == [(b"4", b"3")]
        await other.compact(last["/k"])  # done already
        await other.compact(last["/k"] + 1000 * store.spacing)
        revision, _ = await store.scan("/")
        assert await other.since(revision) == (revision, [], False), "the present never is"
        made = await store.commit({"/gone": 0}, {"/gone": b"again"})
        assert made["/gone"] > revision
        assert [e.previous for e in await everything(other, revision)] == [None]

    backend.run(body)


def test_compaction_leaves_what_can_still_be_read(backend: Backend) -> None:
    async def body(store: Store) -> None:
        for number in range(10):
            await store.commit({}, {"/a": b"%d" % number, f"/once/{number}": b"x"})
        await store.commit({}, {f"/once/{number}": None for number in range(9)})
        first = await store.commit({}, {"/a": b"kept"})
        await store.commit({}, {"/a": b"now"})
        await store.commit({}, {"/once/9": None})
        await store.compact(first["/a"])
        for one in (store, backend.open()):
            events = await everything(one, first["/a"] - 1)
            assert [(e.key, e.value, e.previous) for e in events] == [
                ("/a", b"kept", b"9"),
                ("/a", b"now", b"kept"),
                ("/once/9", None, b"x"),
            ]

    backend.run(body)


def test_much_is_read_in_parts_without_gaps(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "READ_MOST", 7)
    monkeypatch.setattr(following, "READ_MOST", 7)

    async def body(store: Store) -> None:
        begin, _ = await store.scan("/")
        for number in range(20):
            await store.commit({}, {f"/{number}": b"x"})
        for one in (store, backend.open()):  # out of memory, out of the log
            after, parts, more = begin, [], True
            while more:
                after, events, more = await one.since(after)
                parts.append([event.key for event in events])
            assert [len(part) for part in parts if part] == [7, 7, 6]
            assert [key for part in parts for key in part] == [f"/{n}" for n in range(20)]

    backend.run(body)


def test_big_values_and_many_keys(backend: Backend) -> None:
    async def body(store: Store) -> None:
        big = bytes(range(256)) * 4096  # 1 MiB: what a request may have
        made = await store.commit({"/big": 0}, {"/big": big})
        for start in range(0, 3000, 100):
            await store.commit({}, {f"/many/{start + n:05}": b"%d" % n for n in range(100)})
        _, items = await store.scan("/many/")
        assert [item.key for item in items] == [f"/many/{n:05}" for n in range(3000)]
        reader = backend.open()
        found = await everything(reader, made["/big"] - 1)
        assert found[0].value == big
        assert len(found) == 3001
        await store.commit({"/big": made["/big"]}, {"/big": big[1:]})
        assert [e.previous == big for e in await everything(reader, found[-1].revision)] == [True]

    backend.run(body)


def test_a_key_that_is_no_text_harms_nobody_else(backend: Backend) -> None:
    async def body(store: Store) -> None:
        with pytest.raises(StorageError):
            await store.commit({}, {"/\ud800": b"x"})
        await store.commit({"/a": 0}, {"/a": b"x"})

    backend.run(body)


def test_a_new_store_begins_where_it_is_told_to(backend: Backend) -> None:
    """So that a revision of the store that was there before is none of its own."""

    async def body(_: Store) -> None:
        backend.fresh()
        store = backend.open(first=1 << 50)
        revision, _ = await store.scan("/")
        assert revision >= 1 << 50
        assert (await store.since(revision)).events == []
        made = await store.commit({"/a": 0}, {"/a": b"x"})
        assert made["/a"] > revision
        again = backend.open(first=1 << 51)  # no more asked
        assert (await again.scan("/"))[1] == (await store.scan("/"))[1]
        for one in (store, again):
            assert [e.key for e in await everything(one, revision)] == ["/a"]
            for old in (0, 17, (1 << 50) - 1):
                with pytest.raises(Compacted):
                    await one.since(old)
            with pytest.raises(StoreConflict):
                await one.commit({"/b": 17}, {"/b": b"x"})

    backend.run(body)


def test_what_processes_tell_each_other_is_beside_the_objects(backend: Backend) -> None:
    async def body(store: Store) -> None:
        other = backend.open()
        await store.commit({}, {"/a": b"1"})
        before = await store.scan("/")
        await store.tell("one", b"x" * 100_000)
        await other.tell("two", b"y")
        await store.tell("one", b"z")
        for reader in (store, other, backend.open()):
            assert await reader.told() == {"one": b"z", "two": b"y"}
            assert await reader.scan("/") == before
            assert (await reader.since(before[0])).events == []
        await other.tell("two", b"")
        assert await store.told() == {"one": b"z"}
        await store.commit({}, {"/b": b"2"})
        assert [e.key for e in await everything(other, before[0])] == ["/b"]

    backend.run(body)


STEPS = st.lists(
    st.one_of(
        st.dictionaries(
            st.sampled_from("abcd"), st.one_of(st.none(), st.binary(max_size=3)),
            min_size=1, max_size=3,
        ),
        st.integers(0, 30),
    ),
    max_size=12,
)  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_the_log_and_the_present_are_the_same_story(
    backend: Backend, history: list[dict[str, bytes | None] | int]
) -> None:
    """Any commits and compactions: whoever reads the present once and then the log, from whatever
    revision is not compacted, has the present, and each change says what was before it."""
    backend.fresh()

    async def body(store: Store) -> None:
        start, _ = await store.scan("")
        seen: list[tuple[int, dict[str, bytes]]] = [(start, {})]  # by revision, everything
        floor = 0
        for step in history:
            if isinstance(step, int):
                before = seen[min(step, len(seen) - 1)][0]
                await store.compact(before)
                floor = max(floor, before - 1)
                continue
            now = dict(seen[-1][1])
            puts = {k: v for k, v in step.items() if v is not None or k in now}
            made = await store.commit({}, puts) if puts else {}
            for key, revision in sorted(made.items(), key=lambda entry: entry[1]):
                value = puts[key]
                if value is None:
                    now.pop(key)
                else:
                    now[key] = value
                seen.append((revision, dict(now)))
        revision, items = await store.scan("")
        assert revision >= seen[-1][0]
        assert {item.key: item.value for item in items} == seen[-1][1]
        other = backend.open()  # it reads the log; etcd has it wait a tenth of a second each time
        for one, every in ((store, 1), (other, 3)):
            for start, present in seen[::every]:
                try:
                    events = await everything(one, start)
                except Compacted:
                    assert start < floor
                    continue
                assert replayed(events, present) == seen[-1][1]
                assert [e.revision for e in events] == [r for r, _ in seen if r > start]

    backend.run(body)
