"""What counts is reported once a second, on the loop that an agent runs on; and an agent at rest
reports nothing and looks at nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import uvloop

from routed.agent import blocks, control
from routed.agent.agent import Agent
from routed.agent.blocks import BlockKeeper
from routed.agent.control import COUNT_SECONDS, Control
from routed.agent.intent import WATCHED
from routed.settings import AgentSettings


class Counting:
    """An agent that has nothing to report; `asked` counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def count_writes(self) -> list[object]:
        self.asked += 1
        return []

    def due(self) -> set[str]:
        return set()


def test_a_report_that_is_due_within_the_same_millisecond(tmp_path: Path) -> None:
    """uvloop has no timers for less: what it returns has no time."""

    async def body() -> None:
        settings = AgentSettings(node="h1", run_dir=tmp_path, state_dir=tmp_path)
        for _ in range(100):  # on a busy machine that moment is over before it is asked about
            control, agent = Control(settings, None), Counting()
            control._count_at = asyncio.get_running_loop().time() + 0.0003
            for _ in range(3):
                await control._report_counts(agent)  # type: ignore[arg-type]
            if not agent.asked:
                break
        assert agent.asked == 0
        async with asyncio.timeout(COUNT_SECONDS):
            await control._wake.wait()
        control._wake.clear()
        control._count_at = 0.0
        await control._report_counts(agent)  # type: ignore[arg-type]
        assert agent.asked == 1
        for _ in range(3):  # the next one is a second later, and is one
            await control._report_counts(agent)  # type: ignore[arg-type]
        assert not control._wake.is_set()
        async with asyncio.timeout(2 * COUNT_SECONDS):
            await control._wake.wait()
        await control._report_counts(agent)  # type: ignore[arg-type]
        assert agent.asked == 2

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(body())


def test_an_agent_at_rest_comes_to_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both looks are due later when both were just made, and neither is a reason for the other."""
    period = 0.05
    monkeypatch.setattr(control, "COUNT_SECONDS", period)
    monkeypatch.setattr(blocks, "SPARE_SECONDS", 0.7 * period)
    monkeypatch.setattr(control, "CALM_SECONDS", 0.001)

    async def body() -> None:
        held = Control(AgentSettings(node="h1", run_dir=tmp_path, state_dir=tmp_path), None)
        held.known.whole.update(WATCHED)
        book = SimpleNamespace(
            pools_below_mark=lambda intent: [],
            only_cooling=lambda intent: False,
            spare_blocks=lambda intent: [],
            releasing=set(),
        )
        one = SimpleNamespace(intent=object(), book=book, control=held)
        keeper, counting, looks = BlockKeeper(cast(Agent, one)), Counting(), 0

        async def look() -> None:
            nonlocal looks
            looks += 1
            await keeper.keep()

        async with asyncio.TaskGroup() as tasks:
            jobs = (
                held._whenever(held._wake, "report", lambda: held._report(counting)),  # type: ignore[arg-type]
                held._whenever(held._used, "blocks", look),
            )
            running = [tasks.create_task(job) for job in jobs]
            for _ in range(2):  # the second is too early for either
                held.wake()
                await asyncio.sleep(period / 5)
            await asyncio.sleep(20 * period)
            for task in running:
                task.cancel()
        assert 1 <= counting.asked <= 3
        assert 2 <= looks <= 4

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(body())
