"""The filter table of this host, and the firewalls of others beside it.

The base table is in place before any link is; without it nothing is attached (fail closed).
Somebody else's drop beats our accept: where Docker has a chain for other people's rules, a pair
of ours is kept there; elsewhere it can only be said, with what would help.

All that is asked of the table is done in one thread, one after the other: reading and changing a
table of thousands of entries takes longer than the loop may be kept from its other work, and a
context of libnftables is for one user at a time. Who has gone away meanwhile changes nothing about
that: what was begun is finished before the next begins. What is to be in the table is decided in
the loop, and handed over as values.

Only what somebody else may have changed is read again: whenever the kernel tells of it, and with
every periodic look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from api.resources.errors import ApplyError
from policies.firewall import Blocking
from policies.nat import Nat, PortMapping
from policies.slaves import NO_SLAVES, Slaves

log = logging.getLogger("routed.agent")
T = TypeVar("T")


class Filter(Protocol):
    """The base table of policies: in place before any link is."""

    def sync(self, nat: Nat | None) -> bool:
        """Make it so, with `nat`, which None leaves as it is; whether that changed anything.
        ApplyError."""

    def map_ports(self, ports: Iterable[PortMapping], *, add: bool) -> None:
        """Put these into the table that is there, or take them out, and nothing else. ApplyError,
        also where some were there already, or were not."""

    def open_docker(self) -> bool:
        """Keep our pair of rules in Docker's chain; whether that changed anything. ApplyError."""

    def blocking(self, slaves: Slaves) -> list[Blocking]:
        """Chains of others that cut workloads off; `slaves`: those of the ipvlan modes.
        ApplyError."""

    def watch(self) -> AsyncIterator[bool]:
        """One item for every burst of changes that somebody else made: whether our table may be
        among what was changed. The first one comes at once."""


class Filtering:
    """`nat` is to be translated; None: it is not known yet. `ready`: the filter was read back.
    `blocking`: other people's chains that cut workloads off,
    as of the last look."""

    def __init__(self, table: Filter) -> None:
        self.table = table
        self.nat: Nat | None = None
        self.ready = False
        self.blocking: list[Blocking] = []
        self._thread = ThreadPoolExecutor(1, "nftables")
        self._made: Nat | None = None  # as it was read back last
        self._touched = True
        self._due = True
        self._slaves = NO_SLAVES

    def regard(self, slaves: Slaves) -> None:
        """Judge other people's firewalls by these workloads of the ipvlan modes too."""
        if slaves != self._slaves:
            self._slaves = slaves
            self._due = True

    def look(self) -> None:
        """Look at our table and at other people's firewalls with the next round."""
        self._touched = self._due = True

    async def serve(self, wake: Callable[[], None]) -> None:
        """Hear of changes of anybody's rules."""
        async for touched in self.table.watch():
            self._touched = self._touched or touched
            self._due = True
            wake()

    async def keep(self) -> ApplyError | None:
        """Make the base table so; why it cannot be. Where the kernel refuses the translation, the
        filter is made without it, and is `ready`."""
        refused = None
        if self._touched or not self.ready or self.nat != self._made:
            self._touched = False  # what is changed from now on is heard of
            refused = await self._sync(self.nat)
            alone = await self._sync(None) if refused is not None and self.nat else refused
            self.ready = alone is None
            self._made = self.nat
            self._touched = self._touched or refused is not None
        if self.ready and self._due:
            self._due = False
            self._judged(*await self._do(_judge, self.table, self._slaves))
        return refused

    async def map_ports(self, ports: frozenset[PortMapping], *, add: bool) -> None:
        """Have these among what is translated, or no more: elements of sets that are there; where
        that fails, or none are there, the whole table. ApplyError."""
        if not ports or self.nat is None:
            return
        before, held = self.nat, self.nat.ports
        self.nat = replace(before, ports=held | ports if add else held - ports)
        try:
            if before and self.nat:
                await self._do(self.table.map_ports, ports, add=add)
                if self._made == before:
                    self._made = self.nat
                return
        except ApplyError as error:
            log.info("ports not mapped alone: %s", error)
        await self._do(self.table.sync, self.nat)
        self._made = self.nat

    async def _sync(self, nat: Nat | None) -> ApplyError | None:
        try:
            if await self._do(self.table.sync, nat):
                log.info("filter table made")
        except ApplyError as error:
            return error
        return None

    async def _do(self, job: Callable[..., T], *arguments: object, **named: object) -> T:
        """`job`, in its turn."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(job, *arguments, **named))

    def _judged(self, blocking: list[Blocking] | None, said: list[str]) -> None:
        for one in said:
            log.warning("%s", one)
        if blocking is None:
            return
        before, self.blocking = self.blocking, blocking
        for found in blocking:
            if found not in before:
                where = f"{found.family} {found.table} {found.chain}"
                log.warning("forwarding blocked chain=%s remedy=%s", where, found.remedy)


def _judge(table: Filter, slaves: Slaves) -> tuple[list[Blocking] | None, list[str]]:
    """Other people's chains that cut workloads off, and what went wrong, for the log."""
    said = []
    try:
        if table.open_docker():
            log.info("workloads let pass chain=DOCKER-USER")
    except (ApplyError, ValueError) as error:
        said.append(f"rules not added chain=DOCKER-USER why={error}")
    try:
        return table.blocking(slaves), said
    except (ApplyError, ValueError) as error:
        return None, [*said, f"foreign firewalls unreadable: {error}"]
