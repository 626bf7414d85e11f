"""Questions to agents through the service: by the watch that they have open, wherever that is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from support.service import Service

from api.auth.identity import NODE
from api.client import Client
from api.resources import Node, ObjectMeta
from api.resources.errors import Forbidden, Invalid, NoAnswer, NotFound, TooManyRequests
from api.resources.questions import QUESTION
from api.resources.registry import KINDS
from api.service import questions
from api.service.objects import Objects
from api.service.questions import Questions
from api.service.selection import Selection
from api.store.sqlite.store import SqliteStore
from routed.agent.questions import Questions as Agent

NODES = KINDS["nodes"]
TO, FROM = ip_address("10.65.0.65"), ip_address("10.65.0.1")


async def node_client(service: Service, name: str, directory: Path) -> Client:
    """As `name`, which is made."""
    admin = Client.from_kubeconfig(service.admin)
    with contextlib.suppress(Exception):
        await admin.create(Node(metadata=ObjectMeta(name=name)))
    text = await admin.credentials(f"nodes/{name}", {})
    await admin.close()
    path = directory / f"{name}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(text)
    return Client.from_kubeconfig(path)


@contextlib.asynccontextmanager
async def watching(client: Client, name: str, heard: Callable[[str], None]) -> AsyncIterator[None]:
    """A node that watches itself; `heard` is told of questions."""
    there = asyncio.Event()

    async def watch() -> None:
        async for event in client.watch("nodes", field_selector=f"metadata.name={name}"):
            if event.type == "QUESTION":
                heard(event.text)
            elif event.type == "END":
                there.set()

    task = asyncio.create_task(watch())
    await there.wait()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_an_agent_is_asked_by_its_watch_and_each_gets_his_own_answer(
    service: Service, tmp_path: Path
) -> None:
    async def body() -> None:
        client = await node_client(service, "asked", tmp_path)
        admin, agent = Client.from_kubeconfig(service.admin), Agent("asked")

        async def way(to: Any, source: Any) -> dict[str, Any]:
            return {"to": str(to), "from": str(source)}

        answering = asyncio.create_task(agent.serve(client, way))
        async with watching(client, "asked", agent.take):
            assert await admin.way("asked", TO, FROM) == {"to": str(TO), "from": str(FROM)}
            wanted = [ip_address(f"10.65.0.{number}") for number in range(1, 11)]
            found = await asyncio.gather(*(admin.way("asked", one) for one in wanted))
            assert [one["to"] for one in found] == list(map(str, wanted))
        answering.cancel()
        before = (service.directory / "audit.log").read_text()
        assert "/way" not in before
        assert '"resource":"nodes/answer"' not in before
        await client.close()
        await admin.close()

    asyncio.run(body())


def test_nobody_answers_for_another_node(service: Service, tmp_path: Path) -> None:
    async def body() -> None:
        first = await node_client(service, "first", tmp_path)
        second = await node_client(service, "second", tmp_path)
        admin = Client.from_kubeconfig(service.admin)
        heard: list[str] = []
        came = asyncio.Event()

        def take(text: str) -> None:
            heard.append(text)
            came.set()

        async with watching(first, "first", take), watching(second, "second", take):
            asking = asyncio.create_task(admin.way("first", TO))
            await came.wait()
            (text,) = heard
            number = json.loads(text)["id"]
            with pytest.raises(Forbidden):
                await second.answer("first", number, {"node": "second"})
            with pytest.raises(NotFound):
                await second.answer("second", number, {"node": "second"})
            with pytest.raises(NotFound):
                await first.answer("first", "0" * 16, {"node": "first"})
            await first.answer("first", number, {"node": "first"})
            assert await asking == {"node": "first"}
            with pytest.raises(NotFound):
                await first.answer("first", number, {"node": "late"})
            with pytest.raises(Forbidden):
                await first.way("first", TO)
        for client in (first, second, admin):
            await client.close()

    asyncio.run(body())


def test_what_cannot_be_asked(service: Service, tmp_path: Path) -> None:
    async def body() -> None:
        await (await node_client(service, "odd", tmp_path)).close()
        admin = Client.from_kubeconfig(service.admin)
        with pytest.raises(NotFound):
            await admin.way("nobody", TO)
        with pytest.raises(Invalid, match="from must be IPv4"):
            await admin.way("odd", TO, ip_address("fd00::1"))
        await admin.close()

    asyncio.run(body())
    with service.http() as http:
        for query, code in (
            ({}, 422),
            ({"to": "nowhere"}, 422),
            ({"to": "10.0.0.1", "via": "h2"}, 400),
        ):
            answer = http.get("/nodes/odd/way", params=query)
            assert answer.status_code == code, answer.text
        for given in (
            {},
            {"id": 1, "way": {}},
            {"id": "a", "way": []},
            {"id": "a", "way": {}, "x": 1},
        ):
            assert http.post("/nodes/odd/answer", json=given).status_code == 400


class Process:
    """One control plane of several on a store, in this process; agents are asked by `feeds`."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path)
        self.objects = Objects(self.store)
        self.questions = Questions(self.objects)
        self.tasks = [asyncio.create_task(self.questions.serve())]

    async def agent(self, node: str, *, silent: bool = False) -> None:
        """It has its watch here."""
        await self.objects.mirror.fresh()
        feed = self.objects.mirror.feed("nodes", Selection(node, "", ()))
        feed.rests_on = (("identities", f"node:{node}"), ("roles", NODE))

        async def answer() -> None:
            while True:
                await feed.wait()
                for line in feed.take().splitlines():
                    event = json.loads(line)
                    if event["type"] != "BOOKMARK" or silent:
                        continue
                    asked = json.loads(event["object"]["metadata"]["annotations"][QUESTION])
                    with contextlib.suppress(NotFound):  # asked a second time
                        self.questions.hand_on(asked["id"], node, {"by": node, "to": asked["to"]})

        self.tasks.append(asyncio.create_task(answer()))

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        await self.objects.mirror.close()
        await self.store.close()


