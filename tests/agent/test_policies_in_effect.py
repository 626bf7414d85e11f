"""Policies on one host, on a kernel and a filter that are not: in place before a link is, changed
with labels, kept over a restart, and what is said of those that are not in effect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.agents import agent_on
from support.policing import (
    KeptFilter,
    allow_from,
    applied,
    attach,
    declare,
    declared,
    enforced,
    played,
    policy,
    watched,
)

from api.client import Unreachable
from api.client.selections import LOST, SYNCED, Entries, Told
from api.resources import ObjectMeta, Workload
from api.resources.errors import ApplyError, Conflict
from api.resources.net import parse_address
from api.resources.workload import WorkloadSpec
from policies.compile import names
from policies.compile.closed import closed
from policies.compile.ruleset import Ruleset
from routed.agent.agent import Agent
from routed.agent.enforcing import Enforcement
from routed.agent.told import Known
from routed.kernel.fake import FakeKernel
from routed.state import Endpoint

WEB = "app == 'web'"
SHUT = policy("shut", selector="app == 'db'", ingress=allow_from(WEB))
Body = Callable[[Agent, FakeKernel, KeptFilter], Awaitable[None]]


def play(directory: Path, body: Body, *, told: bool = True) -> None:
    """`told`: that nobody is what WEB selects."""
    played(directory, body, KeptFilter(), {WEB: Known(Entries(), "1")} if told else {})


def test_without_policies_nothing_is_asked_of_the_filter(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        table.steps.clear()
        await attach(agent, "web")
        await agent.detach("web")
        assert (table.steps, bool(table.rules)) == ([], False)
        assert agent.guard.enforcement.wanted.plan.endpoints == {}
        assert (enforced(agent).status, enforced(agent).reason) == ("True", "AllEnforced")

    play(tmp_path, body)


def test_the_filter_is_in_place_before_the_link_and_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await applied(agent)
        assert not table.rules, "there is nobody whom it is for"
        seen: list[tuple[str, bool, bool]] = []
        attaching, detaching = kernel.attach, kernel.detach

        async def attach_link(endpoint: Endpoint) -> None:
            rules = table.links()
            seen.append((endpoint.workload, endpoint.host_interface in rules, True))
            await attaching(endpoint)

        async def detach_link(workloads: Any, known: Any = None) -> None:
            await detaching(workloads, known)
            links = {one.host_interface for one in (known or {}).values()}
            seen.append((workloads[0], links <= table.links(), False))

        monkeypatch.setattr(kernel, "attach", attach_link)
        monkeypatch.setattr(kernel, "detach", detach_link)
        db = await attach(agent, "db")
        web = await attach(agent, "web")
        assert table.links() == {db.host_interface, web.host_interface}
        assert table.members(WEB) == {str(web.addresses[0])}, "known without the service"
        await agent.detach("web")
        assert table.links() == {db.host_interface}
        assert table.members(WEB) == set()
        await agent.detach("db")
        assert not table.rules
        assert seen == [
            ("db.h1", True, True),
            ("web.h1", True, True),
            ("web.h1", True, False),
            ("db.h1", True, False),
        ]

    play(tmp_path, body)


@pytest.mark.parametrize("mode", ["veth", "ipvlan-l3s"])
def test_one_more_of_a_kind_is_elements_alone_and_a_round_agrees(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: object) -> None:
        raise AssertionError("all is worked out")

    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db", mode=mode)
        await attach(agent, "web", mode=mode)
        await agent.writer.synced()
        table.steps.clear()
        with monkeypatch.context() as patched:
            patched.setattr(agent.guard.enforcement, "look", never)
            await attach(agent, "other", "web", mode=mode)
        assert table.steps == ["trusted"]
        before = table.rules
        await agent.writer.synced()
        assert (table.steps, table.rules) == (["trusted"], before), "it says the same"
        with monkeypatch.context() as patched:
            patched.setattr(agent.guard.enforcement, "look", never)
            await agent.detach("other")
        assert table.steps == ["trusted", "trusted"]
        await agent.writer.synced()
        assert table.steps == ["trusted", "trusted"]

    play(tmp_path, body)


def test_what_somebody_flushes_is_back_with_the_next_round(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db")
        await agent.writer.synced()
        before = table.rules
        assert before
        table.flush()
        agent.filtering.heard(touched=True)
        await agent.writer.synced()
        assert table.rules == before
        table.flush()  # and nobody has heard of it yet
        web = await attach(agent, "web")
        assert web.host_interface in table.links()
        assert set(before.chains) == set(table.rules.chains)

    play(tmp_path, body)


def test_policies_and_members_change_without_a_round(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        await attach(agent, "db")
        await agent.writer.synced()
        rounds = agent.rounds
        declare(agent, SHUT)
        await applied(agent)
        assert table.members(WEB) == set()
        agent.guard.members.known[WEB] = Known(Entries(frozenset([parse_address("10.9.9.9")])), "2")
        agent.guard.changed()
        agent.guard.changed()
        await applied(agent)
        assert table.members(WEB) == {"10.9.9.9"}
        declare(agent)
        await applied(agent)
        assert not table.rules
        assert agent.rounds == rounds

    play(tmp_path, body)


def told(of: object, add: tuple[str, ...] = (), gone: tuple[str, ...] = (), **more: Any) -> Told:
    come, left = (Entries(frozenset(map(parse_address, some))) for some in (add, gone))
    return Told("DELTA", of, come, left, **more)  # type: ignore[arg-type]


def test_members_that_come_and_go_are_elements_and_nothing_is_worked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db")
        web = await attach(agent, "web")
        mine = str(web.addresses[0])
        await agent.writer.synced()
        looks: list[object] = []
        look = Enforcement.look
        monkeypatch.setattr(Enforcement, "look", lambda *all: looks.append(look(*all)))
        members = agent.guard.members
        wakes: list[None] = []
        monkeypatch.setattr(agent.control, "wake", lambda: wakes.append(None))
        for add, gone, after in (
            (("10.9.9.1", "10.9.9.2", mine), (), {"10.9.9.1", "10.9.9.2"}),
            (("10.9.9.3",), ("10.9.9.1",), {"10.9.9.2", "10.9.9.3"}),
            (("10.9.9.1",), ("10.9.9.3", mine), {"10.9.9.1", "10.9.9.2"}),
        ):
            assert members._take(told(WEB, add, gone))
            agent.guard._told()
            await applied(agent)
            assert table.members(WEB) == after | {mine}, "of its own it knows better"
        assert members._take(told(WEB, ("10.9.9.5",)))
        assert members._take(told(WEB, ("10.9.9.6",), ("10.9.9.5",)))
        agent.guard._told()
        await applied(agent)
        assert table.members(WEB) == {"10.9.9.1", "10.9.9.2", "10.9.9.6", mine}
        assert not looks
        assert not wakes, "there is nothing to report"
        assert members._take(Told(LOST, why=Unreachable("gone")))
        agent.guard._told()
        await applied(agent)
        assert (len(wakes), looks) == (1, [])
        before = table.rules
        await agent.writer.synced()
        assert looks, "a round looks at all"
        assert table.rules == before, "and finds the same"

    play(tmp_path, body)


def test_ports_of_a_name_come_and_go_as_elements_and_who_had_an_address_is_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = ("http", WEB)
    rule = {"source": {"selector": "all()"}, "destination": {"selector": WEB, "ports": ["http"]}}
    shut = policy("shut", types=["Egress"], egress=[{"action": "Allow", "protocol": "TCP", **rule}])

    def ports(*said: str) -> Entries:
        return Entries(ports=frozenset((parse_address(one), 6, 80) for one in said))

    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        members = agent.guard.members
        members.known |= {http: Known(ports(), "1"), "all()": Known(Entries(), "1")}
        declare(agent, shut)
        held = await attach(agent, "db")
        mine = str(held.addresses[0])
        await agent.writer.synced()
        looks: list[object] = []
        look = Enforcement.look
        monkeypatch.setattr(Enforcement, "look", lambda *all: looks.append(look(*all)))
        next_one = "10.65.0.1"
        for add, gone, after in (
            (("10.9.9.1", mine, next_one), (), {"10.9.9.1", next_one}),
            (("10.9.9.2",), ("10.9.9.1",), {"10.9.9.2", next_one}),
        ):
            assert members._take(Told("DELTA", http, ports(*add), ports(*gone)))
            agent.guard._told()
            await applied(agent)
            assert table.rules.sets[names.named(http, 4)].elements == {
                f"{one} . 6 . 80" for one in after
            }, "of its own it knows better"
        assert not looks
        assert str((await attach(agent, "other")).addresses[0]) == next_one
        assert looks, "it had this address, which is another's now"
        assert table.rules.sets[names.named(http, 4)].elements == {"10.9.9.2 . 6 . 80"}

    play(tmp_path, body)


def test_where_nothing_is_allowed_by_default_the_first_workload_is_no_exception(
    tmp_path: Path,
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        agent.guard.enforcement.default = "Deny"
        await agent.writer.synced()
        assert table.links() == set()
        web = await attach(agent, "web")
        assert table.links() == {web.host_interface}
        assert [name for name in table.rules.chains if name == "policy-ingress"]

    play(tmp_path, body)


def test_a_label_declared_anew_counts(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        def workload(app: str) -> Workload:
            metadata = ObjectMeta(name="web", labels={"app": app})
            return Workload(metadata=metadata, spec=WorkloadSpec(node="h1", netns="web"))

        await attach(agent, "db")
        declare(agent, SHUT, declared=declared(workload("other")))
        serving = asyncio.create_task(agent.declared.serve())
        async with asyncio.timeout(5):
            while "web" not in agent.ready:
                await asyncio.sleep(0.01)
        record = agent.records.held["web"]
        assert table.members(WEB) == set()
        declare(agent, SHUT, declared=declared(workload("web")))
        await agent.writer.synced()
        assert table.members(WEB) == {str(record.addresses[0])}
        agent.records.load()
        assert agent.records.held["web"].labels == {"app": "web"}, "the next agent knows it"
        serving.cancel()

    play(tmp_path, body)


def test_the_next_agent_has_it_all_without_the_service(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db")
        await attach(agent, "web")
        following = agent_on(kernel, agent.settings.run_dir)
        following.guard.members.known = dict(agent.guard.members.known)
        following.filtering.table.filter = other = KeptFilter()
        declare(following, SHUT)
        serving = asyncio.create_task(following.writer.serve())
        await following.writer.synced()
        assert other.rules == table.rules
        serving.cancel()

    play(tmp_path, body)


def test_members_that_were_never_told_are_waited_for_and_said(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        db = await attach(agent, "db")
        await attach(agent, "web")
        assert db.host_interface in table.links()
        assert not [name for name in table.rules.sets if name.startswith("selector")]
        texts = [text for chain in table.rules.chains.values() for text in chain.rules]
        assert not [text for text in texts if "saddr" in text], "allows nothing"
        condition = enforced(agent)
        assert (condition.status, condition.reason) == ("False", "MembersUnknown")
        assert f"shut waits for the members of {WEB!r}" in condition.message
        agent.guard.members.known[WEB] = Known(Entries(), "1")
        agent.guard.changed()
        await applied(agent)
        assert enforced(agent).status == "True"
        assert len(table.members(WEB)) == 1

    play(tmp_path, body, told=False)


def test_members_that_the_service_will_not_tell_are_said_and_those_of_before_stay(
    tmp_path: Path,
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db")
        assert enforced(agent).status == "True"
        before, members = table.rules, agent.guard.members
        members.refused = members.problem = "cannot follow selections: more than is taken"
        agent.guard._told()
        await applied(agent)
        condition = enforced(agent)
        assert (condition.status, condition.reason) == ("False", "MembersRefused")
        assert members.refused in condition.message
        assert table.rules == before
        assert members._take(Told(SYNCED)), "it is told again"
        assert enforced(agent).status == "True"

    play(tmp_path, body)


def test_rules_that_are_refused_leave_the_old_ones_and_are_said(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db")
        before = table.rules
        table.refuses = "odd"
        odd = policy("odd", selector="app == 'db'", ingress=[{"action": "Deny"}])
        declare(agent, SHUT, odd)
        await applied(agent)
        await agent.writer.synced()
        assert table.rules == before
        assert agent.filtering.ready, "the base table is"
        condition = enforced(agent)
        assert (condition.status, condition.reason) == ("False", "RulesRefused")
        assert condition.message.startswith("odd: cannot change table inet routed")
        with pytest.raises(ApplyError):
            await attach(agent, "other", "db")
        assert "other.h1" not in agent.records.held
        assert table.rules == before
        table.refuses = ""
        await agent.writer.synced()
        assert enforced(agent).status == "True"
        assert [name for name in table.rules.chains if "odd" in name]

    play(tmp_path, body)


@pytest.mark.parametrize("boot", [False, True])
def test_rules_that_are_refused_at_first_are_those_before_or_none_that_let_pass(
    tmp_path: Path, boot: bool
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db")
        before = table.rules
        following = agent_on(kernel, agent.settings.run_dir)
        following.filtering.table.filter = table
        table.refuses = "db"
        if boot:
            table.flush()
        declare(following, policy("db", selector="app == 'db'"))
        serving = asyncio.create_task(following.writer.serve())
        await following.writer.synced()
        assert table.rules == (closed() if boot else before)
        assert following.filtering.ready
        assert enforced(following).reason == "RulesRefused"
        serving.cancel()

    play(tmp_path, body)


def test_an_attach_that_fails_leaves_no_element(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db")
        before = table.rules
        kernel.refuse["web.h1"] = 1
        with pytest.raises(ApplyError):
            await attach(agent, "web")
        await agent.writer.synced()
        assert table.rules == before

    play(tmp_path, body)


def test_what_cannot_be_enforced_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    mode = "ipvlan-l3"

    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        staged = policy("staged", staged=True, ingress=[{"action": "Deny"}])
        declare(agent, SHUT, staged)
        await attach(agent, "web", mode=mode)
        with pytest.raises(Conflict, match="shut would not be enforced") as refused:
            await attach(agent, "db", mode=mode)
        assert [cause.field for cause in refused.value.causes] == ["mode"]
        agent.guard.enforcement.allow_unenforced = True
        await attach(agent, "db", mode=mode)
        await agent.writer.synced()
        status = agent.workload_writes("db.h1")[0].object.status  # type: ignore[union-attr]
        told = {one.type: one for one in status.conditions}["PolicyEnforceable"]
        assert told.status == "False"
        assert told.message.endswith("; not enforced: shut")
        condition = enforced(agent)
        assert (condition.status, condition.reason) == ("False", "NotEnforceable")
        assert "db.h1 is selected by shut" in condition.message

    play(tmp_path, body)


@pytest.mark.parametrize("refused", ["egress-policy", "slaves-antispoof"])
def test_with_nothing_known_an_ipvlan_l3s_workload_is_closed_by_its_addresses(
    tmp_path: Path, refused: str
) -> None:
    """Where the kernel takes so much; else links at least."""

    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        db = await attach(agent, "db", mode="ipvlan-l3s")
        following = agent_on(kernel, agent.settings.run_dir)
        following.filtering.table.filter = other = KeptFilter()
        other.refuses = refused
        declare(following, policy("db", selector="app == 'db'", egress=allow_from(WEB)))
        serving = asyncio.create_task(following.writer.serve())
        await following.writer.synced()
        assert following.filtering.ready
        assert enforced(following).reason == "RulesRefused"
        if refused.startswith("slaves"):
            assert other.rules == closed()
        else:
            assert names.slaves(4) in other.rules.sets
            assert str(db.addresses[0]) in other.rules.sets[names.slaves(4)].elements
            assert "policy-slaves-egress" in other.rules.chains
        serving.cancel()

    play(tmp_path, body)


def test_an_ipvlan_l3s_workload_is_told_by_its_addresses(tmp_path: Path) -> None:
    """Before its link is there, and until it is gone; also where no policy is for anybody."""

    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        seen = watched(kernel, table)
        first = await attach(agent, "other", mode="ipvlan-l3s")
        mine = {str(one) for one in first.addresses}
        assert slaves(seen[-1]) == mine
        assert "slaves-antispoof" in seen[-1].chains
        assert not [name for name in seen[-1].chains if name.startswith("policy-")]
        assert seen[-1].sets["slaves-parents"].elements == {"up0"}
        declare(agent, SHUT)
        await agent.writer.synced()
        db = await attach(agent, "db", mode="ipvlan-l3s")
        theirs = {str(one) for one in db.addresses}
        assert slaves(seen[-1]) == mine | theirs
        groups = {
            frozenset(one.elements)
            for name, one in seen[-1].sets.items()
            if name.startswith("slaves4-") and "unjudged" not in name
        }
        assert groups == {frozenset(mine), frozenset(theirs)}
        condition = enforced(agent)
        assert (condition.status, condition.reason) == ("False", "NeighboursUnseen")
        assert "db.h1 is selected by shut, which leaves out" in condition.message
        assert "other.h1" not in condition.message
        await agent.detach("other")
        assert slaves(table.rules) == theirs
        assert enforced(agent).status == "True"
        await agent.detach("db")
        assert not table.rules

    play(tmp_path, body)


def slaves(rules: Ruleset) -> set[str]:
    return set(rules.sets["slaves4"].elements)


def test_who_shares_a_namespace_is_its_holder(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        db = await attach(agent, "db")
        before = table.rules
        await attach(agent, "other", "web", netns="", mode="shared", sharedWith="db")
        assert table.rules == before
        assert table.links() == {db.host_interface}
        assert table.members(WEB) == set()

    play(tmp_path, body)


def test_flows_are_ended_where_that_is_asked_for_and_only_those_concerned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        ended: list[str] = []
        monkeypatch.setattr(kernel, "forget", lambda some: ended.extend(sorted(map(str, some))))
        agent.settings = agent.settings.model_copy(update={"flush_conntrack": True})
        db, other = await attach(agent, "db"), await attach(agent, "other")

        async def after(*policies: Any) -> list[str]:
            ended.clear()
            if policies:
                declare(agent, *policies)
            else:
                agent.guard._told()
            await applied(agent)
            return ended

        await agent.writer.synced()
        assert ended == []
        address = str(db.addresses[0])
        assert await after(SHUT) == [address]
        assert await after(SHUT, policy("far", selector="app == 'far'")) == []
        wider = policy("shut", selector="app == 'db'", ingress=allow_from(WEB, protocol="TCP"))
        assert await after(wider) == [address]
        assert agent.guard.members._take(told(WEB, ("10.9.9.1",)))
        assert await after() == [], "one more that is allowed"
        assert agent.guard.members._take(told(WEB, (), ("10.9.9.1",)))
        assert await after() == ["10.9.9.1"]
        await attach(agent, "web")
        await agent.writer.synced()
        assert await after(wider) == [], "one that has just come has no flows from before"
        everybody = policy("all", ingress=[{"action": "Deny"}])
        assert str(other.addresses[0]) in await after(wider, everybody)

    play(tmp_path, body)


@pytest.mark.parametrize("form", [{"mode": "tap"}, {"handOver": True}])
def test_a_link_that_somebody_else_takes_is_filtered_too(
    tmp_path: Path, form: dict[str, Any]
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        declare(agent, SHUT)
        db = await attach(agent, "db", netns="", **form)
        assert table.links() == {db.host_interface}
        names = [name for name in table.rules.chains if name.startswith("ingress-policy")]
        assert names == ["ingress-policy-shut"]

    play(tmp_path, body)
