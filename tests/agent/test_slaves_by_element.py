"""Workloads of the ipvlan modes that come and go by elements of sets alone: what that may not leave
behind, whom it concerns, and when it is not enough."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support import policing
from support.agents import until
from support.policing import KeptFilter, allow_from, declare, enforced, played, policy, watched

from api.client.selections import Entries
from api.resources import BGPConfiguration, ObjectMeta
from api.resources.errors import ApplyError
from policies.compile.ruleset import Ruleset
from policies.nat import Nat
from routed.agent.agent import Agent
from routed.agent.attachment import Attachment
from routed.agent.records import Records
from routed.agent.told import Known
from routed.kernel.fake import FakeKernel

L3S, VETH = "ipvlan-l3s", "veth"
WEB = "app == 'web'"
SHUT = policy("shut", selector="app == 'db'", ingress=allow_from(WEB))
PINNED = "10.65.0.9"


class Failing(KeptFilter):
    """Whose kernel refuses the next `fails` changes."""

    fails = 0

    def sync(self, nat: Nat | None, rules: Ruleset | None = None, *, trusted: bool = False) -> bool:
        if self.fails:
            self.fails -= 1
            raise ApplyError("table inet routed", "change", errno.ENOMEM)
        return super().sync(nat, rules, trusted=trusted)


def play(directory: Path, body: Callable[[Agent, FakeKernel, Failing], Awaitable[None]]) -> None:
    async def whole(agent: Agent, kernel: FakeKernel, table: Failing) -> None:
        for name in ("four", "five"):
            kernel.add_namespace(name)
        await body(agent, kernel, table)

    played(directory, whole, Failing(), {WEB: Known(Entries(), "1")})


async def attach(agent: Agent, name: str, app: str = "", **more: Any) -> Attachment:
    return await policing.attach(agent, name, app, **{"mode": L3S, **more})


def holding(table: KeptFilter, address: str) -> set[str]:
    return {name for name, one in table.rules.sets.items() if address in one.elements}


@pytest.mark.parametrize("name", ["a1", "b", "shut"])  # whichever group comes first
def test_who_could_not_be_taken_out_is_nobody_else(tmp_path: Path, name: str) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: Failing) -> None:
        declare(agent, policy(name, selector="app == 'db'", ingress=allow_from(WEB)))
        await attach(agent, "other", "db")
        for one in ("web", "four"):
            await attach(agent, one, "free")
        await attach(agent, "db", "free", addresses=[PINNED])
        await agent.writer.synced()
        before = holding(table, PINNED)
        table.fails = 1
        await agent.detach("db")
        assert holding(table, PINNED) == before, "the kernel would not"
        await attach(agent, "db", "db", addresses=[PINNED])
        after = holding(table, PINNED)
        assert len(after) == 2
        assert after & before == {"slaves4"}, "not as the one who was there before"

    play(tmp_path, body)


def test_who_could_not_be_taken_out_is_so_soon(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: Failing) -> None:
        declare(agent, SHUT)
        await attach(agent, "other", "db")
        db = await attach(agent, "db")
        await agent.writer.synced()
        table.fails = 1
        await agent.detach("db")
        address = str(db.addresses[0])
        await until("the round after it", lambda: not holding(table, address))

    play(tmp_path, body)


def declare_more(agent: Agent, action: str) -> None:
    """Another policy, and with it what is none."""
    other = policy("p", selector="app == 'db'", ingress=[{"action": action}])
    declare(agent, other, bgp=BGPConfiguration(metadata=ObjectMeta(name="default")))


def rule_of(rules: Ruleset) -> str:
    (rule,) = rules.chains["ingress-policy-p"].rules
    return rule


@pytest.mark.parametrize("mode", [VETH, L3S])
def test_who_comes_while_more_than_policies_has_changed_meets_the_new_ones(
    tmp_path: Path, mode: str
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: Failing) -> None:
        declare(agent, policy("p", selector="app == 'db'", ingress=[{"action": "Allow"}]))
        for name in ("other", "web"):
            await attach(agent, name, "db", mode=mode)
        await agent.writer.synced()
        seen = watched(kernel, table)
        declare_more(agent, "Deny")
        await attach(agent, "db", mode=mode)
        assert "deny" in rule_of(seen[0]), "before its link is there"

    play(tmp_path, body)


def test_what_changes_while_all_is_worked_out_is_not_taken_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: Failing) -> None:
        declare(agent, policy("p", selector="app == 'db'", ingress=[{"action": "Allow"}]))
        for name in ("other", "web"):
            await attach(agent, name, "db")
        await agent.writer.synced()
        seen, aside = watched(kernel, table), agent.filtering.table.aside

        async def slowly(job: Any, *given: Any, **named: Any) -> Any:
            done = await aside(job, *given, **named)
            if job == agent.guard.enforcement.look:
                patched.undo()
                declare_more(agent, "Deny")
            return done

        with monkeypatch.context() as patched:
            patched.setattr(agent.filtering.table, "aside", slowly)
            await agent.writer.run(agent.guard.work_out)
        await attach(agent, "db")
        assert "deny" in rule_of(seen[0])

    play(tmp_path, body)


@pytest.mark.parametrize("first", [VETH, L3S])
def test_a_detach_that_was_asked_for_before_its_like_had_left_takes_what_is_there_then(
    tmp_path: Path, first: str
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: Failing) -> None:
        declare(agent, SHUT)
        other = await attach(agent, "other", "db")
        await attach(agent, "db", mode=first)
        gate, detached, waiting = asyncio.Event(), kernel.detach, asyncio.Event()

        async def slowly(*given: Any) -> None:
            waiting.set()
            await gate.wait()
            await detached(*given)

        kernel.detach = slowly  # type: ignore[method-assign]
        tasks = [asyncio.create_task(agent.detach("db"))]
        await waiting.wait()
        for what in (attach(agent, "db"), agent.detach("db")):
            tasks.append(asyncio.create_task(what))  # type: ignore[arg-type]
            await asyncio.sleep(0)  # it is in the writer's queue
        gate.set()
        await asyncio.gather(*tasks)
        assert set(agent.records.held) == {"other.h1"}
        assert table.rules.sets["slaves4"].elements == {str(other.addresses[0])}
        assert not agent.guard.has_neighbours(other)
        assert enforced(agent).status == "True"

    play(tmp_path, body)


def test_the_node_is_looked_at_again_when_an_attach_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(agent: Agent, kernel: FakeKernel, table: Failing) -> None:
        declare(agent, SHUT)
        for name in ("other", "web"):
            await attach(agent, name, "free")
        said: list[str] = []
        report = agent.control.report

        def reported() -> None:
            said.append(enforced(agent).reason)
            report()

        monkeypatch.setattr(agent.control, "report", reported)
        kernel.refuse["db.h1"] = 1
        with pytest.raises(ApplyError):
            await attach(agent, "db")
        assert "NeighboursUnseen" in said
        assert said[-1] == "AllEnforced"

    play(tmp_path, body)


def test_a_parent_is_one_as_long_as_somebody_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are on another one meanwhile, in another mode."""

    async def body(agent: Agent, kernel: FakeKernel, table: Failing) -> None:
        def parents() -> set[str]:
            return set(table.rules.sets["slaves-parents"].elements)

        with monkeypatch.context() as patched:
            patched.setattr(kernel, "parent", lambda asked: "up1")
            await attach(agent, "other", mode="ipvlan-l3")
        for name in ("web", "db"):
            await attach(agent, name)
        assert parents() == {"up0", "up1"}
        unjudged = table.rules.sets["slaves4-unjudged"].elements
        assert len(unjudged) == 1
        await agent.detach("web")
        assert parents() == {"up0", "up1"}
        await agent.detach("db")
        assert parents() == {"up1"}
        assert table.rules.sets["slaves4"].elements == unjudged

    play(tmp_path, body)


def test_records_know_who_is_on_a_parent(tmp_path: Path) -> None:
    def record(name: str, parent: str) -> Attachment:
        given = {"id": f"{name}.h1", "name": name, "node": "h1", "origin": "Node", "addresses": []}
        return Attachment.model_validate({**given, "netns": name, "mode": L3S, "parent": parent})

    held = Records(tmp_path)
    held.load()
    for one in (record("a", "up0"), record("b", "up0"), record("a", "up0")):
        held.put(one)
    assert set(held.on_parent("up0")) == {"a.h1", "b.h1"}
    held.put(record("a", "up1"))
    assert (set(held.on_parent("up0")), set(held.on_parent("up1"))) == ({"b.h1"}, {"a.h1"})
    held.hold(record("c", "up1"))  # on no disk
    held.load()
    assert (set(held.on_parent("up0")), set(held.on_parent("up1"))) == ({"b.h1"}, {"a.h1"})
    held.remove("a.h1")
    held.remove("b.h1")
    assert not held.on_parent("up0")
    assert not held.on_parent("up1")
    assert not held.on_parent("")
