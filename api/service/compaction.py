"""Forgetting the past: a log that is never compacted grows for ever.

What is kept is what a watcher may come back for: every change of the last KEEP_SECONDS, and never
fewer than the last KEEP_REVISIONS. Several processes on one store may all do it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field

from api.resources.errors import StorageError
from api.store import Store

log = logging.getLogger("routed.service")

EVERY_SECONDS = 15.0
KEEP_SECONDS = 300.0
KEEP_REVISIONS = 10_000


@dataclass(slots=True)
class Horizon:
    """Which revision is old enough, from the times (monotonic seconds) at which they were seen."""

    keep_seconds: float = KEEP_SECONDS
    keep_revisions: int = KEEP_REVISIONS
    _seen: deque[tuple[float, int]] = field(default_factory=deque)
    _old: int = 0

    def before(self, now: float, revision: int) -> int:
        """The store is at `revision`: what lies before the answer may be forgotten (0: nothing)."""
        self._seen.append((now, revision))
        while self._seen and self._seen[0][0] <= now - self.keep_seconds:
            self._old = self._seen.popleft()[1]
        return max(0, min(self._old, revision - self.keep_revisions))


async def keep_compact(
    store: Store, horizon: Horizon | None = None, every: float = EVERY_SECONDS
) -> None:
    """Compact from time to time, for ever."""
    horizon, done = horizon or Horizon(keep_revisions=KEEP_REVISIONS * store.spacing), 0
    loop = asyncio.get_running_loop()
    while True:
        try:
            revision, _ = await store.scan("/none/")
            before = horizon.before(loop.time(), revision)
            if before > done:
                await store.compact(before)
                done = before
        except StorageError as error:
            log.warning("not compacted why=%s", error)
        await asyncio.sleep(every)
