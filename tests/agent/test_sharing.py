"""Mode shared: whose namespace it is, and that the last of them frees it."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.agents import agent_on, play, until

from api.client.answers import Unreachable
from api.resources import ObjectMeta, Workload
from api.resources.errors import Conflict, Invalid, NotFound
from api.resources.workload import WorkloadSpec
from routed import steps
from routed.agent import records
from routed.agent.agent import Agent
from routed.agent.attachment import Attachment
from routed.agent.plan import announce
from routed.agent.request import AttachRequest, parse_attach
from routed.kernel.fake import FakeKernel
from routed.state import Report


async def attach(agent: Agent, name: str, **more: Any) -> Attachment:
    wanted = AttachRequest.model_validate({"name": name, **more})
    return (await agent.attach(wanted))[0]


def share(agent: Agent, name: str, holder: str = "pod") -> Awaitable[Attachment]:
    return attach(agent, name, mode="shared", sharedWith=holder)


def announced(agent: Agent) -> list[str]:
    return [str(prefix) for prefix in announce(agent.facts(), Report(ready=agent.ready))]


def test_the_last_detach_frees_the_namespace(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        pod = await attach(agent, "pod", netns="pod")
        address = f"{pod.addresses[0]}/32"
        one, two = await share(agent, "one"), await share(agent, "two", "one")
        assert (one.shared_with, two.shared_with) == ("pod.h1", "pod.h1"), "whoever was named"
        assert (one.addresses, one.host_interface) == ([], "")
        before = str(kernel)
        kept = await agent.detach("pod")
        assert kept.leaving
        await agent.detach("one")
        await agent._round()
        assert agent.ready == {"pod.h1": tuple(pod.addresses), "two.h1": ()}
        assert announced(agent) == [address]
        assert set(before.splitlines()) <= set(str(kernel).splitlines())
        await agent.detach("two")
        assert agent.records.all() == {}
        assert announced(agent) == []
        assert kernel.inside["pod"] == set()
        assert not [line for line in kernel.host if f"{address} " in line]

    play(tmp_path, body, "pod")


def test_a_holder_without_sharers_goes_at_once_and_their_end_leaves_it(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        await attach(agent, "pod", netns="pod")
        await share(agent, "one")
        await agent.detach("one")
        assert list(agent.records.all()) == ["pod.h1"], "it was not detached itself"
        await agent.detach("pod")
        assert agent.records.all() == {}

    play(tmp_path, body, "pod")


def test_a_holder_that_is_attached_anew_stays(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        first = await attach(agent, "pod", netns="pod")
        await share(agent, "one")
        await agent.detach("pod")
        again = await attach(agent, "pod", netns="pod")
        assert (again.addresses, again.leaving) == (first.addresses, False)
        await agent.detach("one")
        assert list(agent.records.all()) == ["pod.h1"]

    play(tmp_path, body, "pod")


def test_the_next_agent_knows_who_shares_and_who_leaves(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        await attach(agent, "pod", netns="pod")
        await share(agent, "one")
        await agent.detach("pod")
        agent.records.load()
        await agent._round()
        assert set(agent.ready) == {"pod.h1", "one.h1"}
        await agent.detach("one")
        assert agent.records.all() == {}

    play(tmp_path, body, "pod")


def declare(agent: Agent, *names: str) -> None:
    """The service's workloads of this node are these now."""
    spec = WorkloadSpec(node="h1", netns="pod")
    declared = {name: Workload(metadata=ObjectMeta(name=name), spec=spec) for name in names}
    agent.intent_changed(replace(agent.known_intent(), declared=declared))


class Killed(BaseException):
    """The agent dies."""


@pytest.mark.parametrize("again", [False, True], ids=["killed", "killed in the holder's turn"])
def test_the_next_agent_finishes_a_holder_whose_sharers_have_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    passed = []

    def kill(point: steps.Point) -> None:
        passed.append(point)
        if passed.count(steps.Point.MARKED if again else steps.Point.FORGOTTEN) == 1 + again:
            raise Killed

    async def body(agent: Agent, kernel: FakeKernel) -> None:
        await attach(agent, "pod", netns="pod")
        await share(agent, "one")
        await agent.detach("pod")
        monkeypatch.setattr(steps, "observer", kill)
        with pytest.raises(Killed):
            await agent.detach("one")
        monkeypatch.undo()
        after = agent_on(kernel, tmp_path)
        assert list(after.records.all()) == ["pod.h1"]
        await after._round()
        assert after.records.all() == {}
        assert announced(after) == []
        assert kernel.inside["pod"] == set()

    play(tmp_path, body, "pod")


