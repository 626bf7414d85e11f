"""The copy of intent on disk, kept up to date off the loop.

A change that decides is written at once; reports of workloads, which change with every attach, are
gathered for a second. What is lost with the host is then at most that second of reports: these
addresses are missing among those that cool down after the boot if the service is away as well.

The fsync is a thread's. There is one writer, so the file never goes back in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from pathlib import Path

from api.resources import Workload
from routed.agent.intent import Encoder, Intent, load
from routed.agent.known import Known
from routed.agent.records import write_atomic

log = logging.getLogger("routed.control")

GATHER_SECONDS = 1.0
RETRY_SECONDS = 1.0


class Copy:
    """`path` holds what `known` knew last, once all of it was known."""

    def __init__(self, path: Path, known: Known) -> None:
        self.path = path
        self._known = known
        self._encoder = Encoder()
        self._without: set[str] = set()  # blocks being given back
        self._outdated = asyncio.Event()
        self._urgent = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []

    def load(self, node: str) -> tuple[Intent, dict[str, Workload]] | None:
        return load(self.path, node)

    def outdated(self, *, urgent: bool) -> None:
        """Something has changed."""
        self._outdated.set()
        if urgent:
            self._urgent.set()

    def leave_out(self, block: str) -> None:
        """From now on the copy does not name that block."""
        self._without.add(block)
        self.outdated(urgent=True)

    def take_in(self, block: str) -> None:
        """It may name it again."""
        self._without.discard(block)
        self.outdated(urgent=True)

    async def written(self) -> None:
        """Return once the copy is on disk as of this call; OSError if it cannot be."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self.outdated(urgent=True)
        await done

    async def serve(self) -> None:
        """Write until cancelled; then once more, if anything is outdated."""
        try:
            while True:
                await self._outdated.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GATHER_SECONDS):
                        await self._urgent.wait()
                if not await self._write():
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            if self._outdated.is_set() and self._known.complete:
                with contextlib.suppress(OSError):
                    write_atomic(self.path, self._encoded(), durable=True)

    async def _write(self) -> bool:
        """Whether the copy is up to date now. One that cannot be written is worked with all the
        same."""
        self._outdated.clear()
        self._urgent.clear()
        waiting, self._waiting = self._waiting, []
        failed: OSError | None = None
        job = asyncio.ensure_future(
            asyncio.to_thread(write_atomic, self.path, self._encoded(), durable=True)
        )
        try:
            await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait([job])  # the last write must not meet this one
            raise
        except OSError as error:
            log.error("intent not saved path=%s: %s", self.path, error)
            self._outdated.set()
            failed = error
        for one in waiting:
            if not one.done():
                if failed is None:
                    one.set_result(None)
                else:
                    one.set_exception(failed)
        return failed is None

    def _encoded(self) -> bytes:
        intent = self._known.intent()
        if self._without:
            kept = {name: b for name, b in intent.blocks.items() if name not in self._without}
            intent = replace(intent, blocks=kept)
        return self._encoder.encode(intent, self._known.reports)