def together(path: Path, count: int, body: Callable[..., Awaitable[None]]) -> None:
    async def whole() -> None:
        processes = [Process(path) for _ in range(count)]
        for name in ("h1", "h2"):
            await processes[0].objects.create(NODES, Node(metadata=ObjectMeta(name=name)).wire())
        try:
            await body(*processes)
        finally:
            for one in processes:
                await one.end()

    asyncio.run(whole())


def test_an_agent_that_watches_by_another_control_plane_is_asked_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "LOOK_SECONDS", 0.05)

    async def body(first: Process, second: Process, third: Process) -> None:
        await second.agent("h1")
        await third.agent("h2")
        for asking in (first, second, third):
            for node in ("h1", "h2"):
                found = await asking.questions.answer_of(node, {"to": "10.0.0.1"})
                assert found == {"by": node, "to": "10.0.0.1"}
        many = [first.questions.answer_of("h1", {"to": f"10.0.0.{one}"}) for one in range(20)]
        assert [one["to"] for one in await asyncio.gather(*many)] == [
            f"10.0.0.{one}" for one in range(20)
        ]
        deadline = time.monotonic() + 20
        for process in (second, third):  # an answer is told until nobody can wait for it any more
            process.questions._answered.clear()
        while await first.store.told():
            assert time.monotonic() < deadline, "nothing is left beside the log"
            await asyncio.sleep(0.02)

    together(tmp_path / "db", 3, body)


def test_a_watch_that_nobody_reads_any_more_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(questions, "HERE_SECONDS", 0.05)

    async def body(first: Process, second: Process) -> None:
        await first.agent("h1", silent=True)
        await second.agent("h1")
        found = await first.questions.answer_of("h1", {"to": "10.0.0.1"})
        assert found == {"by": "h1", "to": "10.0.0.1"}

    together(tmp_path / "db", 2, body)


def test_who_does_not_answer_is_said_to_be_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(questions, "MOST", 3)

    async def body(only: Process) -> None:
        await only.agent("h1", silent=True)
        for node in ("h1", "h2"):  # it says nothing; it has no watch
            with pytest.raises(NoAnswer, match=f"node {node} has not answered"):
                await only.questions.answer_of(node, {"to": "10.0.0.1"})
        three = [only.questions.answer_of("h1", {"to": "10.0.0.1"}) for _ in range(3)]
        tasks = [asyncio.create_task(one) for one in three]
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests):
            await only.questions.answer_of("h1", {"to": "10.0.0.1"})
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, NoAnswer) for one in found)
        assert not only.questions._open
        assert not only.questions._elsewhere

    together(tmp_path / "db", 1, body)


def test_those_of_an_earlier_release_read_it_as_a_heartbeat_of_nobody(tmp_path: Path) -> None:
    async def body(only: Process) -> None:
        only.questions._elsewhere["1"] = "h1", {"to": "10.0.0.1"}
        await only.questions._exchange()
        (text,) = (await only.store.told()).values()
        assert json.loads(text)[1] == []

    together(tmp_path / "db", 1, body)
