"""Workloads declared through the service with modes beside veth: what the agent makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from support.agents import play

from api.resources import ObjectMeta, Workload
from api.resources.workload import Phase, WorkloadSpec
from routed.agent.agent import Agent
from routed.kernel.fake import FakeKernel


def declare(agent: Agent, name: str, **spec: Any) -> Workload:
    workload = Workload(
        metadata=ObjectMeta(name=name), spec=WorkloadSpec.model_validate({"node": "h1", **spec})
    )
    assert workload.spec.causes() == []
    intent = agent.known_intent()
    agent.intent = replace(intent, declared={**intent.declared, name: workload})
    return workload


def test_each_mode_is_attached_as_declared(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        wanted = {
            "dns": declare(agent, "dns", mode="host", pools=["main"]),
            "vm": declare(agent, "vm", mode="tap"),
            "pod": declare(agent, "pod", mode="ipvlan-l3", netns="pod"),
            "side": declare(agent, "side", mode="shared", sharedWith="pod"),
        }
        for workload in wanted.values():
            assert await agent.declared._attach(workload), agent.declared.failures
        await agent._round()
        assert agent.report.failed == {}
        assert set(agent.ready) == set(wanted)
        assert len(agent.ready["dns"]) == len(agent.ready["vm"]) == len(agent.ready["pod"]) == 1

    play(tmp_path, body, "pod")


def test_one_that_shares_with_nobody_yet_waits_and_says_so(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        side = declare(agent, "side", mode="shared", sharedWith="pod")
        assert not await agent.declared._attach(side)
        status = agent.declared.failures["side"]
        assert status.phase is Phase.PENDING
        assert "cannot find attachment pod" in status.conditions[0].message
        assert await agent.declared._attach(declare(agent, "pod", netns="pod"))
        assert await agent.declared._attach(side)

    play(tmp_path, body, "pod")


def test_a_holder_that_is_deleted_stays_for_who_shares_with_it(tmp_path: Path) -> None:
    async def body(agent: Agent, kernel: FakeKernel) -> None:
        for name, spec in (("pod", {"netns": "pod"}), ("side", {"mode": "shared"})):
            more = {"sharedWith": "pod"} if name == "side" else {}
            assert await agent.declared._attach(declare(agent, name, **spec, **more))
        side = agent.known_intent().declared["side"]
        agent.intent = replace(agent.known_intent(), declared={"side": side})
        for _ in range(2):
            await agent._round()
            assert set(agent.ready) == {"pod", "side"}
        agent.intent = replace(agent.known_intent(), declared={})
        await agent._round()
        await agent._round()
        assert agent.records.all() == {}
        assert kernel.inside["pod"] == set()

    play(tmp_path, body, "pod")
