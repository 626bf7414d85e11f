"""What an agent says of what policies have counted, on a filter that is none."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.agents import agent_on
from support.policing import KeptFilter, declare, policy

from api.resources.errors import ApplyError
from api.resources.policy import Tier
from policies.counters import Count, Key, Reading
from routed.agent import counting
from routed.agent.agent import Agent
from routed.agent.api import application
from routed.agent.request import AttachRequest
from routed.ctl.local import Local
from routed.kernel.fake import FakeKernel

LONG = ".".join(["p" + "x" * 60] * 4)
DENY = [{"action": "Deny", "protocol": "UDP"}, {"action": "Allow"}]
Said = dict[tuple[str, ...], float]


def made(directory: Path) -> tuple[Agent, KeptFilter]:
    kernel, table = FakeKernel(), KeptFilter()
    kernel.add_namespace("web")
    agent = agent_on(kernel, directory)
    agent.filtering.table.filter = table
    tier = Tier.model_validate({"metadata": {"name": "first"}, "spec": {"defaultAction": "Pass"}})
    policies = (
        policy("in", ingress=DENY),
        policy("try", tier="first", staged=True, egress=[{"action": "Deny"}]),
        policy(LONG, ingress=DENY),
        policy("others", selector="app == 'nobody'", ingress=DENY),
    )
    declare(agent, *policies, tiers={"first": tier})
    return agent, table


async def attached(agent: Agent) -> None:
    serving = asyncio.create_task(agent.writer.serve())
    await agent.attach(AttachRequest.model_validate({"name": "web", "netns": "web"}))
    serving.cancel()


async def got(agent: Agent, path: str) -> str:
    """At the agent's socket."""
    answers: list[bytes] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, object]) -> None:
        answers.append(bytes(message.get("body", b"")))  # type: ignore[call-overload]

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b""}
    await application(agent)(scope, receive, send)  # type: ignore[arg-type]
    return b"".join(answers).decode()


async def scraped(agent: Agent, name: str = "routed_policy_packets") -> Said:
    """By tier, policy, direction, rule, action, staged."""
    families = text_string_to_metric_families(await got(agent, "/metrics"))
    order = ("tier", "policy", "direction", "rule", "action", "staged")
    return {
        tuple(sample.labels[label] for label in order): sample.value
        for family in families
        if family.name == name
        for sample in family.samples
    }


def read(**packets: int) -> Reading:
    """Of the rules that are in the table, as their labels are there."""
    keys = {
        "denied": Key("default/in ingress 0"),
        "let_pass": Key("default/in ingress 1"),
        "long": Key(f"default/{LONG[:30]}..{counting.names.digest(LONG)[:8]} ingress 0"),
        "trial": Key("first/try egress 0", staged=True),
        "default": Key("default ingress default"),
        "would": Key("first egress default", staged=True),
        "node": Key("egress default"),
        "unknown": Key("ingress unknown link"),
        "stray": Key("default/in egress 7"),
    }
    rules = {
        handle: (keys[name], Count(number, 100 * number))
        for handle, (name, number) in enumerate(packets.items(), 1)
    }
    return Reading(1, rules)


def test_a_line_for_each_rule_that_is_in_the_table(tmp_path: Path) -> None:
    async def body() -> None:
        agent, table = made(tmp_path)
        await attached(agent)
        table.reading = read(
            denied=3, let_pass=0, long=4, trial=5, default=6, would=7, node=8, unknown=9, stray=10
        )
        assert await scraped(agent) == {
            ("default", "in", "ingress", "0", "Deny", "false"): 3,
            ("default", "in", "ingress", "1", "Allow", "false"): 0,
            ("default", LONG, "ingress", "0", "Deny", "false"): 4,
            ("first", "try", "egress", "0", "Deny", "true"): 5,
            ("default", "", "ingress", "default", "Deny", "false"): 6,
            ("first", "", "egress", "default", "Pass", "true"): 7,
            ("", "", "egress", "default", "Allow", "false"): 8,
            ("", "", "ingress", "unknown link", "Deny", "false"): 9,
        }
        octets = await scraped(agent, "routed_policy_bytes")
        assert octets["default", "in", "ingress", "0", "Deny", "false"] == 300

    asyncio.run(body())


