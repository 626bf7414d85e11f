"""Watches out of the copy in memory: complete, in order, and only what concerns the watcher."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.resources.errors import StorageError
from api.resources.registry import KINDS
from api.service import collection, feeds
from api.service.codec import encoded
from api.service.feeds import Telling
from api.service.mirror import Mirror
from api.service.selection import Selection, selection
from api.service.watch import stream
from api.store import Changes
from api.store.sqlite.store import SqliteStore

KIND = KINDS["workloads"]
SECONDS = 10.0  # for what must come


class Slow(SqliteStore):
    """Others run before it reads, and before it answers: as over a network."""

    before: dict[int, Callable[[], Awaitable[Any]]] = {}  # noqa: RUF012 - set by each test

    async def since(self, after: int) -> Changes:
        await asyncio.sleep(0)
        if meanwhile := self.before.pop(after, None):
            await meanwhile()
        found = await super().since(after)
        await asyncio.sleep(0)
        return found


def with_mirror(
    path: Path,
    body: Callable[[SqliteStore, Mirror], Awaitable[None]],
    store_class: type[SqliteStore] = SqliteStore,
) -> None:
    async def whole() -> None:
        store = store_class(path / "s.db")
        copy = Mirror(store)
        try:
            await body(store, copy)
        finally:
            await copy.close()
            await store.close()

    asyncio.run(whole())


def workload(name: str, node: str, label: str = "") -> dict[str, bytes | None]:
    document = {
        "apiVersion": "routed.dev/v1",
        "kind": "Workload",
        "metadata": {"name": name, "labels": {"l": label} if label else {}},
        "spec": {"node": node},
    }
    return {f"/workloads/{name}": encoded(document)}


def selected(fields: str = "", labels: str = "") -> Selection:
    return selection(KIND, labels, fields)


def lines(
    copy: Mirror, wanted: Selection, after: int | None, **options: Any
) -> AsyncIterator[bytes]:
    told: dict[str, Any] = {"bookmarks": False, "mark_initial": False, "seconds": None, **options}
    return stream(copy, KIND, wanted, after=after, **told)


def short(part: bytes) -> list[tuple[str, str, int]]:
    """Type, name and revision of each line."""
    found = []
    for line in part.splitlines():
        event = json.loads(line)
        metadata = event["object"]["metadata"]
        found.append((event["type"], metadata.get("name", ""), int(metadata["resourceVersion"])))
    return found


async def until(count: int, parts: AsyncIterator[bytes]) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    async with asyncio.timeout(SECONDS):
        while len(found) < count:
            found += short(await anext(parts))
    return found


Step = tuple[str, str | None, str]  # name, node or gone, label
STEPS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.one_of(st.none(), st.sampled_from(["h1", "h2"])),
        st.sampled_from(["", "x", "y"]),
    ),
    min_size=1,
    max_size=14,
)
WANTED = [
    ("", "", lambda name, node, label: True),
    ("spec.node=h1", "", lambda name, node, label: node == "h1"),
    ("metadata.name=a", "", lambda name, node, label: name == "a"),
    ("", "l=x", lambda name, node, label: label == "x"),
    ("spec.node=h1", "l=x", lambda name, node, label: node == "h1" and label == "x"),
    ("spec.node!=h1", "", lambda name, node, label: node != "h1"),
    ("metadata.name=a,spec.node=h2", "", lambda name, node, label: (name, node) == ("a", "h2")),
]


def expected(
    steps: list[Step], revisions: list[int], wanted: Any
) -> dict[int, tuple[str, str, int]]:
    """What a watcher is to be told, by revision: worked out from the steps alone."""
    held: dict[str, tuple[str, str]] = {}
    told = {}
    for (name, node, label), revision in zip(steps, revisions, strict=True):
        was = name in held and wanted(name, *held[name])
        is_now = node is not None and wanted(name, node, label)
        if node is None:
            held.pop(name, None)
        else:
            held[name] = (node, label)
        if is_now:
            told[revision] = ("MODIFIED" if was else "ADDED", name, revision)
        elif was:
            told[revision] = ("DELETED", name, revision)
    return told


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(0, len(WANTED) - 1))
def test_whoever_watches_from_wherever_is_told_the_same(steps: list[Step], which: int) -> None:
    """Live, and resumed at every revision; both out of another process's commits as well."""
    fields, labels, wanted = WANTED[which]

    async def body(store: SqliteStore, copy: Mirror) -> None:
        other = SqliteStore(store.path)
        live = lines(copy, selected(fields, labels), None, mark_initial=True)
        assert [kind for kind, _, _ in short(await anext(live))] == ["BOOKMARK"]
        revisions = []
        for number, (name, node, label) in enumerate(steps):
            puts = {f"/workloads/{name}": None} if node is None else workload(name, node, label)
            made = await (store, other)[number % 2].commit({}, puts)
            revisions.append(made[f"/workloads/{name}"])
        told = expected(steps, revisions, wanted)
        assert await until(len(told), live) == list(told.values())
        for after in (0, *revisions):
            if after == 0:  # 0 means the present state
                continue
            resumed = lines(copy, selected(fields, labels), after, seconds=0.001)
            found = [event async for part in resumed for event in short(part)]
            assert found == [line for revision, line in told.items() if revision > after]
        await live.aclose()  # type: ignore[attr-defined]
        await other.close()

    with tempfile.TemporaryDirectory() as place:
        with_mirror(Path(place), body)


