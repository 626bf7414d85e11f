"""Policies while more than one thing happens: what is told and declared while a workload comes."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.agents import until
from support.policing import KeptFilter, allow_from, applied, declare, played, policy

from api.client.selections import Entries, Told
from api.resources.errors import ApplyError
from api.resources.net import parse_address
from policies.compile import names
from policies.compile.ruleset import Ruleset
from policies.nat import Nat
from routed.agent import enforcing
from routed.agent import table as module
from routed.agent.agent import Agent
from routed.agent.request import AttachRequest
from routed.agent.told import Known
from routed.kernel.fake import FakeKernel

WEB = "app == 'web'"
SHUT = policy("shut", selector="app == 'db'", ingress=allow_from(WEB))
Body = Callable[[Agent, KeptFilter], Awaitable[None]]


def play(directory: Path, body: Body, held: KeptFilter | None = None) -> None:
    async def whole(agent: Agent, _: FakeKernel, table: KeptFilter) -> None:
        await body(agent, table)

    played(directory, whole, held or KeptFilter(), {WEB: Known(Entries(), "1")})


async def attach(agent: Agent, name: str, app: str, address: str) -> None:
    wanted = {"name": name, "netns": name, "labels": {"app": app}, "addresses": [address]}
    await agent.attach(AttachRequest.model_validate(wanted))


def test_who_gets_an_address_is_not_taken_for_who_had_it_whatever_is_told_meanwhile(
    tmp_path: Path,
) -> None:
    http = {"protocol": "TCP", "destination": {"ports": ["http"]}}
    named = policy("named", selector="app == 'db'", ingress=allow_from(WEB, **http))

    async def body(agent: Agent, table: KeptFilter) -> None:
        key, members = ("http", ""), agent.guard.members
        first, second = map(parse_address, ("10.65.0.1", "10.65.0.2"))
        members.known[key] = Known(Entries(ports=frozenset({(first, 6, 80)})), "1")
        declare(agent, named)
        await attach(agent, "db", "db", "10.65.0.3")
        await attach(agent, "web", "other", "10.65.0.4")
        members.need(agent.guard.enforcement.needs)
        both = Entries(frozenset((first, second)))
        members._take(Told("DELTA", WEB, add=both, version="2"))
        agent.guard._told()
        await applied(agent)
        assert table.members(WEB) == {"10.65.0.1", "10.65.0.2"}

        members._take(Told("DELTA", WEB, remove=both, version="3"))  # nobody has come to it yet
        await attach(agent, "other", "other", "10.65.0.2")
        assert table.members(WEB) == {"10.65.0.1"}, "elements alone"
        await agent.detach("other")
        assert {str(first)} == table.members(WEB)
        await attach(agent, "other", "other", "10.65.0.1")
        assert table.members(WEB) == set()
        assert not table.rules.sets[names.named(key, 4)].elements

    play(tmp_path, body)


def test_an_order_is_that_of_the_intent_whoever_asks_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(agent: Agent, table: KeptFilter) -> None:
        assert agent.intent is not None
        enforcement, older = agent.guard.enforcement, agent.intent
        newer = replace(older, policies={"shut": SHUT})
        making, orders = enforcing.Order, []

        def order(*some: Any) -> Any:
            made = making(*some)
            orders.append(made)
            if len(orders) == 1:  # while that is made, another is asked for
                enforcement.order(newer)
            return made

        monkeypatch.setattr(enforcing, "Order", order)
        enforcement.order(replace(older, policies={"other": policy("other")}))
        assert set(enforcement.order(newer).policies) == {"shut"}

    play(tmp_path, body)


def test_where_rules_are_refused_members_come_and_go_in_those_before(tmp_path: Path) -> None:
    async def body(agent: Agent, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db", "db", "10.65.0.3")
        await attach(agent, "web", "web", "10.65.0.4")
        members = agent.guard.members
        members.need(agent.guard.enforcement.needs)
        far = Entries(frozenset(map(parse_address, ("10.9.9.1", "10.9.9.2"))))
        members._take(Told("WHOLE", WEB, add=far, version="2"))
        table.refuses = "odd"
        declare(agent, SHUT, policy("odd", selector="app == 'db'"))
        await applied(agent)
        assert agent.filtering.refused is not None
        assert table.members(WEB) == {"10.65.0.4", "10.9.9.1", "10.9.9.2"}
        await agent.detach("web")
        assert table.members(WEB) == {"10.9.9.1", "10.9.9.2"}
        gone = Entries(frozenset([parse_address("10.9.9.1")]))
        members._take(Told("DELTA", WEB, remove=gone, version="3"))
        agent.guard._told()
        await applied(agent)
        assert table.members(WEB) == {"10.9.9.2"}
        assert not any("odd" in name for name in table.rules.chains)

    play(tmp_path, body)


def test_who_is_to_blame_is_found_once_whoever_comes_meanwhile(tmp_path: Path) -> None:
    class Judging(KeptFilter):
        judged = 0

        def check(self, rules: Ruleset) -> None:
            self.judged += 1
            super().check(rules)

    table = Judging()

    async def body(agent: Agent, _: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db", "db", "10.65.0.3")
        table.refuses = "odd"
        declare(agent, SHUT, policy("odd", selector="app == 'db'"))
        for _try in range(3):
            with pytest.raises(ApplyError):
                await attach(agent, "other", "db", "10.65.0.4")
            assert agent.filtering.blamed == ["odd"]
        await attach(agent, "web", "web", "10.65.0.4")
        assert table.judged == 2

    play(tmp_path, body, table)


class Untranslating(KeptFilter):
    """Of a kernel that cannot translate."""

    def sync(self, nat: Nat | None, rules: Ruleset | None = None, *, trusted: bool = False) -> bool:
        if nat is not None:
            raise ApplyError("table inet routed", "change", errno.EOPNOTSUPP)
        return super().sync(nat, rules, trusted=trusted)


def test_where_nothing_can_be_translated_policies_keep_nobody_from_being_attached(
    tmp_path: Path,
) -> None:
    async def body(agent: Agent, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db", "db", "10.65.0.3")
        await attach(agent, "web", "web", "10.65.0.4")
        assert table.members(WEB) == {"10.65.0.4"}
        assert len(table.links()) == 2

    play(tmp_path, body, Untranslating())


def test_what_began_while_the_table_was_away_is_judged_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Opened(KeptFilter):
        was = False

        def opened(self) -> bool:
            found, self.was = self.was, False
            return found

    table, ended = Opened(), list[str]()

    async def body(agent: Agent, _: KeptFilter) -> None:
        monkeypatch.setattr(
            agent.kernel, "forget_unseen", lambda some: ended.extend(map(str, some))
        )
        declare(agent, SHUT)
        await attach(agent, "db", "db", "10.65.0.3")
        await agent.writer.synced()
        assert ended == []
        table.was = True
        agent.filtering.heard(touched=True)
        await agent.filtering.table.restore()
        await agent.writer.synced()
        await agent.writer.synced()
        assert ended == ["10.65.0.3"], "once"

    play(tmp_path, body, table)


def test_who_flushes_in_a_loop_does_not_fill_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SAY_SECONDS", 0.5)

    async def body(agent: Agent, table: KeptFilter) -> None:
        declare(agent, SHUT)
        await attach(agent, "db", "db", "10.65.0.3")
        await agent.writer.synced()
        caplog.clear()
        for _ in range(5):
            table.flush()
            await agent.filtering.table.restore()
            assert table.rules, "each time"
        said = [one.message for one in caplog.records if "made anew" in one.message]
        assert said == ["filter table made anew: somebody had changed it"]
        await until("the rest", lambda: "made anew 4 times more in 0.5 s" in caplog.text)
        caplog.clear()
        await until("its end", lambda: agent.filtering.table._quiet is None)
        assert caplog.records == []

    play(tmp_path, body)
