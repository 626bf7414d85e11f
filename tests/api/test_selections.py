"""The stream of selections out of the copy in memory: complete, in order, bounded."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from api.auth.identity import Identity
from api.resources.errors import Invalid
from api.resources.selectors import SUBJECTS_MOST
from api.service import feeds
from api.service import selections as module
from api.service.codec import encoded
from api.service.members import Subject
from api.service.metrics import ServiceMetrics
from api.service.mirror import Mirror
from api.service.selections import Selections
from api.service.subjects import subjects_of
from api.store.sqlite.store import SqliteStore

SECONDS = 10.0  # for what must come
WEB, ALL, HTTP = Subject("app == 'web'"), Subject("all()"), Subject("", "http")


def with_selections(path: Path, body: Callable[[SqliteStore, Selections], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = SqliteStore(path / "s.db")
        copy = Mirror(store)
        try:
            await body(store, Selections(copy, ServiceMetrics()))
        finally:
            await copy.close()
            await store.close()

    asyncio.run(whole())


def workload(name: str, address: str, app: str = "web") -> dict[str, bytes | None]:
    document = {
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"node": "h1", "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
        "status": {"phase": "Ready", "addresses": [address]},
    }
    return {f"/workloads/{name}": encoded(document)}


Lines = list[dict[str, Any]]


async def until(kind: str, parts: AsyncIterator[bytes], count: int = 1) -> Lines:
    """The lines up to and with the `count`th of that type."""
    found: Lines = []
    async with asyncio.timeout(SECONDS):
        while sum(line["type"] == kind for line in found) < count:
            found += [json.loads(line) for line in (await anext(parts)).splitlines()]
    return found


def short(lines: Lines) -> list[tuple[str, str, list[str], list[str]]]:
    return [
        (line["type"], line.get("port") or line["selector"], line["add"], line.get("remove", []))
        for line in lines
        if line["type"] in ("WHOLE", "DELTA")
    ]


def closing(*streams: AsyncIterator[bytes]) -> Awaitable[Any]:
    return asyncio.gather(*(one.aclose() for one in streams))  # type: ignore[attr-defined]


def test_first_the_whole_of_each_then_what_changes(tmp_path: Path) -> None:
    async def body(store: SqliteStore, selections: Selections) -> None:
        await store.commit({}, workload("a", "10.0.0.1"))
        lines = selections.stream({WEB: "", HTTP: ""})
        first = await until("BOOKMARK", lines)
        assert short(first) == [
            ("WHOLE", "app == 'web'", ["10.0.0.1"], []),
            ("WHOLE", "http", ["10.0.0.1,tcp:80"], []),
        ]
        assert [line["revision"] for line in first] == ["1", "1", "1"]
        await store.commit({}, workload("b", "10.0.0.2", "db"))
        assert short(await until("DELTA", lines)) == [("DELTA", "http", ["10.0.0.2,tcp:80"], [])]
        await store.commit({}, workload("a", "10.0.0.3"))
        assert sorted(short(await until("DELTA", lines, 2))) == [
            ("DELTA", "app == 'web'", ["10.0.0.3"], ["10.0.0.1"]),
            ("DELTA", "http", ["10.0.0.3,tcp:80"], ["10.0.0.1,tcp:80"]),
        ]
        await closing(lines)

    with_selections(tmp_path, body)


def test_who_has_the_present_version_is_told_nothing_of_it(tmp_path: Path) -> None:
    async def body(store: SqliteStore, selections: Selections) -> None:
        await store.commit({}, workload("a", "10.0.0.1"))
        lines = selections.stream({WEB: "", ALL: ""})
        versions = {
            Subject(line["selector"]): line["version"]
            for line in await until("BOOKMARK", lines)
            if "version" in line
        }
        other = Selections(Mirror(store), ServiceMetrics())  # another replica
        for asked in (selections, other):
            again = asked.stream({**versions, HTTP: ""})
            assert [one[:2] for one in short(await until("BOOKMARK", again))] == [("WHOLE", "http")]
            await closing(again)
        await store.commit({}, workload("b", "10.0.0.2", "db"))
        again, anew = selections.stream(versions), other.stream(versions)
        assert short(await until("BOOKMARK", again)) == [("DELTA", "all()", ["10.0.0.2"], [])]
        (told,) = short(await until("BOOKMARK", anew))
        assert told[:2] in (("WHOLE", "all()"), ("DELTA", "all()"))
        await closing(lines, again, anew)
        await other.mirror.close()

    with_selections(tmp_path, body)


def test_what_changes_while_all_is_taken_in_and_matched_is_neither_lost_nor_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OBJECTS_PART", 1)
    monkeypatch.setattr("api.service.members.GROUPS_PART", 1)
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: sleep(max(seconds, 0.002)))

    async def body(store: SqliteStore, selections: Selections) -> None:
        puts: dict[str, bytes | None] = {}
        for number in range(60):
            puts |= workload(f"w{number}", f"10.0.0.{number}", f"a{number}")
        await store.commit({}, puts)
        streams = [selections.stream({Subject("has(app)"): ""}) for _ in range(3)]
        reading = [asyncio.create_task(until("BOOKMARK", one)) for one in streams]
        for number in range(0, 60, 3):
            gone, moved = f"/workloads/w{number}", f"w{59 - number}"
            await store.commit(
                {}, {gone: None} | workload(moved, f"10.1.0.{number}", "moved") if number % 2
                else workload(f"new{number}", f"10.2.0.{number}", f"b{number}"),
            )  # fmt: skip
            await selections.mirror.fresh()
        wanted = {
            json.loads(item.value)["status"]["addresses"][0]
            for item in (await selections.mirror.fresh()).table("workloads").items.values()
        }
        for one, lines in zip(streams, reading, strict=True):
            has: set[str] = set()
            told = await lines
            while has != wanted:
                for line in told:
                    add, remove = set(line.get("add", ())), set(line.get("remove", ()))
                    assert not add & has
                    assert remove <= has
                    has = (has | add) - remove
                if has != wanted:
                    told = await until("DELTA", one)
        await closing(*streams)

    with_selections(tmp_path, body)


def test_a_reader_that_is_too_slow_is_ended_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "FEED_BYTES", 2000)

    async def body(store: SqliteStore, selections: Selections) -> None:
        slow, quick = selections.stream({WEB: ""}), selections.stream({WEB: ""})
        for one in (slow, quick):
            known = (await until("BOOKMARK", one))[0]["version"]
        for number in range(30):
            await store.commit({}, workload(f"w{number}", f"10.0.0.{number}"))
            told = short(await until("DELTA", quick))
            assert told == [("DELTA", "app == 'web'", [f"10.0.0.{number}"], [])]
        assert [part async for part in slow] == []
        back = selections.stream({WEB: known})
        told = short(await until("BOOKMARK", back))
        assert {entry for one in told for entry in one[2]} == {f"10.0.0.{n}" for n in range(30)}
        await closing(quick, back)

    with_selections(tmp_path, body)


def test_a_process_that_slept_through_a_compaction_ends_readers_and_makes_all_anew(
    tmp_path: Path,
) -> None:
    async def meanwhile(path: Path) -> None:
        other = SqliteStore(path)
        await other.commit({}, {"/workloads/old": None} | workload("new", "10.0.0.2"))
        await other.compact(4)
        await other.close()

    async def body(store: SqliteStore, selections: Selections) -> None:
        await store.commit({}, workload("old", "10.0.0.1"))
        lines = selections.stream({WEB: ""})
        version = (await until("BOOKMARK", lines))[0]["version"]
        other = threading.Thread(target=lambda: asyncio.run(meanwhile(store.path)))
        other.start()
        other.join()  # nothing of ours runs until it is done
        await selections.mirror.fresh()
        assert [part async for part in lines] == [], "it comes back"
        again = selections.stream({WEB: version})
        told = short(await until("BOOKMARK", again))
        assert told == [("WHOLE", "app == 'web'", ["10.0.0.2"], [])]
        await closing(again)

    with_selections(tmp_path, body)


def test_nobody_is_kept_who_has_left_and_nothing_is_matched_for_him(tmp_path: Path) -> None:
    async def body(store: SqliteStore, selections: Selections) -> None:
        await store.commit({}, workload("a", "10.0.0.1"))
        for _ in range(20):
            lines = selections.stream({WEB: "", HTTP: ""})
            await until("BOOKMARK", lines)
            await closing(lines)
            begun = selections.stream({ALL: ""})  # and never read
            await closing(begun)
        assert selections.mirror._feeds == {}
        assert selections._made is not None
        held = selections._made.membership._selections.values()
        assert {one.subject for one in held} == {WEB, HTTP}
        assert [(one.uses, one.readers) for one in held] == [(0, set())] * 2
        assert selections._made.evaluating == {}

    with_selections(tmp_path, body)


def test_nothing_is_kept_until_somebody_asks(tmp_path: Path) -> None:
    async def body(store: SqliteStore, selections: Selections) -> None:
        await store.commit({}, workload("a", "10.0.0.1"))
        await selections.mirror.fresh()
        assert selections._made is None

    with_selections(tmp_path, body)


def test_who_waits_long_for_the_first_line_hears_that_it_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.01)
    go = asyncio.Event()

    async def load(*given: Any) -> None:
        await go.wait()

    monkeypatch.setattr(module, "_load", load)

    async def body(store: SqliteStore, selections: Selections) -> None:
        lines = selections.stream({WEB: ""})
        await until("HEARTBEAT", lines, 2)
        go.set()
        assert (await until("BOOKMARK", lines))[-1]["type"] == "BOOKMARK"
        await closing(lines)

    with_selections(tmp_path, body)


def test_whose_right_ends_is_told_nothing_more(tmp_path: Path) -> None:
    async def body(store: SqliteStore, selections: Selections) -> None:
        nobody = Identity("system:node:h9", "node", node="h9")
        lines = selections.stream({WEB: ""}, who=nobody)
        assert [part async for part in lines] == []

    with_selections(tmp_path, body)


def wrong(body: Mapping[str, Any]) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        subjects_of(body)
    return {cause.field: cause.message for cause in caught.value.causes}


def test_everything_that_is_wrong_is_told_with_its_place() -> None:
    asked = {
        "selectors": [{"selector": ""}, {"selector": "a == b"}, {}, 7, {"selector": "x" * 9999}],
        "ports": [{"name": ""}, {"name": "http", "selector": "has("}, {"name": "a", "version": 1}],
    }  # fmt: skip
    found = wrong(asked)
    assert set(found) == {
        "selectors[1].selector", "selectors[2].selector", "selectors[3]", "selectors[4].selector",
        "ports[0].name", "ports[1].selector", "ports[2].version",
    }  # fmt: skip
    assert "column 6" in found["selectors[1].selector"]
    assert "column 5" in found["ports[1].selector"]
    assert wrong({"selectors": {}}) == {"selectors": "must be a list"}
    many = [{"selector": f"a == '{number}'"} for number in range(SUBJECTS_MOST)]
    assert len(subjects_of({"selectors": many})) == SUBJECTS_MOST
    assert "" in wrong({"selectors": many, "ports": [{"name": "http"}]})


def test_what_a_later_release_may_ask_is_passed_over() -> None:
    asked = {"selectors": [{"selector": "all()", "more": 1, "version": "v"}], "more": 1}
    assert subjects_of(asked) == {Subject("all()"): "v"}
    assert subjects_of({}) == {}


def test_a_stream_ends_after_its_time_though_the_clock_is_a_little_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As uvloop's, which counts milliseconds: rounding makes a timer come before its time."""

    async def body(store: SqliteStore, selections: Selections) -> None:
        loop = asyncio.get_running_loop()
        call_at = loop.call_at
        monkeypatch.setattr(loop, "call_at", lambda when, *more, **named: call_at(
            when - 0.01, *more, **named
        ))  # fmt: skip
        ended = selections.stream({}, seconds=0.05)
        async with asyncio.timeout(SECONDS):
            assert len([part async for part in ended]) == 2, "bookmarks"

    with_selections(tmp_path, body)
