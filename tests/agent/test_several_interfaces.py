"""Several interfaces in one namespace: which has the default route, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.agents import agent_on

from api.resources.errors import Conflict, Invalid
from routed.agent.request import AttachRequest, parse_attach
from routed.kernel.fake import FakeKernel


def wanted(name: str, if_name: str, **more: Any) -> AttachRequest:
    document = {"name": name, "netns": "web", "ifName": if_name, **more}
    return AttachRequest.model_validate(document)


def test_one_default_route_and_any_number_of_others(tmp_path: Path) -> None:
    async def body() -> None:
        kernel = FakeKernel()
        kernel.add_namespace("web")
        agent = agent_on(kernel, tmp_path)
        serving = asyncio.create_task(agent.writer.serve())
        await agent.attach(wanted("web", "eth0"))
        await agent.writer.synced()
        before = str(kernel)
        with pytest.raises(Conflict) as refused:
            await agent.attach(wanted("two", "eth1"))
        assert "the default route of /run/netns/web is that of web.h1 (eth0)" in str(refused.value)
        assert "defaultRoute: false" in str(refused.value)
        assert refused.value.causes[0].field == "defaultRoute"
        with pytest.raises(Invalid, match=r"routes\[0\] fd00::/64: the workload has no IPv6"):
            await agent.attach(wanted("two", "eth1", defaultRoute=False, routes=["fd00::/64"]))
        assert str(kernel) == before
        assert set(agent.records.held) == {"web.h1"}
        second, _ = await agent.attach(
            wanted("two", "eth1", defaultRoute=False, routes=["10.70.0.0/16"])
        )
        assert second.gateway == ""
        assert second.spec().routes == second.routes
        assert agent.view(second)["defaultRoute"] is False
        await agent.attach(wanted("three", "eth2", defaultRoute=False))
        await agent.detach("web")
        assert set(agent.ready) == {"two.h1", "three.h1"}
        await agent.attach(wanted("four", "eth4"))
        await agent.detach("two")
        await agent.detach("three")
        await agent.writer.synced()
        assert set(agent.ready) == {"four.h1"}
        assert not any("rule" in line for line in kernel.inside["web"])
        serving.cancel()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("more", "field", "said"),
    [
        ({"routes": ["10.70.0.0/16"]}, "routes", "with defaultRoute: false only"),
        ({"defaultRoute": False, "routes": ["0.0.0.0/0"]}, "routes[0]", "is the default route"),
        ({"defaultRoute": False, "routes": ["10.70.0.1/16"]}, "routes[0]", ""),
        ({"defaultRoute": False, "netns": "", "handOver": True}, "defaultRoute", "needs netns"),
    ],
)
def test_what_cannot_be(more: dict[str, Any], field: str, said: str) -> None:
    body = json.dumps({"name": "web", "netns": "web", **more}).encode()
    with pytest.raises(Invalid) as refused:
        parse_attach(body)
    assert [cause.field for cause in refused.value.causes] == [field]
    assert said in str(refused.value)
