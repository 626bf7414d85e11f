"""Modes beside veth, from the request to what is said of the workload; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.agents import play

from api.resources.errors import Conflict, Invalid
from api.resources.workload import Mode
from routed.agent import modes
from routed.agent.agent import Agent
from routed.agent.attachment import Attachment
from routed.agent.plan import announce
from routed.agent.request import AttachRequest, parse_attach
from routed.kernel.fake import FakeKernel
from routed.state import Report, slave_name

SLAVE = slave_name("up0")


async def attach(agent: Agent, name: str, **more: Any) -> Attachment:
    wanted = AttachRequest.model_validate({"name": name, "netns": name, **more})
    return (await agent.attach(wanted))[0]


def test_an_ipvlan_workload_is_reached_over_the_hosts_slave_and_says_so(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        record = await attach(agent, "web", mode="ipvlan-l3s")
        address = record.addresses[0]
        assert (record.parent, record.host_interface, record.gateway) == ("up0", SLAVE, "")
        assert agent.ready == {"web.h1": (address,)}
        assert f"route {address}/32 dev {SLAVE} proto 82 scope link" in kernel.host
        change = agent.workload_writes("web.h1")[0]
        status = change.object.status  # type: ignore[union-attr]
        said = {one.type: (one.status, one.reason) for one in status.conditions}
        assert said == {
            "Ready": ("True", "Attached"),
            "EgressRedundant": ("False", "OneUplink"),
            "PolicyEnforceable": ("True", "ByAddress"),
        }
        other = await attach(agent, "db", mode="ipvlan-l3s")
        assert "web.h1" in agent.due(), "who has a neighbour now says so"
        change = agent.workload_writes("web.h1")[0]
        told = {one.type: one for one in change.object.status.conditions}  # type: ignore[union-attr]
        said_now = told["PolicyEnforceable"]
        assert (said_now.status, said_now.reason) == ("False", "NeighboursUnseen")
        assert "what it and the others on up0 say to each other" in said_now.message
        agent.due()
        await attach(agent, "more", mode="ipvlan-l3s")
        assert not {"web.h1", "db.h1"} & agent.due(), "who had one already says nothing new"
        await agent.detach("more")
        agent.due()
        await agent.detach("db")
        assert "web.h1" in agent.due()
        await agent.detach("web")
        assert f"{other.addresses[0]}/32" not in str(kernel)
        assert not [line for line in kernel.host if f"{address}/32 " in line]
        assert kernel.inside["web"] == set()

    play(tmp_path, body, "web", "db", "more")


def test_who_is_attached_needs_no_uplink_to_be_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        record = await attach(agent, "web", mode="ipvlan-l3")

        def none(asked: str) -> str:
            raise Invalid("no uplink is up")

        monkeypatch.setattr(kernel, "parent", none)
        assert await attach(agent, "web", mode="ipvlan-l3") == record
        with pytest.raises(Invalid, match="no uplink is up"):
            await attach(agent, "db", mode="ipvlan-l3")

    play(tmp_path, body, "web", "db")


@pytest.mark.parametrize("container", ["", "c1"])
@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("mode", "ipvlan-l3"),
        ("bandwidth", {"ingressRate": 10_000_000}),
        ("mtu", 1400),
        ("defaultRoute", True),
        ("routes", ["10.71.0.0/16"]),
    ],
)
def test_who_is_attached_otherwise_than_asked_is_said(
    tmp_path: Path, field: str, asked: object, container: str
) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        named = {"containerID": container} if container else {}
        record = await attach(agent, "web", defaultRoute=False, routes=["10.70.0.0/16"], **named)
        assert await attach(agent, "web", **named) == record, "nothing else was asked for"
        again = named | {"defaultRoute": False, field: asked}
        with pytest.raises(Conflict, match=f"web.h1 is attached with another {field}") as caught:
            await attach(agent, "web", **again)
        assert [cause.field for cause in caught.value.causes] == [field]

    play(tmp_path, body, "web", "db")


def test_the_next_agent_goes_on_with_what_the_record_says(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        record = await attach(agent, "web", mode="ipvlan-l3")
        agent.records.load()
        assert agent.records.get("web.h1") == record
        await agent._round()
        assert agent.report.ready == {"web.h1": tuple(record.addresses)}
        before = str(kernel)
        await agent._round()
        assert (agent.report.changed, str(kernel)) == (0, before)
        kernel.flip("up0", "l3s")
        await agent._round()
        assert kernel.mode("up0") == "l3"
        told = agent.switched.condition(0)
        assert (told.status, told.reason) == ("True", "SwitchedByOthers")
        assert "somebody switched up0 to mode l3s" in told.message

    play(tmp_path, body, "web", "db")


def test_a_namespace_that_is_gone_ends_an_ipvlan_attachment(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        record = await attach(agent, "web", mode="ipvlan-l3")
        await agent._round()
        kernel.delete_namespace("web")
        await agent._round()
        assert agent.records.all() == {}
        assert not [line for line in kernel.host if f"{record.addresses[0]}/32 " in line]

    play(tmp_path, body, "web", "db")


def test_two_modes_on_one_parent_are_refused(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        await attach(agent, "web", mode="ipvlan-l3")
        with pytest.raises(Conflict, match="up0 carries workloads of mode ipvlan-l3; use"):
            await attach(agent, "db", mode="ipvlan-l3s")
        assert list(agent.records.all()) == ["web.h1"]
        assert len(agent.book.allocator.assigned) == 1

    play(tmp_path, body, "web", "db")


def test_a_workload_of_the_hosts_namespace_has_an_address_if_it_asks(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        plain = await attach(agent, "plain", netns="", mode="host")
        assert (plain.addresses, plain.host_interface, plain.gateway) == ([], "", "")
        asking = await attach(agent, "dns", netns="", mode="host", addresses=["10.65.0.9"])
        link = asking.host_interface
        assert f"address 10.65.0.9/32 dev {link}" in kernel.host
        assert agent.ready == {"plain.h1": (), "dns.h1": tuple(asking.addresses)}
        said = announce(agent.facts(), Report(ready=agent.ready))
        assert [str(prefix) for prefix in said] == ["10.65.0.9/32"]
        await agent._round()
        assert (agent.report.lost, agent.report.failed) == (frozenset(), {})
        for name in ("plain", "dns"):
            await agent.detach(name)
        assert not [line for line in kernel.host if link in line]

    play(tmp_path, body, "web", "db")


def test_none_is_a_namespace_without_address_and_says_nothing(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        record = await attach(agent, "web", mode="none")
        assert (record.addresses, agent.ready) == ([], {"web.h1": ()})
        assert announce(agent.facts(), Report(ready=agent.ready)) == {}
        assert kernel.inside["web"] == {"link lo up"}
        assert len(agent.book.allocator.assigned) == 0
        kernel.delete_namespace("web")
        await agent._round()
        assert agent.records.all() == {}

    play(tmp_path, body, "web", "db")


@pytest.mark.parametrize("if_name", ["eth0", "eth1"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("none", "veth"),
        ("veth", "none"),
        ("none", "none"),
        ("ipvlan-l3", "veth"),
        ("veth", "ipvlan-l3s"),
        ("ipvlan-l3", "ipvlan-l3"),
    ],
)
def test_some_modes_have_a_namespace_for_themselves(
    tmp_path: Path, first: str, second: str, if_name: str
) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        held = await attach(agent, "web", mode=first)
        before, assigned = set(kernel.inside["web"]), dict(agent.book.allocator.assigned)
        said = f"other by {second}: /run/netns/web is that of web.h1, of mode {first}"
        with pytest.raises(Conflict, match=said) as refused:
            only = {} if second == "none" else {"defaultRoute": second != "veth"}
            await attach(agent, "other", netns="web", mode=second, ifName=if_name, **only)
        assert [cause.field for cause in refused.value.causes] == ["netns"]
        assert (kernel.inside["web"], agent.book.allocator.assigned) == (before, assigned)
        assert list(agent.records.all()) == [held.id]
        await attach(agent, "third", netns="", mode="shared", sharedWith="web")

    play(tmp_path, body, "web")


def test_a_tap_is_handed_over_by_its_name(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        record = await attach(agent, "vm", netns="", mode="tap")
        view = record.wire_view(ready=True)
        assert view["peerInterface"] == view["hostInterface"] == record.host_interface
        assert (view["gateway"], view["mac"]) == ("169.254.1.1", record.mac)
        kernel.delete_link(record.host_interface)
        await agent._round()
        assert agent.report.ready == {"vm.h1": tuple(record.addresses)}, "made again"

    play(tmp_path, body, "web", "db")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"mode": "ipvlan-l3", "handOver": True}, "handOver: mode ipvlan-l3 has no hand-over form"),
        ({"mode": "ipvlan-l3"}, "netns: is needed by mode ipvlan-l3"),
        ({"mode": "none"}, "netns: is needed by mode none"),
        ({"mode": "none", "netns": "web", "pools": ["main"]}, "mode: none has no address"),
        ({"mode": "host", "netns": "web"}, "netns: mode host has none of its own"),
        ({"mode": "host", "handOver": True}, "handOver: mode host has no hand-over form"),
        ({"mode": "tap", "netns": "web"}, "netns: mode tap has none of its own"),
        ({"mode": "bridge", "netns": "web"}, "mode: "),
        ({"mode": "veth"}, "netns: say either which namespace, or handOver: true"),
    ],
)
def test_what_does_not_go_with_a_mode_is_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_attach(json.dumps({"name": "web", **asked}).encode())
    assert says in str(caught.value)
    assert len(caught.value.causes) == 1


def test_with_one_uplink_nothing_is_missing() -> None:
    held = {one.type: one for one in modes.conditions(Mode.IPVLAN_L3, "bond0", ["bond0"])}
    assert (held["EgressRedundant"].status, held["EgressRedundant"].message) == ("True", "")
    assert modes.conditions(Mode.VETH, "", ["eth0", "eth1"]) == []


def test_a_switched_mode_is_told_of_for_ten_minutes() -> None:
    switched = modes.Switched()
    switched.note({"eth0": "l2"}, 100.0)
    assert switched.condition(101.0).status == "True"
    assert switched.condition(100.0 + modes.WINDOW).status == "False"
