"""An agent of this release and a control plane of the next, or of one too far away."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import NODE, client_file, running_agent, speaking, until
from support.between import Between, Document, client_of
from support.service import Service

from api.resources import Condition
from api.resources.errors import RoutedError
from api.resources.ippool import Announce
from routed.agent.agent import Agent
from routed.agent.attachment import Attachment
from routed.agent.request import AttachRequest
from routed.agent.views import conditions
from routed.kernel.fake import FakeKernel

# an agent that is stopped while it connects leaves a transport to the collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
BEGIN = {"event": "begin", "revision": 1, "version": "0.1.7"}
END = {"event": "end", "revision": 1, "complete": False, "received": True}
NEXT, TOO_FAR = "0.2.0", "0.3.0"
FOREIGN = {"type": "Maintenance", "status": "True", "reason": "Planned", "message": "until noon"}


def more(document: Document) -> Document:
    """As a newer control plane shows it: a field more in every map, a condition more."""
    made = copy.deepcopy(document)
    for part in (made, made["metadata"], made["spec"], made.setdefault("status", {})):
        part["fromTheFuture"] = {"a": [1, None]}
    told = made["status"].setdefault("conditions", [])
    for condition in told:
        condition["severity"] = "high"
    told.append({"type": "Future", "status": "True", "reason": "New", "severity": "low"})
    return made


def skew_of(agent: Agent) -> Condition:
    return next(one for one in conditions(agent) if one.type == "VersionSkew")


def node_of(service: Service) -> dict[str, Any]:
    with service.http() as admin:
        found: dict[str, Any] = admin.get(f"/nodes/{NODE}").json()
    return found


def stored_conditions(service: Service) -> dict[str, dict[str, Any]]:
    status = node_of(service).get("status")  # of a refusal, of a Node that is not there, a word
    found = status.get("conditions", []) if isinstance(status, dict) else []
    return {one["type"]: one for one in found}


def workloads(service: Service) -> dict[str, dict[str, Any]]:
    with service.http() as admin:
        items = admin.get("/workloads").json()["items"]
    return {one["metadata"]["name"]: one for one in items}


async def attached(agent: Agent, kernel: FakeKernel, name: str) -> Attachment:
    kernel.add_namespace(name)
    wanted = AttachRequest.model_validate({"name": name, "netns": name})
    made, _ = await agent.attach(wanted)
    return made


async def working(agent: Agent, service: Service) -> None:
    await until("the agent being in sync", lambda: agent.control.in_sync)
    await until("its node being reported", lambda: "VersionSkew" in stored_conditions(service))


@pytest.fixture
def newer(passing: Between) -> Iterator[Between]:
    passing.version, passing.shown = NEXT, more
    passing.extra = [{"type": "PROGRESS", "object": {"done": 0.5}}]
    yield passing


def test_what_is_not_known_hinders_nothing_and_is_not_taken_away(
    service: Service, newer: Between, home: Path
) -> None:
    async def body() -> None:
        kernel = FakeKernel()
        async with running_agent(home, client_of(client_file(home), newer), kernel) as agent:
            await working(agent, service)
            with service.http() as admin:  # somebody else says something of the node
                told = {"status": {"conditions": [*stored_conditions(service).values(), FOREIGN]}}
                headers = {"content-type": "application/merge-patch+json"}
                url = f"/nodes/{NODE}/status"
                assert admin.patch(url, json=told, headers=headers).status_code == 200
            await attached(agent, kernel, "web")
            await until("a report", lambda: "web.h1" in workloads(service))
            async with speaking(home / "speaker.sock", [BEGIN, END]):
                await until(
                    "the node being reported anew",
                    lambda: stored_conditions(service)["BGPEstablished"]["reason"] != "NoSpeaker",
                )
            await until("the block's count", lambda: sum(counts(service)) == 1)
            await agent.detach("web")
            await until("the end of the report", lambda: "web.h1" not in workloads(service))
            assert skew_of(agent).status == "False"
        assert stored_conditions(service)["Maintenance"]["message"] == "until noon"

    asyncio.run(body())
    assert {one.method for one in newer.writes()} <= {"POST", "PATCH", "DELETE"}
    for one in newer.writes():
        assert "fromTheFuture" not in json.dumps(one.body)
        assert one.status < 300, (one, one.answer)
        if one.method == "PATCH":
            assert set(one.body) == {"metadata", "status"}
            assert set(one.body["metadata"]) == {"resourceVersion"}
            told = {c["type"] for c in one.body["status"].get("conditions", ())}
            assert not told & {"Future", "Maintenance"}
    assert sum(one.method == "DELETE" for one in newer.writes()) == 1  # of the report


def counts(service: Service) -> list[int]:
    with service.http() as admin:
        items = admin.get("/ipblocks").json()["items"]
    return [one["status"]["assigned"] for one in items]


def test_a_value_that_is_not_known_leaves_the_object_as_it_was_last_understood(
    service: Service, newer: Between, home: Path
) -> None:
    """Also for the next agent; other objects go on, and it is said on the Node."""

    def odd(document: Document) -> Document:
        made = more(document)
        if made["kind"] == "IPPool":
            made["spec"]["announce"] = "Everywhere"
            made["spec"]["disabled"] = True
        return made

    def understood(agent: Agent) -> bool:
        pool = agent.known_intent().pools["main"]
        return pool.spec.announce is Announce.HOSTS and not pool.spec.disabled

    async def body() -> None:
        kernel = FakeKernel()
        async with running_agent(home, client_of(client_file(home), newer), kernel) as agent:
            await working(agent, service)
            await attached(agent, kernel, "web")
            newer.shown = odd
            newer.end_watches()
            await until("its being unread", lambda: agent.control.known.unread)
            await until("the agent being in sync", lambda: agent.control.in_sync)
            assert understood(agent)
            assert set(agent.control.known.unread) == {("ippools", "main")}
            await until("the condition", lambda: skewed(service)["status"] == "True")
            said = skewed(service)
            assert said["reason"] == "ObjectsUnread"
            assert "ippools main" in said["message"]
            assert "spec.announce" in said["message"]
        async with running_agent(home, client_of(client_file(home), newer), kernel) as agent:
            await working(agent, service)
            assert understood(agent)
            assert agent.records.get("web.h1")
            await attached(agent, kernel, "db")  # the rest works
            await until("a report", lambda: "db.h1" in workloads(service))
            newer.shown = more
            newer.end_watches()
            await until("its being read", lambda: not agent.control.known.unread)
            await until("the condition", lambda: skewed(service)["status"] == "False")

    asyncio.run(body())


def skewed(service: Service) -> dict[str, Any]:
    return stored_conditions(service)["VersionSkew"]


def test_an_object_that_was_never_understood_is_left_out(
    service: Service, newer: Between, home: Path
) -> None:
    def odd(document: Document) -> Document:
        made = more(document)
        if made["metadata"]["name"] == "odd":
            made["spec"]["mode"] = "quantum"
        return made

    async def body() -> None:
        newer.shown = odd
        with service.http() as admin:
            told = {"metadata": {"name": NODE}, "spec": {}}
            assert admin.post("/nodes", json=told).status_code == 201
            for name in ("odd", "even"):
                spec = {"node": NODE, "netns": name}
                made = admin.post("/workloads", json={"metadata": {"name": name}, "spec": spec})
                assert made.status_code == 201, made.text
            kernel = FakeKernel()
            for name in ("odd", "even"):
                kernel.add_namespace(name)
            async with running_agent(home, client_of(client_file(home), newer), kernel) as agent:
                await until("the other one", lambda: agent.records.get("even"))
                assert agent.records.get("odd") is None
                assert ("workloads", "odd") in agent.control.known.unread
                assert admin.delete("/workloads/odd").status_code == 200
                await until("its end", lambda: not agent.control.known.unread)

    asyncio.run(body())


@pytest.mark.parametrize("version", [TOO_FAR, "1.0.0", "soon"])
def test_a_control_plane_too_far_away_is_one_that_is_down(
    service: Service, passing: Between, home: Path, version: str
) -> None:
    """What runs goes on, held blocks are used, and nothing is written but why."""

    async def body() -> None:
        kernel = FakeKernel()
        async with running_agent(home, client_of(client_file(home), passing), kernel) as agent:
            await working(agent, service)
            await attached(agent, kernel, "web")
            await until("a report", lambda: "web.h1" in workloads(service))
            passing.version, passing.shown = version, more
            passing.end_watches()
            await until("its saying so", lambda: skewed(service)["status"] == "True")
            before, intent = len(passing.writes()), agent.intent
            await attached(agent, kernel, "headless")
            await agent.detach("web")
            with pytest.raises(RoutedError, match=r"one minor version apart|which is none"):
                await agent.control.claim(pool="main")
            assert not agent.control.in_sync
            assert agent.intent is intent
            said = skewed(service)
            assert said["reason"] == "ControlPlane"
            assert version in said["message"]
            assert skew_of(agent).status == "True"
            assert "web.h1" in workloads(service)
            late = passing.writes()[before:]
            assert all(one.path.startswith("/apis/routed.dev/v1/nodes/h1/status") for one in late)
        async with running_agent(home, client_of(client_file(home), passing), kernel) as agent:
            await until("the same for a new agent", lambda: agent.control.skew)
            assert agent.records.get("headless.h1")
            assert agent.known_intent().pools
            await until("it read back", lambda: "headless.h1" in agent.ready)
            passing.version = NEXT
            await until("its being in sync", lambda: agent.control.in_sync, 40)
            await until("the reports", lambda: set(workloads(service)) == {"headless.h1"})
            await until("the condition", lambda: skewed(service)["status"] == "False")

    asyncio.run(body())


def test_a_host_that_is_new_waits_for_a_control_plane_near_enough(
    service: Service, passing: Between, home: Path
) -> None:
    async def body() -> None:
        passing.version = TOO_FAR
        async with running_agent(home, client_of(client_file(home), passing)) as agent:
            await until("its saying so", lambda: agent.control.problem)
            assert TOO_FAR in agent.control.problem
            assert node_of(service)["kind"] == "Status"  # it has not registered
            passing.version = None
            await until("its being in sync", lambda: agent.control.in_sync, 40)
            await working(agent, service)

    asyncio.run(body())