def test_the_present_comes_first_and_nothing_is_lost_behind_it(tmp_path: Path) -> None:
    async def body(store: SqliteStore, copy: Mirror) -> None:
        for number in range(500):
            await store.commit({}, workload(f"w{number:03}", "h1"))
        watching = lines(copy, selected(), None, bookmarks=True)
        found = short(await anext(watching))
        await store.commit({}, workload("w000", "h1", "x"))
        found += await until(501 - len(found), watching)
        assert [name for _, name, _ in found] == [*(f"w{n:03}" for n in range(500)), ""]
        assert found[-1] == ("BOOKMARK", "", 500)
        assert await until(1, watching) == [("MODIFIED", "w000", 501)]
        await watching.aclose()  # type: ignore[attr-defined]

    with_mirror(tmp_path, body)


def test_each_change_is_told_once_whoever_reads_it_first(tmp_path: Path) -> None:
    async def body(store: SqliteStore, copy: Mirror) -> None:
        await store.commit({}, workload("first", "h1"))
        await copy.fresh()
        live, resumed = lines(copy, selected(), None), lines(copy, selected(), 1)
        found = asyncio.create_task(until(21, live)), asyncio.create_task(until(20, resumed))
        for number in range(20):
            await store.commit({}, workload(f"w{number}", "h1"))
            await asyncio.gather(*(copy.fresh() for _ in range(3)))
        told = [("ADDED", f"w{number}", number + 2) for number in range(20)]
        assert await found[0] == [("ADDED", "first", 1), *told]
        assert await found[1] == told
        for watching in (live, resumed):
            await watching.aclose()  # type: ignore[attr-defined]

    with_mirror(tmp_path, body, Slow)


def test_what_is_committed_while_the_past_is_read_is_told_once(tmp_path: Path) -> None:
    async def body(store: SqliteStore, copy: Mirror) -> None:
        assert isinstance(store, Slow)
        for name in ("one", "two"):
            await store.commit({}, workload(name, "h1"))
        await copy.fresh()
        store.before = {1: lambda: store.commit({}, workload("three", "h1"))}
        watching = lines(copy, selected(), 1)
        assert await until(2, watching) == [("ADDED", "two", 2), ("ADDED", "three", 3)]
        await store.commit({}, workload("four", "h1"))
        assert await until(1, watching) == [("ADDED", "four", 4)]
        await watching.aclose()  # type: ignore[attr-defined]

    with_mirror(tmp_path, body, Slow)


def test_a_bookmark_never_overtakes_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.service.mirror.BOOKMARK_SECONDS", 0.1)

    async def body(store: SqliteStore, copy: Mirror) -> None:
        watching = lines(copy, selected(), 0, bookmarks=True)
        seen: list[tuple[str, str, int]] = []

        async def watch() -> None:
            async for part in watching:
                seen.extend(short(part))
                if ("ADDED", "w99", 100) in seen and seen[-1][0] == "BOOKMARK":
                    return

        task = asyncio.create_task(watch())
        other = SqliteStore(store.path)  # what it commits is noticed whenever somebody looks
        for number in range(100):
            await other.commit({}, workload(f"w{number}", "h1"))
        await asyncio.wait_for(task, SECONDS)
        assert [revision for *_, revision in seen] == sorted(revision for *_, revision in seen)
        await watching.aclose()  # type: ignore[attr-defined]
        await other.close()

    with_mirror(tmp_path, body)


def test_a_change_wakes_only_whom_it_concerns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    line = Telling.line

    def counted(self: Telling, wanted: Selection) -> bytes:
        asked.append(wanted)
        return line(self, wanted)

    monkeypatch.setattr(Telling, "line", counted)

    async def body(store: SqliteStore, copy: Mirror) -> None:
        await copy.fresh()
        for number in range(300):
            copy.feed("workloads", selected(f"spec.node=h{number}"))
            copy.feed("nodes", selection(KINDS["nodes"], "", f"metadata.name=h{number}"))
        await store.commit({}, workload("a", "h7"))
        await copy.fresh()
        assert [wanted.node for wanted in asked] == ["h7"]

    with_mirror(tmp_path, body)


def test_one_nodes_objects_are_listed_and_watched_without_decoding_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: SqliteStore, copy: Mirror) -> None:
        for node in range(20):
            puts: dict[str, bytes | None] = {}
            for number in range(50):
                puts |= workload(f"w{number}.h{node}", f"h{node}")
            await store.commit({}, puts)
        now = await copy.fresh()

        def never(*given: Any) -> Any:
            raise AssertionError("decoded")

        monkeypatch.setattr(collection, "document_of", never)
        monkeypatch.setattr(feeds, "document_of", never)
        items = now.table("workloads").cursor(selected("spec.node=h3")).part() or []
        assert [item.key for item in items] == sorted(f"/workloads/w{n}.h3" for n in range(50))
        watching = lines(copy, selected("spec.node=h3"), None)
        assert len(await until(50, watching)) == 50
        await store.commit({}, {"/workloads/w1.h3": None} | workload("w0.h4", "h4", "x"))
        assert await until(1, watching) == [("DELETED", "w1.h3", 1001)]
        await watching.aclose()  # type: ignore[attr-defined]

    with_mirror(tmp_path, body)


