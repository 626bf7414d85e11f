"""Mode shared: whose namespace it is, and that the last of them frees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.agents import agent_on

from api.resources.errors import Conflict, Invalid, NotFound
from routed.agent.agent import Agent
from routed.agent.attachment import Attachment
from routed.agent.plan import announce
from routed.agent.request import AttachRequest, parse_attach
from routed.kernel.fake import FakeKernel
from routed.state import Report


def play(directory: Path, body: Callable[[Agent, FakeKernel], Awaitable[None]]) -> None:
    async def whole() -> None:
        kernel = FakeKernel()
        kernel.add_namespace("pod")
        agent = agent_on(kernel, directory)
        serving = asyncio.create_task(agent.writer.serve())
        try:
            await body(agent, kernel)
        finally:
            serving.cancel()

    asyncio.run(whole())


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

    play(tmp_path, body)


def test_a_holder_without_sharers_goes_at_once_and_their_end_leaves_it(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        await attach(agent, "pod", netns="pod")
        await share(agent, "one")
        await agent.detach("one")
        assert list(agent.records.all()) == ["pod.h1"], "it was not detached itself"
        await agent.detach("pod")
        assert agent.records.all() == {}

    play(tmp_path, body)


def test_a_holder_that_is_attached_anew_stays(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        first = await attach(agent, "pod", netns="pod")
        await share(agent, "one")
        await agent.detach("pod")
        again = await attach(agent, "pod", netns="pod")
        assert (again.addresses, again.leaving) == (first.addresses, False)
        await agent.detach("one")
        assert list(agent.records.all()) == ["pod.h1"]

    play(tmp_path, body)


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

    play(tmp_path, body)


def test_a_namespace_that_is_gone_ends_all_that_share_it(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        await attach(agent, "pod", netns="pod")
        await share(agent, "one")
        await share(agent, "two")
        kernel.delete_namespace("pod")
        await agent._round()
        assert agent.records.all() == {}
        assert announced(agent) == []

    play(tmp_path, body)


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

    play(tmp_path, body)


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
