"""Links on their way out, deleted off the answer's path and in groups of bounded size.

Deleting one link waits for an RCU grace period (20 ms), deleting a group waits for one as well,
and holds up every other change of links meanwhile: so links wait in REAP_GROUP, where the base
filter table drops all their packets, and a few at a time are moved to REAPING_GROUP and deleted
with it. The waiting is a thread's, on a socket of its own.

A link that is in neither group any more when its turn comes is left alone: it has gone, and
somebody else has its index.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from routed.kernel import messages as m
from routed.kernel import observe
from routed.kernel.netlink import Netlink
from routed.state import REAP_GROUP, REAPING_GROUP

DELAY = 0.05  # seconds for more links to join a group
MOST = 24  # links in one group; a larger one stalls attaches


class Reaper:
    """Made and used in the loop's thread."""

    def __init__(self) -> None:
        self._waiting: list[int] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, indexes: Iterable[int]) -> None:
        """Have links deleted soon; they are in REAP_GROUP or REAPING_GROUP already."""
        known = set(self._waiting)
        self._waiting += [index for index in indexes if index not in known]
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._later())

    async def drain(self) -> bool:
        """Return when nothing is left to delete; whether there was anything."""
        if self._task is None or self._task.done():
            return False
        await asyncio.shield(self._task)
        return True

    async def _later(self) -> None:
        await asyncio.sleep(DELAY)
        while self._waiting:
            few, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            await asyncio.to_thread(_delete, few)


def _delete(indexes: list[int]) -> None:
    with Netlink() as netlink:
        batch = [m.to_reaping(index) for index in indexes if _is_ours(netlink, index)]
        if batch:
            netlink.transact([*batch, m.delete_group(REAPING_GROUP)])


def _is_ours(netlink: Netlink, index: int) -> bool:
    link = observe.one_link(netlink, index)
    return link is not None and link.group in (REAP_GROUP, REAPING_GROUP)
