"""`flushConntrack`: whose flows are forgotten when policies change, and whose are not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.agents import agent_on
from support.policing import KeptFilter, allow_from, declare, policy

from api.client.selections import Entries, Told
from api.resources import ObjectMeta, Tier
from api.resources.net import parse_address, parse_cidr
from api.resources.policy import TierSpec
from routed.agent.agent import Agent
from routed.agent.request import AttachRequest
from routed.agent.told import Known
from routed.kernel.fake import FakeKernel

WEB = "app == 'web'"
DB = "app == 'db'"
SHUT = policy("shut", selector=DB, ingress=allow_from(WEB))
FAR = "10.9.9.9"
Flushed = Callable[[], Awaitable[set[str]]]
Body = Callable[[Agent, KeptFilter, Flushed], Awaitable[None]]


def play(directory: Path, body: Body, *, on: bool = True) -> None:
    """A db and another workload, each with a flow; `Flushed` says whose were forgotten since it was
    asked last, and puts them back."""

    async def whole() -> None:
        kernel = FakeKernel()
        agent = agent_on(kernel, directory)
        agent.settings = agent.settings.model_copy(update={"flush_conntrack": on})
        table = agent.filtering.table.filter = KeptFilter()
        agent.guard.members.known[WEB] = Known(Entries(frozenset([parse_address(FAR)])), "1")
        serving = asyncio.create_task(agent.writer.serve())
        await agent.writer.synced()
        owners = {FAR: "far"}
        for name in ("db", "other"):
            kernel.add_namespace(name)
            wanted = {"name": name, "netns": name, "labels": {"app": name}}
            record, _ = await agent.attach(AttachRequest.model_validate(wanted))
            owners[str(record.addresses[0])] = name
        await agent.writer.synced()

        def put() -> None:
            for address in owners:
                kernel.add(f"flow 192.0.2.9 {address}")

        async def flushed() -> set[str]:
            async def nothing() -> None:
                pass

            await asyncio.sleep(0)
            await agent.writer.run(nothing)
            left = {line.split()[2] for line in kernel.host if line.startswith("flow ")}
            put()
            return {name for address, name in owners.items() if address not in left}

        put()
        await body(agent, table, flushed)
        assert not serving.done()
        serving.cancel()

    asyncio.run(whole())


def test_of_whom_a_policy_selects_and_of_nobody_else(tmp_path: Path) -> None:
    async def body(agent: Agent, table: KeptFilter, flushed: Flushed) -> None:
        assert await flushed() == set()
        declare(agent, SHUT)
        assert await flushed() == {"db"}, "the first one"
        declare(agent, SHUT)
        assert await flushed() == set(), "nothing has changed"
        await agent.writer.synced()
        assert await flushed() == set(), "a round is no change"
        changed = policy("shut", selector=DB, ingress=allow_from(WEB, protocol="TCP"))
        declare(agent, changed)
        assert await flushed() == {"db"}, "other rules"
        declare(agent, changed, policy("all", types=["Egress"]))
        assert await flushed() == {"db", "other"}
        declare(agent, changed, policy("all", types=["Egress"], staged=True))
        assert await flushed() == {"db", "other"}, "what is staged decides no more"
        declare(agent, changed, policy("all", types=["Egress", "Ingress"], staged=True))
        assert await flushed() == set(), "what is staged decides nothing"

    play(tmp_path, body)


def test_of_those_of_a_tier_that_has_changed(tmp_path: Path) -> None:
    async def body(agent: Agent, table: KeptFilter, flushed: Flushed) -> None:
        inside = policy("shut", tier="t", selector=DB, ingress=allow_from(WEB))
        passing = Tier(metadata=ObjectMeta(name="t"), spec=TierSpec(default_action="Pass"))
        declare(agent, inside, tiers={"t": passing})
        assert await flushed() == {"db"}
        denying = Tier(metadata=ObjectMeta(name="t"), spec=TierSpec())
        declare(agent, inside, tiers={"t": denying})
        assert await flushed() == {"db"}

    play(tmp_path, body)


@pytest.mark.parametrize("alone", [True, False], ids=["as an element", "worked out"])
def test_of_an_address_that_a_selector_stands_for_no_more(tmp_path: Path, alone: bool) -> None:
    async def body(agent: Agent, table: KeptFilter, flushed: Flushed) -> None:
        declare(agent, SHUT)
        await flushed()
        members = agent.guard.members
        far, come = (Entries(frozenset([parse_address(one)])) for one in (FAR, "10.9.9.8"))
        told = Told("DELTA", WEB, come, Entries())
        assert members._take(told)
        agent.guard._told() if alone else agent.guard.changed()
        assert await flushed() == set(), "who joins"
        assert members._take(Told("DELTA", WEB, Entries(), far))
        agent.guard._told() if alone else agent.guard.changed()
        assert await flushed() == {"far"}
        assert table.members(WEB) == {"10.9.9.8"}

    play(tmp_path, body)


@pytest.mark.parametrize(
    ("rule", "coming", "going"),
    [
        ({"action": "Allow", "source": {"selector": WEB}}, False, True),
        ({"action": "Allow", "source": {"notSelector": WEB}}, True, False),
        ({"action": "Deny", "source": {"selector": WEB}}, True, False),
        ({"action": "Deny", "source": {"notSelector": WEB}}, False, True),
        ({"action": "Pass", "source": {"selector": WEB}}, True, True),
        ({"action": "Log", "source": {"selector": WEB}}, False, False),
    ],
)
def test_of_an_address_whose_coming_or_going_may_close_something(
    tmp_path: Path, rule: dict[str, Any], coming: bool, going: bool
) -> None:
    async def body(agent: Agent, table: KeptFilter, flushed: Flushed) -> None:
        declare(agent, policy("p", selector=DB, ingress=[rule]))
        await flushed()
        far = Entries(frozenset([parse_address(FAR)]))
        for add, gone, expected in ((Entries(), far, going), (far, Entries(), coming)):
            assert agent.guard.members._take(Told("DELTA", WEB, add, gone))
            agent.guard._told()
            assert await flushed() == ({"far"} if expected else set())

    play(tmp_path, body)


def test_of_an_address_that_lost_a_port_which_rules_name(tmp_path: Path) -> None:
    async def body(agent: Agent, table: KeptFilter, flushed: Flushed) -> None:
        subject = ("http", "")
        entry = Entries(ports=frozenset([(parse_address(FAR), 6, 80)]))
        agent.guard.members.known[subject] = Known(entry, "1")
        rule = {"action": "Allow", "protocol": "TCP", "source": {"ports": ["http"]}}
        declare(agent, policy("p", selector=DB, ingress=[rule]))
        await flushed()
        for add, gone, expected in ((Entries(), entry, {"far"}), (entry, Entries(), set())):
            assert agent.guard.members._take(Told("DELTA", subject, add, gone))
            agent.guard._told()
            assert await flushed() == expected

    play(tmp_path, body)


def test_of_those_whose_rules_name_a_network_set_that_has_changed(tmp_path: Path) -> None:
    async def body(agent: Agent, table: KeptFilter, flushed: Flushed) -> None:
        declare(agent, SHUT)
        await flushed()
        nets = Entries(nets=frozenset([parse_cidr("192.0.2.0/24")]))
        assert agent.guard.members._take(Told("DELTA", WEB, nets, Entries()))
        agent.guard._told()
        assert await flushed() == {"db"}

    play(tmp_path, body)


def test_of_nobody_while_the_kernel_refuses_and_of_all_concerned_then(tmp_path: Path) -> None:
    async def body(agent: Agent, table: KeptFilter, flushed: Flushed) -> None:
        table.refuses = "shut"
        declare(agent, SHUT)
        assert await flushed() == set(), "what was before is still in effect"
        table.refuses = ""
        await agent.writer.synced()
        assert await flushed() == {"db"}

    play(tmp_path, body)


def test_not_of_one_that_has_just_come(tmp_path: Path) -> None:
    async def body(agent: Agent, table: KeptFilter, flushed: Flushed) -> None:
        declare(agent, SHUT)
        await flushed()
        kernel = agent.kernel
        assert isinstance(kernel, FakeKernel)
        kernel.add_namespace("late")
        wanted = {"name": "late", "netns": "late", "labels": {"app": "db"}}
        record, _ = await agent.attach(AttachRequest.model_validate(wanted))
        kernel.add(flow := f"flow 192.0.2.9 {record.addresses[0]}")
        agent.guard.changed()
        assert await flushed() == set()
        assert flow in kernel.host

    play(tmp_path, body)


def test_nobody_by_default(tmp_path: Path) -> None:
    async def body(agent: Agent, table: KeptFilter, flushed: Flushed) -> None:
        declare(agent, SHUT)
        assert await flushed() == set()
        assert table.rules
        far = Entries(frozenset([parse_address(FAR)]))
        assert agent.guard.members._take(Told("DELTA", WEB, Entries(), far))
        agent.guard._told()
        assert await flushed() == set()

    play(tmp_path, body, on=False)


def test_a_new_agent_takes_what_it_finds_for_what_it_was(tmp_path: Path) -> None:
    async def body(agent: Agent, table: KeptFilter, flushed: Flushed) -> None:
        declare(agent, SHUT)
        assert await flushed() == {"db"}
        agent.guard._in_effect = None  # as one that has just begun
        await agent.writer.synced()
        assert await flushed() == set()
        declare(agent, policy("shut", selector=DB))
        assert await flushed() == {"db"}, "and goes on from there"

    play(tmp_path, body)
