"""Policies that the kernel does not take are those of whom they select, and of nobody else."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.agents import agent_on
from support.policing import KeptFilter, applied, declare, enforced, played, policy

from api.resources.errors import ApplyError
from policies.compile.ruleset import Ruleset
from policies.failsafe import failsafe
from policies.model import Direction, Endpoint, HostInterface
from policies.plan import plan, without
from routed.agent.agent import Agent
from routed.agent.request import AttachRequest
from routed.kernel.fake import FakeKernel

Body = Callable[[Agent, FakeKernel, "Textual"], Awaitable[None]]
ODD = 666  # what such a kernel does not take
TCP = {"action": "Allow", "protocol": "TCP"}


def to(*ports: int) -> list[dict[str, Any]]:
    return [{**TCP, "destination": {"ports": list(ports)}}]


class Textual(KeptFilter):
    """Refuses rules that name the port `ODD`, and all of them while `deaf`."""

    deaf = True

    def _check(self, rules: Ruleset) -> None:
        texts = [text for chain in rules.chains.values() for text in chain.rules]
        if self.deaf and any(str(ODD) in text for text in texts):
            raise ApplyError("table inet routed", "change", errno.EOPNOTSUPP)

    def of(self, link: str) -> str:
        """The rules of the chain that the link's packets come to first."""
        (name,) = [name for name, one in self.rules.sets.items() if link in one.elements]
        chains = self.rules.chains
        (onward,) = [t for t in chains["ingress-links"].rules if name in t]
        target = next(name for name in chains if f"goto {name} " in onward)
        jumps = [target]
        for one in jumps:
            texts = "\n".join(chains[one].rules)
            jumps += [name for name in chains if f"jump {name} " in texts]
        return "\n".join(text for one in jumps for text in chains[one].rules)


def play(directory: Path, body: Body) -> None:
    played(directory, body, Textual())


async def attach(agent: Agent, name: str, app: str) -> str:
    wanted = {"name": name, "netns": name, "labels": {"app": app}}
    record, _ = await agent.attach(AttachRequest.model_validate(wanted))
    return record.host_interface


WEB = policy("web", selector="app == 'web'", ingress=to(80))
ODDLY = policy("odd", selector="app == 'db'", ingress=to(ODD))


def test_others_come_and_change_and_whom_it_selects_is_told_why_not(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: Textual) -> None:
        db = policy("db", selector="app == 'db'", ingress=to(5432))
        declare(agent, db)
        link = await attach(agent, "db", "db")
        before = table.of(link)
        declare(agent, db, ODDLY, WEB)
        await applied(agent)
        assert agent.filtering.withheld == {"odd"}
        assert table.of(link) == before, "what was before of it"
        assert (enforced(agent).reason, enforced(agent).message[:4]) == ("RulesRefused", "odd:")
        web = await attach(agent, "web", "web")
        assert "dport 80 " in table.of(web)
        with pytest.raises(ApplyError, match="apply policies odd, which select other") as refused:
            await attach(agent, "other", "db")
        assert refused.value.errno == errno.EOPNOTSUPP
        assert "other.h1" not in agent.records.held
        declare(agent, db, ODDLY, policy("web", selector="app == 'web'", ingress=to(81)))
        await applied(agent)
        assert "dport 81 " in table.of(web), "what changes meanwhile"
        await agent.detach("web")
        assert web not in table.links()
        await agent.writer.synced()
        assert agent.filtering.withheld == {"odd"}, "a round says the same"
        table.deaf = False
        await agent.writer.synced()
        assert (enforced(agent).status, agent.filtering.withheld) == ("True", frozenset())
        assert f"dport {ODD} " in table.of(await attach(agent, "other", "db"))

    play(tmp_path, body)


def test_one_that_has_changed_is_as_it_was(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: Textual) -> None:
        declare(agent, policy("odd", selector="app == 'db'", ingress=to(5432)))
        link = await attach(agent, "db", "db")
        declare(agent, ODDLY, WEB)
        await applied(agent)
        assert "dport 5432 " in table.of(link)
        web = await attach(agent, "web", "web")
        assert web in table.links()
        with pytest.raises(ApplyError, match="policies odd"):
            await attach(agent, "other", "db")

    play(tmp_path, body)


def test_after_a_boot_it_closes_whom_it_selects_and_nobody_else(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: Textual) -> None:
        link = await attach(agent, "db", "db")
        following = agent_on(kernel, agent.settings.run_dir)
        following.filtering.table.filter = other = Textual()
        serving = asyncio.create_task(following.writer.serve())
        declare(following, ODDLY, WEB)
        await following.writer.synced()
        assert enforced(following).reason == "RulesRefused"
        assert "goto ingress-deny-odd" in other.of(link)
        assert (await attach(following, "web", "web")) in other.links()
        with pytest.raises(ApplyError, match="policies odd"):
            await attach(following, "other", "db")
        serving.cancel()

    play(tmp_path, body)


def test_the_next_agent_leaves_rules_that_it_does_not_know(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: Textual) -> None:
        declare(agent, policy("odd", selector="app == 'db'", ingress=to(5432)))
        await attach(agent, "db", "db")
        before = table.rules
        following = agent_on(kernel, agent.settings.run_dir)
        following.filtering.table.filter = table
        serving = asyncio.create_task(following.writer.serve())
        declare(following, ODDLY, WEB)
        await following.writer.synced()
        assert table.rules == before
        assert following.filtering.withheld == frozenset()
        with pytest.raises(ApplyError):
            await attach(following, "web", "web")
        serving.cancel()

    play(tmp_path, body)


def test_a_plan_without_some() -> None:
    both = policy("odd", types=["Ingress", "Egress"], ingress=to(1), egress=to(2))
    rest = policy("rest", order=1, ingress=to(3))
    ends = [HostInterface("edge", {}, "up0")]
    whole = plan([], [both, rest], [Endpoint("w", {}, link="rtw")], "Allow", ends, failsafe())
    old = plan([], [policy("odd", ingress=to(4))], [Endpoint("w", {}, link="rtw")]).policies

    def names(placed: Any) -> list[list[str]]:
        return [[n for step in placed.of(d) for n in step.policies] for d in Direction]

    as_before = without(whole, ["odd"], old, closed=False)
    gone, shut = (without(whole, ["odd"], {}, closed=closed) for closed in (False, True))
    for made, link, host in (
        (as_before, [["rest", "odd"], []], [["rest", "odd"], []]),
        (gone, [["rest"], []], [["rest"], []]),
        (shut, [["rest", "odd"], ["odd"]], [["rest"], []]),
    ):
        assert names(made.endpoints["w"]) == link
        assert names(made.hosts[0].own) == host
    assert as_before.policies["odd"].rules[Direction.INGRESS] == old["odd"].rules[Direction.INGRESS]
    assert {rule.action for rules in shut.policies["odd"].rules.values() for rule in rules} == {
        "Deny"
    }
    assert whole.policies["odd"].rules[Direction.EGRESS], "is as it was"
