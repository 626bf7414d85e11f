"""HostEndpoints on one host, on a kernel and a filter that are not: whose interfaces are filtered,
what workloads notice of it, and what is said of those that are not in effect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from support.agents import agent_on
from support.policing import KeptFilter, allow_from, applied, declare, enforced, played, policy

from api.client import WatchEvent
from api.client.selections import Entries
from api.resources import HostEndpoint
from api.resources.errors import ConfigError
from policies.compile.closed import closed
from policies.failsafe import ALWAYS
from routed.addressing import Held, Interface
from routed.agent import hosts
from routed.agent.agent import Agent
from routed.agent.control import Control
from routed.agent.intent import Encoder, by_kind, only_policies, parse
from routed.agent.request import AttachRequest
from routed.agent.speech import Speech
from routed.agent.told import Known
from routed.kernel import interfaces
from routed.kernel.fake import FakeKernel
from routed.settings import AgentSettings, load

SHUT = policy("shut", selector="role == 'edge'", types=["Ingress", "Egress"])
IN, OUT = "policy-host-in", "policy-host-out"
Body = Callable[[Agent, FakeKernel, KeptFilter], Awaitable[None]]


def edge(name: str = "edge", labels: dict[str, str] | None = None, **spec: Any) -> HostEndpoint:
    """`spec` as on the wire; of any interface if that says none."""
    metadata = {"name": name, "labels": {"role": "edge"} if labels is None else labels}
    wire = {"node": "h1", **(spec or {"interfaceName": "up0"})}
    return HostEndpoint.model_validate({"metadata": metadata, "spec": wire})


def play(directory: Path, body: Body) -> None:
    played(directory, body, KeptFilter())


def put(agent: Agent, *policies: Any, ends: tuple[HostEndpoint, ...] = (), **more: Any) -> None:
    declare(agent, *policies, host_endpoints={one.metadata.name: one for one in ends}, **more)


def rules(table: KeptFilter, name: str) -> str:
    return "\n".join(table.rules.chains[name].rules) if name in table.rules.chains else ""


async def attach(agent: Agent, name: str, **more: str) -> str:
    said = {"name": name, "netns": name, "labels": {"app": name}, **more}
    wanted = AttachRequest.model_validate(said)
    return (await agent.attach(wanted))[0].host_interface


def test_an_endpoint_alone_filters_nothing_and_a_policy_does_without_a_round(
    tmp_path: Path,
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        rounds = agent.rounds
        put(agent, ends=(edge(),))
        await applied(agent)
        assert not table.rules
        put(agent, SHUT, ends=(edge(),))
        await applied(agent)
        assert 'iifname "up0" goto ingress-of-' in rules(table, IN)
        assert 'oifname "up0" goto egress-of-' in rules(table, OUT)
        assert "policy-forward-in" not in table.rules.chains
        put(agent, SHUT)
        await applied(agent)
        assert not table.rules
        assert agent.rounds == rounds
        assert enforced(agent).status == "True"

    play(tmp_path, body)


def test_workloads_that_nothing_selects_come_and_go_as_where_there_are_no_policies(
    tmp_path: Path,
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        put(agent, SHUT, ends=(edge(),))
        await applied(agent)
        before = table.rules
        table.steps.clear()
        await attach(agent, "web")
        assert (table.rules, table.steps) == (before, [])
        await agent.writer.synced()
        assert table.rules == before, "a round says the same"
        await agent.detach("web")
        assert table.rules == before
        db = policy("db", selector="app == 'db'", ingress=[{"action": "Allow"}])
        put(agent, SHUT, db, ends=(edge(),))
        await applied(agent)
        assert table.rules == before, "there is nobody whom it is for"
        link = await attach(agent, "db")
        assert link in table.links()
        assert rules(table, IN)
        await agent.detach("db")
        assert table.rules == before

    play(tmp_path, body)


def test_a_workload_that_nothing_selects_waits_for_the_filter_like_all_others(
    tmp_path: Path,
) -> None:
    """Though it is in none of its sets."""

    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        put(agent, SHUT, ends=(edge(),))
        await applied(agent)
        before = table.rules
        table.flush()
        agent.filtering.heard(touched=True)
        await attach(agent, "web")
        assert table.rules == before, "what somebody took away is back first"

    play(tmp_path, body)


def test_ipvlan_workloads_are_not_the_host(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        put(agent, SHUT, ends=(edge(),))
        await applied(agent)
        before = table.rules
        await attach(agent, "web", mode="ipvlan-l3")
        (record,) = agent.records.held.values()
        assert table.rules.sets["slaves4"].elements == {str(record.addresses[0])}
        assert rules(table, IN).index("ip daddr @slaves4 accept") < rules(table, IN).index("goto")
        assert rules(table, OUT).index("ip saddr @slaves4 accept") < rules(table, OUT).index("goto")
        await agent.detach("web")
        assert table.rules == before

    play(tmp_path, body)


def test_an_interface_that_is_not_there_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {"eht0": "no interface is called eht0 now"}
    monkeypatch.setattr(interfaces, "missing", lambda names: gone if "eht0" in names else {})

    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        put(agent, SHUT, ends=(edge(interfaceName="eht0"), edge("no", {}, interfaceName="eht0")))
        await applied(agent)
        assert 'iifname "eht0" goto' in rules(table, IN), "in effect once it is there"
        condition = enforced(agent)
        assert (condition.status, condition.reason) == ("True", "AllEnforced")
        assert condition.message == "HostEndpoint edge: no interface is called eht0 now"
        put(agent, SHUT, ends=(edge(),))
        await applied(agent)
        assert enforced(agent).message == ""

    play(tmp_path, body)


def test_of_several_of_one_interface_the_others_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interfaces, "missing", lambda names: {})

    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        put(agent, SHUT, ends=(edge(), edge("late")))
        await applied(agent)
        condition = enforced(agent)
        assert (condition.status, condition.reason) == ("False", "InterfaceUnknown")
        assert condition.message == "HostEndpoint late: up0 is that of HostEndpoint edge"
        put(agent, SHUT, ends=(edge(), edge("late", labels={})))
        await applied(agent)
        assert enforced(agent).status == "True", "nothing is lost"

    play(tmp_path, body)


def test_what_rules_of_the_host_select_are_members_of_this_host_at_once(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        web = "app == 'web'"
        put(agent, policy("in", selector="role == 'edge'", ingress=allow_from(web)), ends=(edge(),))
        await applied(agent)
        assert agent.guard.enforcement.needs.selectors == {web}
        assert enforced(agent).reason == "MembersUnknown"
        agent.guard.members.known[web] = Known(Entries(), "1")
        agent.guard.changed()
        await applied(agent)
        assert enforced(agent).status == "True"
        await attach(agent, "web")
        (record,) = agent.records.held.values()
        assert table.members(web) == {str(record.addresses[0])}
        assert table.links() == set()
        await agent.detach("web")
        assert table.members(web) == set()

    play(tmp_path, body)


def test_a_flush_brings_it_back_and_so_does_the_next_agent(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        put(agent, SHUT, ends=(edge(),))
        await applied(agent)
        before = table.rules
        table.flush()
        agent.filtering.heard(touched=True)
        await agent.writer.synced()
        assert before
        assert table.rules == before
        assert agent.intent is not None
        intent, reports = parse(Encoder().encode(agent.intent, {}))
        following = agent_on(kernel, agent.settings.run_dir)
        following.filtering.table.filter = other = KeptFilter()
        following.intent_changed(intent)
        serving = asyncio.create_task(following.writer.serve())
        await following.writer.synced()
        assert (other.rules, reports) == (before, {})
        serving.cancel()

    play(tmp_path, body)


def test_where_the_hosts_rules_are_refused_workloads_are_not_closed(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        link = await attach(agent, "web")
        following = agent_on(kernel, agent.settings.run_dir)
        following.filtering.table.filter = other = KeptFilter()
        other.refuses = "host-in"
        put(following, SHUT, ends=(edge(),))
        serving = asyncio.create_task(following.writer.serve())
        await following.writer.synced()
        assert enforced(following).reason == "RulesRefused"
        assert not other.rules
        db = policy("web", selector="app == 'web'", ingress=[{"action": "Allow"}])
        put(following, SHUT, db, ends=(edge(),))
        await applied(following)
        assert other.rules == closed(), "these it was not to leave open"
        other.refuses = ""
        await following.writer.synced()
        assert link in other.links()
        assert enforced(following).status == "True"
        serving.cancel()

    play(tmp_path, body)


def test_endpoints_are_intent_and_change_without_a_round(tmp_path: Path) -> None:
    control = Control(AgentSettings(node="h1", run_dir=tmp_path, state_dir=tmp_path), None)
    for kind, event in (("BEGIN", None), ("ADDED", edge()), ("END", None)):
        change = control.known.take("hostendpoints", WatchEvent(kind, event))
    assert change.decides
    intent = control.known.intent()
    assert intent.host_endpoints == {"edge": edge()}
    assert parse(Encoder().encode(intent, {})) == (intent, {})
    assert by_kind(intent, {})["hostendpoints"] == {"edge": edge()}
    control.known.take("hostendpoints", WatchEvent("DELETED", edge()))
    assert only_policies(intent, control.known.intent())


def test_one_told_by_its_addresses_is_where_these_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"name": "up7"}

    def read() -> list[Interface]:
        held = (Held(ip_address("192.0.2.9")),)
        return [Interface("lo", True, held), Interface(where["name"], True, held)]

    monkeypatch.setattr(interfaces, "read", read)

    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        here, nowhere = edge(expectedIPs=["192.0.2.9"]), edge("gone", expectedIPs=["192.0.2.10"])
        put(agent, SHUT, ends=(here, nowhere))
        await applied(agent)
        assert 'iifname "up7" goto' in rules(table, IN)
        condition = enforced(agent)
        assert (condition.status, condition.reason) == ("False", "InterfaceUnknown")
        assert condition.message == "HostEndpoint gone: no interface but loopback has 192.0.2.10"
        where["name"] = "up8"
        await agent.writer.synced()
        assert 'iifname "up8" goto' in rules(table, IN)
        assert "up7" not in rules(table, IN)

    play(tmp_path, body)


@pytest.mark.parametrize("name", ["lo", 'a"b', "eth*", "a\\b", "$x", ";x", "{x}"])
def test_what_is_no_interface_that_can_be_filtered_is_said(name: str) -> None:
    found, without = hosts.placed({"edge": edge(interfaceName=name)}, {})
    assert (found, list(without)) == ([], ["edge"])


@pytest.mark.parametrize("name", ["*", "eth0", "bond0.100", "enp3s0f1np1", "br-lan", "vlan_7@x"])
def test_what_is_an_interface(name: str) -> None:
    found, without = hosts.placed({"edge": edge(interfaceName=name)}, {})
    assert ([one.interface for one in found], without) == ([name], {})


def test_settings_say_the_failsafe_ports_and_never_close_what_the_node_lives_by(
    tmp_path: Path,
) -> None:
    given = {"failsafe_inbound_ports": [], "failsafe_outbound_ports": ["9000/TCP"]}
    settings = load(AgentSettings, None, {"node": "h1", **given})
    found = settings.failsafe_ports(["https://10.0.0.1:7443", "https://there", ""])
    always = {(6, 179), (17, 3784)}
    assert len(ALWAYS) == len(always)
    assert found.inbound == always
    assert found.outbound == always | {(6, 9000), (6, 7443), (6, 443)}
    assert AgentSettings(node="h1").failsafe_ports([]).inbound >= {(6, 22), (6, 6780), (6, 2379)}


@pytest.mark.parametrize("text", ["22", "0/tcp", "65536/tcp", "22/icmp", "tcp/22", "ssh/tcp", ""])
def test_what_is_no_failsafe_port_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not PORT/PROTOCOL"):
        load(AgentSettings, None, {"node": "h1", "failsafe_inbound_ports": [text]})


def test_the_control_plane_that_it_is_told_of_stays_within_reach(tmp_path: Path) -> None:
    settings = AgentSettings(
        node="h1", run_dir=tmp_path, state_dir=tmp_path, servers=["https://10.0.0.2:7001"]
    )
    agent = Agent(settings, FakeKernel(), KeptFilter(), Control(settings, None), Speech(tmp_path))
    assert (6, 7001) in agent.guard.enforcement.failsafe.outbound
