"""What the Node says is worked out again once it is another, and not only before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.agents import until
from support.compiled import policy
from support.policing import KeptFilter, applied, declare, played

from api.resources.errors import ApplyError
from routed.agent.agent import Agent
from routed.agent.speech import Speech
from routed.kernel.fake import FakeKernel


def test_a_speaker_that_goes_and_stays_away(tmp_path: Path) -> None:
    async def body() -> None:
        path, lost, writers = tmp_path / "speaker.sock", asyncio.Event(), []

        async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)

        server = await asyncio.start_unix_server(connected, path)
        speech = Speech(path)
        serving = asyncio.create_task(speech.serve(lambda: None, lost.set))
        try:
            await until("the speaker", lambda: speech.connected and writers)
            assert not lost.is_set()
            server.close()
            path.unlink(missing_ok=True)
            writers[0].close()
            await asyncio.wait_for(lost.wait(), 10)
            assert not speech.connected
            lost.clear()  # it is told once, however often nobody answers
            await asyncio.sleep(0.5)
            assert not lost.is_set()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(body())


def test_policies_that_are_in_effect_once_the_kernel_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes longer than a report waits for more."""

    async def body(agent: Agent, kernel: FakeKernel, table: KeptFilter) -> None:
        keep = agent.filtering.keep

        made = 0

        async def slow() -> ApplyError | None:
            nonlocal made
            made += 1
            agent.control._wake.clear()  # what was reported meanwhile
            return await keep()

        monkeypatch.setattr(agent.filtering, "keep", slow)
        declare(agent, policy("shut", selector="app == 'db'"))
        await applied(agent)
        assert made
        assert agent.control._wake.is_set()

    played(tmp_path, body, KeptFilter(), {})
