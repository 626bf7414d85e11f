"""Mapped ports at attach and detach: who has which, refusals, and nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any

import pytest
from support.agents import agent_on

from api.resources.errors import AlreadyExists, ApplyError, Conflict, Invalid
from routed.agent.agent import Agent
from routed.agent.request import AttachRequest, parse_attach
from routed.kernel.fake import FakeKernel

EIGHTY = {"port": 80, "hostPort": 8080}


def wanted(name: str, *ports: dict[str, Any], **more: Any) -> AttachRequest:
    return AttachRequest.model_validate({"name": name, "netns": name, "ports": list(ports), **more})


def mapped(agent: Agent) -> set[str]:
    assert agent.filtering.nat is not None
    return {
        f"{one.host_ip or '*'} {one.protocol} {one.host_port} {one.address} {one.port}"
        for one in agent.filtering.nat.ports
    }


def with_agent(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """The test gets an agent whose writer serves, and its kernel."""

    def whole(tmp_path: Path, **more: Any) -> None:
        async def body() -> None:
            kernel = FakeKernel()
            for name in ("web", "db", "other"):
                kernel.add_namespace(name)
            agent = agent_on(kernel, tmp_path)
            serving = asyncio.create_task(agent.writer.serve())
            await test(agent, kernel, **more)
            serving.cancel()

        asyncio.run(body())

    names = [name for name in signature(test).parameters if name not in ("agent", "kernel")]
    inside = [Parameter(name, Parameter.KEYWORD_ONLY) for name in ("tmp_path", *names)]
    whole.__signature__ = Signature(inside)  # type: ignore[attr-defined]
    whole.__name__ = test.__name__
    return whole


@with_agent
async def test_what_is_mapped_goes_with_its_workload(agent: Agent, kernel: FakeKernel) -> None:
    more = {"port": 53, "protocol": "UDP", "hostPort": 53, "hostIP": "192.0.2.1"}
    record, _ = await agent.attach(wanted("web", EIGHTY, more, {"port": 9}))
    address = record.addresses[0]
    assert mapped(agent) == {f"* tcp 8080 {address} 80", f"192.0.2.1 udp 53 {address} 53"}
    assert agent.view(record)["ports"][0]["hostPort"] == 8080
    assert record.spec().ports == record.ports
    agent.filtering.nat = None
    await agent.writer.synced()
    assert len(mapped(agent)) == 2, "a round says the same"
    await agent.detach("web")
    assert mapped(agent) == set()
    await agent.attach(wanted("db", EIGHTY))
    assert len(mapped(agent)) == 1


@pytest.mark.parametrize(
    ("first", "second", "free"),
    [
        ({}, {}, False),
        ({"hostIP": "192.0.2.1"}, {}, False),
        ({"hostIP": "192.0.2.1"}, {"hostIP": "192.0.2.1"}, False),
        ({"hostIP": "0.0.0.0"}, {"hostIP": "192.0.2.1"}, False),
        ({"hostIP": "192.0.2.1"}, {"hostIP": "192.0.2.2"}, True),
        ({"hostIP": "192.0.2.1"}, {"hostPort": 8081}, True),
        ({}, {"protocol": "UDP"}, True),
    ],
)
@with_agent
async def test_a_port_that_somebody_has_is_refused(
    agent: Agent, kernel: FakeKernel, first: Any, second: Any, free: bool
) -> None:
    await agent.attach(wanted("web", {**EIGHTY, **first}))
    await agent.writer.synced()
    before, had = str(kernel), mapped(agent)
    asked = wanted("db", {"port": 1}, {**EIGHTY, **second})
    if free:
        await agent.attach(asked)
        return
    with pytest.raises(Conflict) as refused:
        await agent.attach(asked)
    assert "port 8080/TCP of node h1 is mapped to web.h1" in str(refused.value)
    assert refused.value.causes[0].field == "ports[1].hostPort"
    assert (str(kernel), mapped(agent)) == (before, had)
    await agent.detach("web")
    await agent.attach(asked)


@with_agent
async def test_a_port_of_the_hosts_own_is_refused(agent: Agent, kernel: FakeKernel) -> None:
    kernel.add("socket TCP 0.0.0.0 8080")
    kernel.add("socket TCP 127.0.0.1 8081")
    with pytest.raises(Conflict, match=r"8080/TCP of node h1 is the host's own.*0\.0\.0\.0"):
        await agent.attach(wanted("web", EIGHTY))
    assert agent.records.held == {}
    await agent.attach(wanted("web", {"port": 80, "hostPort": 8081}))


@with_agent
async def test_nothing_is_left_of_what_fails(agent: Agent, kernel: FakeKernel) -> None:
    kernel.refuse["web.h1"] = errno.EPERM
    with pytest.raises(ApplyError):
        await agent.attach(wanted("web", EIGHTY))
    assert mapped(agent) == set()
    with pytest.raises(Invalid, match=r"ports\[0\]\.hostIP 2001:db8::1: the workload has no IPv6"):
        await agent.attach(wanted("db", {**EIGHTY, "hostIP": "2001:db8::1"}))
    with pytest.raises(Invalid, match=r"ports\[0\]\.hostPort mode ipvlan-l3s has no mapped ports"):
        await agent.attach(wanted("db", EIGHTY, mode="ipvlan-l3s"))
    await agent.attach(wanted("db", EIGHTY))
    with pytest.raises(AlreadyExists, match="with other ports"):
        await agent.attach(wanted("db", {"port": 81, "hostPort": 8080}))


@with_agent
async def test_the_next_agent_knows_who_has_which(agent: Agent, kernel: FakeKernel) -> None:
    await agent.attach(wanted("web", EIGHTY))
    had = mapped(agent)
    following = agent_on(kernel, agent.settings.run_dir)
    serving = asyncio.create_task(following.writer.serve())
    with pytest.raises(Conflict, match=r"is mapped to web\.h1"):  # before its first round
        await following.attach(wanted("db", EIGHTY))
    await following.writer.synced()
    assert mapped(following) == had
    serving.cancel()


@pytest.mark.parametrize(
    ("port", "field", "said"),
    [
        ({"port": 80, "hostIP": "192.0.2.1"}, "ports[0].hostIP", "of no use without hostPort"),
        ({**EIGHTY, "hostIP": "127.0.0.1"}, "ports[0].hostIP", "loopback addresses are not"),
        ({**EIGHTY, "hostIP": "::1"}, "ports[0].hostIP", "loopback addresses are not"),
        ({**EIGHTY, "hostPort": 179}, "ports[0].hostPort", "179/TCP is BGP's"),
        ({**EIGHTY, "hostPort": -1}, "ports[0].hostPort", "greater than or equal to 0"),
        ({**EIGHTY, "protocol": "tcp"}, "ports[0].protocol", "pattern"),
    ],
)
def test_bad_ports_of_a_request(port: dict[str, Any], field: str, said: str) -> None:
    body = json.dumps({"name": "web", "netns": "web", "ports": [port]}).encode()
    with pytest.raises(Invalid) as refused:
        parse_attach(body)
    assert [cause.field for cause in refused.value.causes] == [field]
    assert said in str(refused.value)


def test_a_port_mapped_twice_by_one_workload() -> None:
    body = json.dumps({"name": "web", "netns": "web", "ports": [EIGHTY, EIGHTY]}).encode()
    with pytest.raises(Invalid, match=r"ports\[1\]\.hostPort: 8080/TCP is mapped twice"):
        parse_attach(body)
