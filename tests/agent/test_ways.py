"""What an agent says of its way to an address, and to whom who asks through the service."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path as FilePath
from typing import Any

import pytest
from support.agents import agent_on, play, until

from api.client import Unreachable
from api.resources import BGPPeer, Node, ObjectMeta
from api.resources.bgppeer import BGPPeerSpec
from api.resources.errors import NotFound, SpeakerError
from api.resources.net import IPAddress
from api.resources.node import NodeSpec
from bgp.seam import Advertisement, Path, Session
from routed.agent import questions, ways
from routed.agent.agent import Agent
from routed.agent.questions import Questions
from routed.agent.request import AttachRequest
from routed.kernel.fake import FakeKernel
from routed.kernel.ways import Way

T1, T2 = ip_address("192.0.2.1"), ip_address("198.51.100.1")
FAR = ip_address("10.65.9.9")
HOST, BLOCK, ANY = ip_network("10.65.9.9/32"), ip_network("10.65.9.0/26"), ip_network("0.0.0.0/0")


def path(peer: str, prefix: Any, hop: IPAddress, *numbers: int) -> Path:
    return Path(peer, prefix, (hop,), numbers)


def peered(agent: Agent, *paths: Path) -> None:
    """Two switches, of which the second is not there."""
    specs = {"tor1": (T1, 65001), "tor2": (T2, 65002)}
    peers = {
        name: BGPPeer(
            metadata=ObjectMeta(name=name), spec=BGPPeerSpec(peerIP=address, asNumber=number)
        )
        for name, (address, number) in specs.items()
    }
    node = Node(metadata=ObjectMeta(name="h1"), spec=NodeSpec(asNumber=4_200_000_001))
    assert agent.intent is not None
    agent.intent = replace(agent.intent, peers=peers, node=node)
    agent.speech.sessions = {
        "tor1": Session("tor1", T1, "Established", 0.0),
        "tor2": Session("tor2", T2, "Idle", 0.0, "hold timer"),
    }
    for one in paths:
        agent.speech.paths.setdefault(one.prefix, {})[one.peer] = one


def asked(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, found: Way, to: IPAddress = FAR
) -> dict[str, Any]:
    monkeypatch.setattr("routed.kernel.ways.way", lambda *_: found)
    return asyncio.run(ways.way(agent, to))


def test_a_learned_route_and_what_was_told_of_it(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agent_on(FakeKernel(), tmp_path)
    through = ip_address("203.0.113.9")  # a next hop that is no peer's own address
    peered(agent, path("tor1", HOST, T1, 65001, 42), path("tor2", HOST, through, 65002, 42),
           path("tor1", ANY, T1, 65001), path("tor1", BLOCK, T1, 65001, 7))  # fmt: skip
    hops = ((T1, "up0"), (through, "up1"))
    said = asked(agent, monkeypatch, Way(HOST, "unicast", "routed", 0, hops))
    assert said["route"] == {
        "prefix": str(HOST), "kind": "unicast", "protocol": "routed", "metric": 0,
        "nextHops": [
            {"gateway": str(T1), "interface": "up0", "peer": "tor1"},
            {"gateway": str(through), "interface": "up1", "peer": "tor2"},
        ],
    }  # fmt: skip
    assert [(one["peer"], one["asPath"], one["used"]) for one in said["learned"]] == [
        ("tor1", [65001, 42], True), ("tor2", [65002, 42], True),
    ]  # fmt: skip
    assert [(one["peer"], one["state"], one["error"]) for one in said["sessions"]] == [
        ("tor1", "Established", ""), ("tor2", "Idle", "hold timer"),
    ]  # fmt: skip
    assert {one["localASNumber"] for one in said["sessions"]} == {4_200_000_001}
    assert (said["workload"], said["announced"]) == ("", [])


@pytest.mark.parametrize(
    ("found", "prefixes"),
    [
        (Way(HOST, "unicast", "static", 0, ((ip_address("203.0.113.1"), "up9"),)), {HOST: False}),
        (Way(ANY, "unicast", "dhcp", 0, ((T1, "up0"),)), {HOST: False}),
        (Way(BLOCK, "unicast", "routed", 0, ((T1, "up0"),)), {HOST: False}),
        (Way(), {HOST: False}),
    ],
)
def test_the_longest_that_was_told_is_said_also_where_it_is_not_used(
    tmp_path: FilePath,
    monkeypatch: pytest.MonkeyPatch,
    found: Way,
    prefixes: dict[Any, bool],
) -> None:
    agent = agent_on(FakeKernel(), tmp_path)
    peered(agent, path("tor1", HOST, T1, 65001, 42), path("tor1", ANY, T1, 65001))
    said = asked(agent, monkeypatch, found)["learned"]
    assert {ip_network(one["prefix"]): one["used"] for one in said} == prefixes


def test_what_the_route_is_before_is_not_said(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agent_on(FakeKernel(), tmp_path)
    peered(agent, path("tor1", ANY, T1, 65001))
    local = Way(HOST, "unicast", "routed", 0, ((None, "rt1"),))
    assert not asked(agent, monkeypatch, local)["learned"]
    assert not asked(agent, monkeypatch, Way(kind="blackhole"))["learned"]
    assert len(asked(agent, monkeypatch, Way())["learned"]) == 1


def test_a_workload_of_this_host_and_what_is_announced_of_it(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[Any] = []

    def way(*words: Any) -> Way:
        asked_for.append(words)
        return Way()

    monkeypatch.setattr("routed.kernel.ways.way", way)

    async def body(agent: Agent, kernel: FakeKernel) -> None:
        wanted = AttachRequest.model_validate({"name": "web", "netns": "web"})
        record, _ = await agent.attach(wanted)
        (address,) = record.addresses
        block = ip_network((address, 26), strict=False)
        both = {p: Advertisement(p) for p in (ip_network(f"{address}/32"), block, BLOCK)}
        with contextlib.suppress(SpeakerError):  # there is none, to whom it is stated later
            agent.speech.set({}, both)
        said = await ways.way(agent, address)
        assert (said["workload"], said["interface"]) == ("web.h1", record.host_interface)
        assert said["ready"]
        assert said["announced"] == [
            {"prefix": f"{address}/32", "speaker": None}, {"prefix": str(block), "speaker": None},
        ]  # fmt: skip
        await ways.way(agent, FAR, address)
        await ways.way(agent, FAR, T1)  # of the host itself
        assert asked_for[1:] == [(FAR, address, record.host_interface), (FAR, T1, "")]

    play(tmp_path, body, "web")


class Client:
    """Of a service that takes answers, or not."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str, Any]] = []
        self.error: Exception | None = None

    async def answer(self, node: str, number: str, way: Any) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.answers.append((node, number, way))


