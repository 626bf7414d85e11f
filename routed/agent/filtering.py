"""The filter table of this host, and the firewalls of others beside it.

The base table is in place before any link is; without it nothing is attached (fail closed).
Somebody else's drop beats our accept: where Docker has a chain for other people's rules, a pair
of ours is kept there; elsewhere it can only be said, with what would help.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Protocol

from api.resources.errors import ApplyError
from policies.firewall import Blocking
from policies.nat import Nat, PortMapping
from policies.slaves import NO_SLAVES, Slaves

log = logging.getLogger("routed.agent")


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

    def watch(self) -> AsyncIterator[None]:
        """One item for every burst of changes that somebody made."""


class Filtering:
    """`nat` is to be translated; None: it is not known yet. `ready`: the filter was read back.
    `blocking`: other people's chains that cut workloads off,
    as of the last look."""

    def __init__(self, table: Filter) -> None:
        self.table = table
        self.nat: Nat | None = None
        self.ready = False
        self.blocking: list[Blocking] = []
        self._due = True
        self._slaves = NO_SLAVES

    def regard(self, slaves: Slaves) -> None:
        """Judge other people's firewalls by these workloads of the ipvlan modes too."""
        if slaves != self._slaves:
            self._slaves = slaves
            self._due = True

    def look(self) -> None:
        """Look at other people's firewalls with the next round."""
        self._due = True

    async def serve(self, wake: Callable[[], None]) -> None:
        """Hear of changes of anybody's rules."""
        async for _ in self.table.watch():
            self._due = True
            wake()

    def keep(self) -> ApplyError | None:
        """Make the base table so; why it cannot be. Where the kernel refuses the translation, the
        filter is made without it, and is `ready`."""
        refused = self._sync(self.nat)
        alone = self._sync(None) if refused is not None and self.nat else refused
        self.ready = alone is None
        if self.ready and self._due:
            self._judge()
        return refused

    def _sync(self, nat: Nat | None) -> ApplyError | None:
        try:
            if self.table.sync(nat):
                log.info("filter table made")
        except ApplyError as error:
            return error
        return None

    def map_ports(self, ports: frozenset[PortMapping], *, add: bool) -> None:
        """Have these among what is translated, or no more: elements of sets that are there; where
        that fails, or none are there, the whole table. ApplyError."""
        if not ports or self.nat is None:
            return
        before, held = bool(self.nat), self.nat.ports
        self.nat = replace(self.nat, ports=held | ports if add else held - ports)
        try:
            if before and self.nat:
                self.table.map_ports(ports, add=add)
                return
        except ApplyError as error:
            log.info("ports not mapped alone: %s", error)
        self.table.sync(self.nat)

    def _judge(self) -> None:
        self._due = False
        before = self.blocking
        try:
            if self.table.open_docker():
                log.info("workloads let pass chain=DOCKER-USER")
        except (ApplyError, ValueError) as error:
            log.warning("rules not added chain=DOCKER-USER why=%s", error)
        try:
            self.blocking = self.table.blocking(self._slaves)
        except (ApplyError, ValueError) as error:
            log.warning("foreign firewalls unreadable: %s", error)
            return
        for one in self.blocking:
            if one not in before:
                where = f"{one.family} {one.table} {one.chain}"
                log.warning("forwarding blocked chain=%s remedy=%s", where, one.remedy)
