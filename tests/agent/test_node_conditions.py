"""A Node's conditions as the agent says them, and what people are told because of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.agents import agent_on

from api.resources import KINDS, Node, ObjectMeta
from api.resources.event import events_of
from api.resources.node import NodeStatus
from routed.agent.views import conditions
from routed.kernel.fake import FakeKernel

META = ObjectMeta(name="h1", creation_timestamp="2026-01-01T00:00:00Z")
NEED_OTHERS = {"Ready", "BGPEstablished", "AddressesConsistent"}  # a speaker, a service


def test_nobody_is_warned_of_a_healthy_node(tmp_path: Path) -> None:
    """Of some conditions it is False that is well, and events have to know which."""

    async def body() -> None:
        agent = agent_on(FakeKernel(), tmp_path)
        await agent._round()
        said = [one for one in conditions(agent) if one.type not in NEED_OTHERS]
        assert len(said) >= 5
        node = Node(metadata=META, status=NodeStatus(conditions=said))
        told = events_of(KINDS["nodes"], node.wire())
        assert [one["message"] for one in told if one["type"] != "Normal"] == []

    asyncio.run(body())
