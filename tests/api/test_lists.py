"""Lists of many objects: whole, of one moment, in pages, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator, MutableMapping
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.service import Service, running_service
from support.stored import name_of, workloads

from api.auth import kubeconfig
from api.auth.identity import ADMIN
from api.client import context_of
from api.resources.errors import TooManyRequests
from api.resources.registry import KINDS
from api.service import listing
from api.service.collection import PART, Table
from api.service.crowd import Crowd
from api.service.listing import PAGE, Streamed
from api.service.selection import selection
from api.service.state import State
from api.service.table import layout_of
from api.store import Item

COUNT = PAGE + 1500
WORKLOADS = KINDS["workloads"]
MERGE = {"content-type": "application/merge-patch+json"}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("full")
    asyncio.run(workloads(directory / "routed.db", COUNT))
    with running_service(directory) as found:
        yield found


@pytest.fixture(scope="module")
def admin(full: Service) -> Iterator[httpx.Client]:
    with full.http() as client:
        yield client


def names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text[:300]
    return [item["metadata"]["name"] for item in answer.json()["items"]]


def item(name: str, value: bytes = b"{}", revision: int = 1) -> Item:
    return Item(f"/workloads/{name}", value, revision, 1)


changes = st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=60)


@given(st.sets(st.integers(0, 400)), st.lists(changes, max_size=5), st.integers(-1, 400))
def test_a_cursor_is_of_one_moment_whatever_is_written_meanwhile(
    present: set[int], written: list[list[tuple[int, bool]]], after: int
) -> None:
    table = Table()
    for number in present:
        table.put(f"{number:03}", item(f"{number:03}"), "")
    beyond = f"{after:03}" if after >= 0 else ""
    wanted = selection(WORKLOADS, "", "")
    expected = [table.items[name] for name in sorted(table.items) if name > beyond]
    cursor, found = table.cursor(wanted, beyond), list[Item]()
    for batch in [*written, *[[]] * 5]:
        found += cursor.part() or []
        for number, there in batch:
            name = f"{number:03}"
            table.put(name, item(name, b"{}", 2) if there else None, "")
        assert table.names() == sorted(table.items)
    assert found == expected


def test_a_cursor_that_nobody_reads_any_more_is_told_nothing() -> None:
    table = Table()
    table.put("a", item("a"), "")
    cursor = table.cursor(selection(WORKLOADS, "", ""))
    table.put("a", None, "")
    assert list(cursor.before) == ["a"]
    del cursor
    assert len([one for one in table._cursors if one() is not None]) == 0


def test_all_means_all(admin: httpx.Client) -> None:
    answer = admin.get("/workloads")
    assert answer.headers.get("transfer-encoding") == "chunked"
    assert names(answer) == [name_of(number) for number in range(COUNT)]
    held = answer.json()
    assert (held["kind"], held["apiVersion"]) == ("WorkloadList", "routed.dev/v1")
    assert set(held["metadata"]) == {"resourceVersion"}
    assert held["items"][7] == admin.get("/workloads/w000007.h7").json()


def test_what_is_selected_of_many(admin: httpx.Client) -> None:
    rare = admin.get("/workloads", params={"labelSelector": "rare=yes"})
    assert names(rare) == [name_of(number) for number in range(0, COUNT, 100)]
    none = admin.get("/workloads", params={"labelSelector": "rare=no"})
    assert none.json()["items"] == []
    node = admin.get("/workloads", params={"fieldSelector": "spec.node=h3"})
    assert names(node) == [name_of(number) for number in range(3, COUNT, 10)]
    query = {"fieldSelector": "spec.node=h0", "labelSelector": "rare=yes"}
    assert names(admin.get("/workloads", params=query)) == names(rare)
    assert names(admin.get("/nodes")) == []


def test_every_kind_that_a_node_selects_is_found_by_it() -> None:
    """Whether or not anything is decided about its objects."""
    kinds = [kind for kind in KINDS.values() if "spec.node" in kind.selectable]
    assert {"hostendpoints", "ipblocks", "workloads"} <= {kind.plural for kind in kinds}
    spec = {"node": "h1", "cidr": "10.0.0.0/26", "pool": "p", "interfaceName": "eth0"}
    value = json.dumps({"metadata": {"name": "a"}, "spec": spec}).encode()
    for kind in kinds:
        state = State(0, [Item(f"/{kind.plural}/a", value, 1, 1)])
        for node, found in (("h1", ["a"]), ("h2", [])):
            chosen = selection(kind, "", f"spec.node={node}")
            part = state.table(kind.plural).cursor(chosen).part() or []
            assert [one.key for one in part] == [f"/{kind.plural}/{name}" for name in found]


def test_a_table_of_many_has_a_row_each(admin: httpx.Client) -> None:
    accept = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    held = admin.get("/workloads", headers=accept).json()
    assert [row["cells"][0] for row in held["rows"]] == [name_of(number) for number in range(COUNT)]
    assert held["columnDefinitions"][1]["name"] == "Node"
    assert admin.get("/nodes", headers=accept).json()["rows"] == []


def test_a_page_has_a_largest_size_and_the_next_says_the_rest(admin: httpx.Client) -> None:
    first = admin.get("/workloads", params={"limit": 1_000_000})
    assert len(names(first)) == PAGE
    metadata = first.json()["metadata"]
    assert metadata["remainingItemCount"] == COUNT - PAGE
    assert admin.patch(
        "/workloads/w000000.h0", content=b'{"metadata":{"labels":{"x":"y"}}}', headers=MERGE
    ).is_success
    found = names(first)
    for left in (COUNT - PAGE - 1000, 0):
        query = {"limit": 1000, "continue": metadata["continue"]}
        metadata = admin.get("/workloads", params=query).json()["metadata"]
        found += names(admin.get("/workloads", params=query))
        assert metadata.get("remainingItemCount", 0) == left
        assert metadata["resourceVersion"] == first.json()["metadata"]["resourceVersion"], (
            "a watch from there tells of what has changed since the first page"
        )
    assert "continue" not in metadata
    assert found == [name_of(number) for number in range(COUNT)]


def test_pages_of_what_is_selected(admin: httpx.Client) -> None:
    query, found, sizes = {"labelSelector": "rare=yes", "limit": "50"}, list[str](), list[int]()
    while True:
        answer = admin.get("/workloads", params=query)
        assert "remainingItemCount" not in answer.json()["metadata"], "nobody has counted them"
        found, sizes = found + names(answer), [*sizes, len(names(answer))]
        if "continue" not in answer.json()["metadata"]:
            break
        query["continue"] = answer.json()["metadata"]["continue"]
    assert found == [name_of(number) for number in range(0, COUNT, 100)]
    assert sizes == [50, 50, len(found) - 100]


@pytest.mark.parametrize("token", ["x", "w000001", "é", "eC95", "MS8=x", "LTEvYQ=="])
def test_what_no_list_said_is_no_continue(admin: httpx.Client, token: str) -> None:
    answer = admin.get("/workloads", params={"limit": 1, "continue": token})
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest"), answer.text
    assert "continue" in answer.json()["message"]


def test_a_list_that_is_read_slowly_is_of_the_moment_when_it_was_asked(
    full: Service, admin: httpx.Client
) -> None:
    """Its reader stops after the head; others write before it goes on."""
    access = kubeconfig.read(full.admin)
    host, _, port = access.server.removeprefix("https://").rpartition(":")
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # else all of it fits
        plain.connect((host, int(port)))
        with context_of(access).wrap_socket(plain, server_hostname=host) as held:
            held.settimeout(30)
            asked = "GET /apis/routed.dev/v1/workloads HTTP/1.1\r\nHost: x\r\n"
            held.sendall(f"{asked}Authorization: Bearer {access.token}\r\n\r\n".encode())
            reply = HTTPResponse(held)
            reply.begin()
            begun = reply.read(1 << 10)
            last = name_of(COUNT - 1)
            before = admin.get(f"/workloads/{last}").json()
            gone = admin.get(f"/workloads/{name_of(COUNT - 2)}").json()
            changed = admin.patch(
                f"/workloads/{last}",
                content=b'{"metadata":{"labels":{"app":"other"}}}',
                headers=MERGE,
            )
            assert changed.status_code == 200
            assert admin.delete(f"/workloads/{name_of(COUNT - 2)}").status_code == 200
            made = {**gone, "metadata": {"name": "z"}, "spec": {**gone["spec"], "node": "new"}}
            assert admin.post("/nodes", json={"metadata": {"name": "new"}}).status_code == 201
            made["status"] = {}
            answer = admin.post("/workloads", json={**made, "metadata": {"name": "z.new"}})
            assert answer.status_code == 201, answer.text
            whole = json.loads(begun + reply.read())
    assert len(whole["items"]) == COUNT
    assert whole["items"][-1] == before != changed.json()
    assert whole["items"][-2] == gone
    now = names(admin.get("/workloads"))
    assert (now[-1], len(now)) == ("z.new", COUNT)


def many(count: int) -> State:
    value = json.dumps({"metadata": {"name": "", "labels": {}}, "spec": {"node": "h"}}).encode()
    return State(1, [item(f"w{number:06}", value) for number in range(count)])


@pytest.mark.parametrize("labels", ["", "none=such"])
def test_others_have_their_turn_between_the_parts(labels: str) -> None:
    async def body() -> tuple[int, int]:
        turns, done = 0, asyncio.Event()

        async def others() -> None:
            nonlocal turns
            while not done.is_set():
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(others())
        wanted = selection(WORKLOADS, labels, "")
        answer = await listing.answered(
            WORKLOADS,
            layout_of(WORKLOADS),
            many(5000),
            wanted,
            limit=0,
            token="",
            include=None,
        )
        assert isinstance(answer, Streamed)
        parts = [part async for part in answer.body_iterator]
        done.set()
        await other
        assert len(json.loads(b"".join(map(bytes, parts)))["items"]) == (0 if labels else 5000)
        return turns, max(map(len, parts))

    turns, largest = asyncio.run(body())
    assert turns >= 5000 / PART
    assert largest < PART * 300, "a part is all that is in memory"


def test_a_list_counts_as_under_way_until_it_is_sent() -> None:
    async def body() -> None:
        refused: list[str] = []
        crowd = Crowd(refused.append, most=1)

        async def parts() -> AsyncIterator[int]:
            yield 1
            yield 2

        sending = crowd.during(ADMIN, parts())
        assert await anext(sending) == 1
        with pytest.raises(TooManyRequests), crowd.entered(ADMIN):
            pass
        assert refused == ["under way"]
        assert [one async for one in sending] == [2]
        with crowd.entered(ADMIN):
            pass

    asyncio.run(body())


def test_who_does_not_read_his_list_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "READ_SECONDS", 0.2)

    async def body() -> tuple[int, bool]:
        state, sent = many(5000), list[MutableMapping[str, Any]]()
        wanted = selection(WORKLOADS, "", "")
        answer = await listing.answered(
            WORKLOADS, layout_of(WORKLOADS), state, wanted, limit=0, token="", include=None
        )

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)
            if len(sent) == 3:
                await asyncio.Event().wait()

        async def receive() -> MutableMapping[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async with asyncio.timeout(10):
            await answer({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
        return len(sent), sent[-1].get("more_body", True)

    assert asyncio.run(body()) == (3, True), "it is not said to be whole"
