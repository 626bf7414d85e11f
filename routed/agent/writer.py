"""The one writer: every change of kernel, records and announcements goes through it, in order.

HTTP handlers, streams and timers only hand in jobs and wake the loop. A job is done before the
next begins, so no two of them ever see each other half done, and no lock is
needed. `wake` asks for one full sync after the jobs at hand; any number of wakes make one sync.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

Job = Callable[[], Awaitable[Any]]


class Writer:
    """Runs jobs first come first served, then at most one sync, then waits."""

    def __init__(self, sync: Callable[[], Awaitable[None]], *, patience: int = 64) -> None:
        self._sync = sync
        self._patience = patience  # jobs in a row before a wanted sync gets its turn
        self._jobs: deque[tuple[Job, asyncio.Future[Any] | None]] = deque()
        self._dirty = False
        self._busy = False
        self.last_job = 0.0  # when the last one came, by the loop's clock
        self._something = asyncio.Event()
        self._idle_waiters: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Ask for a full sync soon."""
        self._dirty = True
        self._something.set()

    async def run(self, job: Callable[[], Awaitable[T]]) -> T:
        """Run `job` in its turn and return what it returns: at once where nothing else is to be
        done, else by the writer's task.

        A caller that goes away does not stop its job: a change begun is a change finished, if not
        by itself then by the next sync.
        """
        self.last_job = asyncio.get_running_loop().time()
        if not (self._busy or self._jobs or self._dirty):
            self._busy = True
            try:
                return await job()
            finally:
                self._busy = False
                if self._jobs or self._dirty:
                    self._something.set()
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, done))
        self._something.set()
        result: T = await done
        return result

    def hand_in(self, job: Job) -> None:
        """Have `job` run in its turn, by the writer's task; nobody waits for it. What it raises
        ends the writer, as a sync's does."""
        self._jobs.append((job, None))
        self._something.set()

    async def synced(self) -> None:
        """Return after a full sync that began after this call."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle_waiters.append(waiter)
        self.wake()
        await waiter

    async def serve(self) -> None:
        """Never returns; cancel it to stop. What a sync raises ends it, and with it the agent."""
        while True:
            await self._something.wait()
            self._something.clear()
            if self._busy:
                continue  # by one who says so when it is done
            self._busy = True
            try:
                await self._turn()
            finally:
                self._busy = False
            if self._jobs:
                self._something.set()

    async def _turn(self) -> None:
        """The jobs at hand, then the sync that is wanted."""
        turns = 0
        while self._jobs and turns < self._patience:
            job, done = self._jobs.popleft()
            if done is None:
                await job()
            else:
                await _settle(job, done)
            turns += 1
        if self._dirty:
            self._dirty = False
            waiters, self._idle_waiters = self._idle_waiters, []
            await self._sync()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


async def _settle(job: Job, done: asyncio.Future[Any]) -> None:
    """Run one job; what it raises is its caller's, never the writer's."""
    try:
        result = await job()
    except asyncio.CancelledError:
        done.cancel()
        raise
    except Exception as error:  # noqa: BLE001 - handed to the caller whole
        if not done.cancelled():
            done.set_exception(error)
    else:
        if not done.cancelled():
            done.set_result(result)
