"""Which nodes count as alive: by the pure part, by one process, by several on one store."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.service import Service

from api.client import Client
from api.resources import Condition, Node, ObjectMeta
from api.resources.node import NodeStatus
from api.resources.registry import KINDS
from api.service import heartbeats
from api.service.codec import document_of
from api.service.heartbeats import LOOK_SECONDS, MISSED, STOPPED_SECONDS, Heartbeats, Pulse
from api.service.objects import Objects
from api.store.sqlite.store import SqliteStore
from routed.agent.reporting import Patch, node_writes

NODES = KINDS["nodes"]
LIMIT = MISSED * heartbeats.EVERY_SECONDS + 2 * LOOK_SECONDS


def looked(pulse: Pulse, nodes: list[str], start: float, end: float) -> list[str]:
    """What every look from `start` to `end` found, and that each found the same or more."""
    found: list[str] = []
    while start <= end:
        now = pulse.look(nodes, start)
        assert set(found) <= set(now)
        found, start = now, start + LOOK_SECONDS
    return found


def test_a_node_that_is_heard_is_never_silent_and_another_is_after_its_time() -> None:
    pulse = Pulse()
    now = 0.0
    while now < 10 * LIMIT:
        pulse.beat("a", now)
        silent = pulse.look(["a", "b"], now)
        assert silent == ([] if now <= LIMIT else ["b"]), now
        now += LOOK_SECONDS


def test_a_process_that_stood_still_gives_everybody_time() -> None:
    pulse = Pulse()
    assert looked(pulse, ["a"], 0, LIMIT + LOOK_SECONDS) == ["a"]
    again = LIMIT + 2 * LOOK_SECONDS + STOPPED_SECONDS
    assert looked(pulse, ["a"], again, again + LIMIT - LOOK_SECONDS) == []
    assert looked(pulse, ["a"], again + LIMIT, again + LIMIT + LOOK_SECONDS) == ["a"]


def test_what_is_no_node_any_more_takes_no_room() -> None:
    pulse = Pulse()
    for number in range(100):
        pulse.beat(f"n{number}", 0.0)
    pulse.look(["n1"], 1.0)
    assert len(pulse.look(["n1"], 2.0)) == 0
    assert list(pulse.heard) == ["n1"]


def test_many_nodes_come_more_seldom() -> None:
    assert heartbeats.interval(3) == heartbeats.EVERY_SECONDS
    assert heartbeats.interval(100_000) == 100_000 / heartbeats.MOST


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "EVERY_SECONDS", 0.2)
    monkeypatch.setattr(heartbeats, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(heartbeats, "STOPPED_SECONDS", 30.0)


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 20
    while not await true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def conditions(objects: Objects, node: str) -> list[dict[str, Any]]:
    item = await objects.get(NODES, node)
    found: list[dict[str, Any]] = document_of(item.value, item.revision)["status"]["conditions"]
    return found


async def node(objects: Objects, name: str) -> None:
    said = [
        Condition(type="Ready", status="True", reason="AgentReady"),
        Condition(type="ForwardBlocked", status="False"),
    ]
    made = Node(metadata=ObjectMeta(name=name), status=NodeStatus(conditions=said))
    await objects.create(NODES, made.wire())


@pytest.mark.usefixtures("quick")
def test_what_one_process_hears_the_others_believe_and_silence_is_one_write(tmp_path: Path) -> None:
    async def body() -> None:
        stores = [SqliteStore(tmp_path / "db") for _ in range(2)]
        objects = [Objects(store) for store in stores]
        parts = [Heartbeats(one, look_seconds=0.05) for one in objects]
        for name in ("heard", "silent"):
            await node(objects[0], name)
        before, _ = await stores[0].scan("/none/")
        tasks = [asyncio.create_task(part.serve()) for part in parts]

        async def beating() -> None:
            while True:
                await parts[0].beat("heard")
                await asyncio.sleep(0.05)

        tasks.append(asyncio.create_task(beating()))

        async def noticed() -> bool:
            return (await conditions(objects[1], "silent"))[0]["status"] == "Unknown"

        await eventually(noticed)
        until = time.monotonic() + 2
        while time.monotonic() < until:  # ten times what makes a node silent here
            assert [c["status"] for c in await conditions(objects[1], "heard")] == ["True", "False"]
            await asyncio.sleep(0.05)
        for condition, was in zip(
            await conditions(objects[1], "silent"), ("True", "False"), strict=True
        ):
            assert condition["status"] == "Unknown"
            assert condition["reason"] == heartbeats.REASON
            assert f"it said {was}" in condition["message"]
        after, _ = await stores[0].scan("/none/")
        assert after == before + 1
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await stores[0].told() == {}  # both have taken leave
        for one, store in zip(objects, stores, strict=True):
            await one.mirror.close()
            await store.close()

    asyncio.run(body())


@pytest.mark.usefixtures("quick")
def test_what_a_killed_process_said_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "FORGET_LOOKS", 3)

    async def body() -> None:
        store = SqliteStore(tmp_path / "db")
        objects = Objects(store)
        await store.tell("killed", b'[7, ["a"]]')
        part = Heartbeats(objects, look_seconds=0.01)
        serving = asyncio.create_task(part.serve())

        async def gone() -> bool:
            return list(await store.told()) == [part.name]

        await eventually(gone)
        serving.cancel()
        await asyncio.wait([serving])
        await store.close()

    asyncio.run(body())


def test_heartbeats_never_enter_the_log(service: Service) -> None:
    with service.http() as http:
        made = http.post("/nodes", json={"kind": "Node", "metadata": {"name": "beating"}})
        assert made.status_code == 201, made.text
        before = http.get("/nodes").json()["metadata"]["resourceVersion"]
        audited = (service.directory / "audit.log").read_text()
        for _ in range(200):
            answer = http.post("/nodes/beating/heartbeat")
            assert (answer.status_code, answer.json()["seconds"]) == (201, 10.0)
        assert http.get("/nodes").json()["metadata"]["resourceVersion"] == before
        assert (service.directory / "audit.log").read_text() == audited
        assert http.post("/nodes/nobody/heartbeat").status_code == 404


def shown_as(status: NodeStatus) -> Node:
    """As the service shows it."""
    return Node.model_validate(Node(metadata=ObjectMeta(name="n"), status=status).wire())


def test_an_agent_that_is_back_says_its_conditions_anew() -> None:
    mine = [Condition(type="Ready", status="True", reason="AgentReady")]
    shown = [Condition(type="Ready", status="Unknown", reason=heartbeats.REASON)]
    held = shown_as(NodeStatus(conditions=shown))
    (write,) = node_writes(held, mine, {})
    assert isinstance(write, Patch)
    assert [c["status"] for c in write.change["status"]["conditions"]] == ["True"]
    assert node_writes(shown_as(NodeStatus(conditions=mine)), mine, {}) == []


def test_an_answer_is_gone_with_its_last_user(service: Service) -> None:
    """An agent says for years that it lives: nothing of that is left for the garbage collector."""

    async def body() -> None:
        client = Client.from_kubeconfig(service.admin)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(client.close)
            node = await client.create(Node(metadata=ObjectMeta(name="tidy")))
            stack.push_async_callback(client.delete, Node, "tidy", uid=node.metadata.uid)
            await client.heartbeat("tidy")
            gc.collect()
            with collected() as found:
                await client.heartbeat("tidy")
                await client.get(Node, "tidy")
            assert found == []

    asyncio.run(body())


@contextmanager
def collected() -> Iterator[list[str]]:
    """What the garbage collector alone would free of what is made meanwhile, once that is over."""
    found: list[str] = []
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += sorted(type(one).__qualname__ for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