def test_a_reader_that_is_too_slow_is_ended_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "FEED_BYTES", 2000)

    async def body(store: SqliteStore, copy: Mirror) -> None:
        slow = lines(copy, selected(), None, mark_initial=True)
        quick = lines(copy, selected(), None, mark_initial=True)
        for watching in (slow, quick):
            await anext(watching)
        for number in range(30):
            await store.commit({}, workload(f"w{number}", "h1"))
            assert await until(1, quick) == [("ADDED", f"w{number}", number + 1)]
        assert [part async for part in slow] == []
        await quick.aclose()  # type: ignore[attr-defined]

    with_mirror(tmp_path, body)


def test_a_process_that_slept_through_a_compaction_reads_all_anew(tmp_path: Path) -> None:
    async def meanwhile(path: Path) -> None:
        other = SqliteStore(path)
        await other.commit({}, {"/workloads/old": None} | workload("new", "h1"))
        await other.compact(4)
        await other.close()

    async def body(store: SqliteStore, copy: Mirror) -> None:
        await store.commit({}, workload("old", "h1"))
        watching = lines(copy, selected(), None)
        assert await until(1, watching) == [("ADDED", "old", 1)]
        other = threading.Thread(target=lambda: asyncio.run(meanwhile(store.path)))
        other.start()
        other.join()  # nothing of ours runs until it is done
        now = await copy.fresh()
        assert list(now.table("workloads").items) == ["new"]
        assert [part async for part in watching] == [], "it lists again"

    with_mirror(tmp_path, body)


def test_a_compacted_revision_is_expired(tmp_path: Path) -> None:
    async def body(store: SqliteStore, copy: Mirror) -> None:
        for number in range(5):
            await store.commit({}, workload("a", "h1", str(number)))
        await store.compact(4)
        (part,) = [part async for part in lines(copy, selected(), 1)]
        event = json.loads(part)
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)

    with_mirror(tmp_path, body)


def test_watches_end_when_the_store_cannot_be_read_and_come_back(tmp_path: Path) -> None:
    async def body(store: SqliteStore, copy: Mirror) -> None:
        watching = lines(copy, selected(), None, mark_initial=True)
        await anext(watching)
        since = store.since

        async def unreadable(after: int) -> Any:
            raise StorageError("cannot read the store: gone")

        store.since = unreadable  # type: ignore[method-assign]
        await store.commit({}, workload("a", "h1"))
        async with asyncio.timeout(SECONDS):
            assert [part async for part in watching] == []
        store.since = since  # type: ignore[method-assign]
        again = lines(copy, selected(), None)
        assert await until(1, again) == [("ADDED", "a", 1)]
        await store.commit({}, workload("b", "h1"))
        assert await until(1, again) == [("ADDED", "b", 2)]
        await again.aclose()  # type: ignore[attr-defined]

    with_mirror(tmp_path, body)


def test_nobody_is_kept_who_has_left(tmp_path: Path) -> None:
    async def body(store: SqliteStore, copy: Mirror) -> None:
        for number in range(50):
            watching = lines(copy, selected(f"spec.node=h{number}"), None, mark_initial=True)
            await anext(watching)
            await watching.aclose()  # type: ignore[attr-defined]
        assert copy._feeds == {}

    with_mirror(tmp_path, body)


def test_a_watch_that_has_shown_the_present_holds_nothing_of_it(tmp_path: Path) -> None:
    async def body(store: SqliteStore, copy: Mirror) -> None:
        await store.commit({}, workload("one", "h1"))
        watching = [lines(copy, selected(), after, bookmarks=True) for after in (None, 1)]
        assert len(await until(2, watching[0])) == 2
        table = (await copy.fresh()).table("workloads")
        waiting = [asyncio.ensure_future(until(1, one)) for one in watching]
        await store.commit({}, workload("two", "h1"))
        assert [await one for one in waiting] == [[("ADDED", "two", 2)]] * 2
        assert [one() for one in table._cursors if one() is not None] == []
        for one in watching:
            await one.aclose()  # type: ignore[attr-defined]

    with_mirror(tmp_path, body)


def test_a_watch_ends_after_its_time_though_the_clock_is_a_little_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As uvloop's, which counts milliseconds: rounding makes a timer come before its time."""

    async def body(store: SqliteStore, copy: Mirror) -> None:
        loop = asyncio.get_running_loop()
        call_at = loop.call_at
        monkeypatch.setattr(loop, "call_at", lambda when, *more, **named: call_at(
            when - 0.01, *more, **named
        ))  # fmt: skip
        ended = lines(copy, selected(), None, seconds=0.05)
        async with asyncio.timeout(SECONDS):
            assert [part async for part in ended] == []

    with_mirror(tmp_path, body)
