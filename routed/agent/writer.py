"""The one writer: every change of kernel, records and announcements goes through it, in order.

HTTP handlers, streams and timers only hand in jobs and wake the loop; one task runs them. A job
is done before the next begins, so no two of them ever see each other half done, and no lock is
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
        self._jobs: deque[tuple[Job, asyncio.Future[Any]]] = deque()
        self._dirty = False
        self._something = asyncio.Event()
        self._idle_waiters: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Ask for a full sync soon."""
        self._dirty = True
        self._something.set()

    async def run(self, job: Callable[[], Awaitable[T]]) -> T:
        """Run `job` in its turn and return what it returns.

        A caller that goes away does not stop its job: a change begun is a change finished.
        """
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, done))
        self._something.set()
        result: T = await done
        return result

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
            turns = 0
            while self._jobs and turns < self._patience:
                job, done = self._jobs.popleft()
                await _settle(job, done)
                turns += 1
            if self._dirty:
                self._dirty = False
                waiters, self._idle_waiters = self._idle_waiters, []
                await self._sync()
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)
            if self._jobs:
                self._something.set()


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
