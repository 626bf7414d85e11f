"""The one writer: whoever hands in a job, no two jobs and no sync are ever half done at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from routed.agent.writer import Writer


class World:
    """What jobs and syncs do here: be under way for a moment, and note it."""

    def __init__(self) -> None:
        self.inside = 0
        self.syncs = 0
        self.done: list[int] = []

    async def sync(self) -> None:
        await self.busy()
        self.syncs += 1

    async def busy(self) -> None:
        self.inside += 1
        assert self.inside == 1, "two at a time"
        for _ in range(3):
            await asyncio.sleep(0)
        self.inside -= 1

    def job(self, number: int) -> Callable[[], Awaitable[int]]:
        async def work() -> int:
            await self.busy()
            self.done.append(number)
            return number

        return work


def play(body: Callable[[Writer, World], Awaitable[None]]) -> None:
    async def whole() -> None:
        world = World()
        writer = Writer(world.sync, patience=4)
        serving = asyncio.create_task(writer.serve())
        try:
            async with asyncio.timeout(5):
                await body(writer, world)
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving

    asyncio.run(whole())


def test_jobs_and_syncs_never_meet() -> None:
    async def body(writer: Writer, world: World) -> None:
        async def caller(number: int) -> None:
            for _ in range(number % 5):
                await asyncio.sleep(0)
            if number % 3 == 0:
                writer.wake()
            assert await writer.run(world.job(number)) == number

        await asyncio.gather(*(caller(number) for number in range(100)))
        await writer.synced()
        assert sorted(world.done) == list(range(100))
        assert world.syncs >= 2

    play(body)


def test_a_wanted_sync_gets_its_turn_among_many_jobs() -> None:
    async def body(writer: Writer, world: World) -> None:
        jobs = [asyncio.create_task(writer.run(world.job(number))) for number in range(50)]
        await asyncio.sleep(0)
        writer.wake()
        while not world.syncs:
            await asyncio.sleep(0)
        assert len(world.done) < 50
        await asyncio.gather(*jobs)

    play(body)


@pytest.mark.parametrize("alone", [True, False])
def test_what_a_job_raises_is_its_callers_and_the_writer_goes_on(alone: bool) -> None:
    async def body(writer: Writer, world: World) -> None:
        async def bad() -> None:
            raise ValueError("no")

        other = None if alone else asyncio.create_task(writer.run(world.job(1)))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="no"):
            await writer.run(bad)
        assert await writer.run(world.job(2)) == 2
        if other is not None:
            await other

    play(body)


def test_a_caller_that_goes_away_leaves_a_writer_that_works() -> None:
    async def body(writer: Writer, world: World) -> None:
        first = asyncio.create_task(writer.run(world.job(1)))
        second = asyncio.create_task(writer.run(world.job(2)))
        await asyncio.sleep(0)
        second.cancel()
        assert await first == 1
        assert await writer.run(world.job(3)) == 3
        await writer.synced()
        assert world.done == [1, 2, 3], "a job that was handed in is done"

    play(body)


def test_what_is_handed_in_is_done_in_its_turn_and_before_a_sync() -> None:
    async def body() -> None:
        world = World()
        writer = Writer(world.sync)
        serving = asyncio.create_task(writer.serve())
        running = asyncio.create_task(writer.run(world.job(1)))
        await asyncio.sleep(0)
        writer.hand_in(world.job(2))
        writer.wake()
        await running
        await writer.synced()
        assert world.done == [1, 2]

        async def fails() -> None:
            raise RuntimeError("nobody waits for it")

        writer.hand_in(fails)
        with pytest.raises(RuntimeError):  # else nobody would know
            await serving

    asyncio.run(body())