def test_people_are_told_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body() -> dict[str, Any]:
        agent, table = made(tmp_path)
        await attached(agent)
        table.reading = read(denied=3, trial=5, default=6, node=8)
        held: dict[str, Any] = json.loads(await got(agent, "/v1/counters"))
        assert held["items"][0] == {
            "tier": "default", "policy": "in", "direction": "ingress", "rule": "0",
            "action": "Deny", "staged": False, "packets": 3, "bytes": 300,
        }  # fmt: skip
        return held

    held = asyncio.run(body())
    monkeypatch.setattr(Local, "_call", lambda *_: held)
    Local(tmp_path).policy_counters("")
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["TIER", "POLICY", "DIRECTION", "RULE", "ACTION", "PACKETS", "BYTES"],
        ["default", "in", "ingress", "0", "Deny", "3", "300"],
        ["default", "-", "ingress", "default", "Deny", "6", "600"],
        ["first", "try", "egress", "0", "Deny", "(staged)", "5", "500"],
        ["-", "-", "egress", "default", "Allow", "8", "800"],
    ]
    Local(tmp_path).policy_counters("json")
    assert json.loads(capsys.readouterr().out) == held


def test_it_is_read_in_a_thread_and_not_for_each_that_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        agent, table = made(tmp_path)
        assert not await scraped(agent)
        assert not table.readings, "nothing is in the table"
        await attached(agent)
        threads = []
        kept = table.counted

        def counted() -> Reading:
            threads.append(threading.current_thread())
            return kept()

        table.counted = counted  # type: ignore[method-assign]
        table.reading = read(denied=1)
        await asyncio.gather(*(scraped(agent) for _ in range(10)))
        assert table.readings == 1
        assert threads[0] is not threading.main_thread()
        monkeypatch.setattr(counting, "EVERY_SECONDS", 0)
        agent.counting._due = 0
        table.reading = read(denied=2)
        assert set((await scraped(agent)).values()) == {2}

    asyncio.run(body())


def test_sums_go_on_over_changes_and_with_the_next_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "EVERY_SECONDS", 0)
    denied = ("default", "in", "ingress", "0", "Deny", "false")

    async def body() -> None:
        agent, table = made(tmp_path)
        await attached(agent)
        table.reading = read(denied=3)
        assert (await scraped(agent))[denied] == 3
        table.reading = Reading(2, read(denied=1).rules)
        assert (await scraped(agent))[denied] == 4, "the table is another"
        again, other = made(tmp_path)
        serving = asyncio.create_task(again.writer.serve())
        again.writer.wake()
        await again.writer.synced()
        serving.cancel()
        other.reading = Reading(2, read(denied=2).rules)
        assert (await scraped(again))[denied] == 5, "the agent is another"
        for policies in ((policy("other", ingress=DENY),), ()):
            declare(again, *policies)
            await again.guard.work_out()
            await again.filtering.keep()
            assert denied not in await scraped(again), "of no policy any more"

    asyncio.run(body())


@pytest.mark.parametrize("text", ["", "{", "[1]", '[["x", false, 1, 2, 3]]'])
def test_sums_that_cannot_be_read_begin_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy-counters.json").write_text(text)
    agent, _ = made(tmp_path)
    assert not agent.counting.rows


def test_a_table_that_cannot_be_read_leaves_what_was_read_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counting, "EVERY_SECONDS", 0)

    async def body() -> None:
        agent, table = made(tmp_path)
        await attached(agent)
        table.reading = read(denied=3)
        before = await scraped(agent)

        def counted() -> Reading:
            raise ApplyError("table inet routed (counters)", "read", 11)

        table.counted = counted  # type: ignore[method-assign]
        assert await scraped(agent) == before
        assert await scraped(agent) == before
        assert sum("not read" in one.getMessage() for one in caplog.records) == 1

    asyncio.run(body())