def test_no_question_ends_what_answers_them() -> None:
    async def body() -> None:
        client, here = Client(), Questions("h1")

        async def way(to: IPAddress, source: IPAddress | None) -> dict[str, Any]:
            return {"to": str(to), "from": str(source)}

        serving = asyncio.create_task(here.serve(client, way))  # type: ignore[arg-type]
        for odd in ("", "[]", "{}", '{"id": "1"}', '{"id": "1", "to": "x"}', '"text"'):
            here.take(odd)
        await until("all looked at", here._waiting.empty)
        for error in (NotFound("nobody waits"), Unreachable("gone")):
            client.error = error
            here.take('{"id": "1", "to": "10.0.0.1"}')
            await until("that error", lambda: client.error is None)
        here.take('{"id": "2", "to": "10.0.0.1", "from": "10.0.0.2", "more": 1}')
        await until("an answer", lambda: client.answers)
        assert client.answers == [("h1", "2", {"to": "10.0.0.1", "from": "10.0.0.2"})]
        assert not serving.done()
        serving.cancel()

    asyncio.run(body())


def test_a_flood_of_questions_is_dropped() -> None:
    async def body() -> None:
        here = Questions("h1")
        for _ in range(10 * questions.MOST):
            here.take('{"id": "1", "to": "10.0.0.1"}')
        assert here._waiting.qsize() == questions.MOST

    asyncio.run(body())