def test_a_full_disk_keeps_no_holder_from_leaving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes, *, durable: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def body(agent: Agent, kernel: FakeKernel) -> None:
        kernel.add_namespace("other")
        await attach(agent, "pod", netns="other")
        await share(agent, "one")
        declare(agent, "web")
        await agent.attach_candidate(
            agent.declared._candidate(agent.known_intent().declared["web"])
        )
        await share(agent, "two", "web")
        monkeypatch.setattr(records, "write_atomic", full)
        assert (await agent.detach("pod")).leaving
        declare(agent)
        await agent._round()
        assert agent.records.all()["web"].leaving
        await agent.detach("one")
        await agent.detach("two")
        assert agent.records.all() == {}

    play(tmp_path, body, "pod")


def test_a_declared_holder_that_is_declared_again_stays(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        serving = asyncio.create_task(agent.declared.serve())
        declare(agent, "web")
        await until("attached", lambda: agent.records.get("web"))
        await share(agent, "one", "web")
        declare(agent)
        await agent.writer.synced()
        assert agent.records.all()["web"].leaving
        declare(agent, "web")
        await until("it stays", lambda: not agent.records.all()["web"].leaving)
        await agent.detach("one")
        assert list(agent.records.all()) == ["web"]
        serving.cancel()

    play(tmp_path, body, "pod")


def test_what_is_declared_again_while_it_is_taken_away_is_attached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        serving = asyncio.create_task(agent.declared.serve())
        declare(agent, "web")
        await until("attached", lambda: agent.records.get("web"))
        await agent.writer.synced()
        detach, done = kernel.detach, []

        async def slow(*asked: Any) -> None:
            declare(agent, "web")
            await asyncio.sleep(0.1)  # it is looked for, and is there still
            await detach(*asked)
            done.append(asked)

        monkeypatch.setattr(kernel, "detach", slow)
        declare(agent)
        await until("taken away", lambda: done)
        await until("attached again", lambda: agent.records.get("web"))
        serving.cancel()

    play(tmp_path, body, "pod")


def test_a_holder_that_is_attached_anew_needs_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        first = await attach(agent, "pod", netns="pod")
        await share(agent, "one")
        await agent.detach("pod")

        async def refused(*_: object) -> None:
            raise Unreachable("no service")

        monkeypatch.setattr(agent.book, "prepare", refused)
        assert (await attach(agent, "pod", netns="pod")).addresses == first.addresses

    play(tmp_path, body, "pod")


def test_a_namespace_that_is_gone_ends_all_that_share_it(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        await attach(agent, "pod", netns="pod")
        await share(agent, "one")
        await share(agent, "two")
        kernel.delete_namespace("pod")
        await agent._round()
        assert agent.records.all() == {}
        assert announced(agent) == []

    play(tmp_path, body, "pod")


def test_whom_nobody_can_share_with(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        with pytest.raises(NotFound, match="cannot find attachment pod"):
            await share(agent, "one")
        await attach(agent, "dns", mode="host")
        with pytest.raises(Invalid, match=r"dns\.h1 \(mode host\) has no namespace"):
            await share(agent, "one", "dns")
        await attach(agent, "pod", netns="pod")
        wanted = await share(agent, "one")
        await agent.detach("one")
        await agent.detach("pod")
        with pytest.raises(Conflict, match=r"pod\.h1 is not attached on node h1"):
            await agent.attach_candidate(wanted)
        assert list(agent.records.all()) == ["dns.h1"]

    play(tmp_path, body, "pod")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"mode": "shared"}, "sharedWith: is needed by mode shared"),
        ({"mode": "shared", "sharedWith": "a", "netns": "b"}, "netns: mode shared has none of its"),
        ({"mode": "shared", "sharedWith": "a", "pools": ["p"]}, "mode: shared has those of its"),
        ({"netns": "b", "sharedWith": "a"}, "sharedWith: is of no use in mode veth"),
    ],
)
def test_what_does_not_go_with_it_is_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_attach(json.dumps({"name": "web", **asked}).encode())
    assert says in str(caught.value)
