"""The filter's table and its one thread.

All that is asked of the table is done in one thread, one after the other: reading and changing a
table of thousands of entries takes longer than the loop may be kept from its other work, and a
`Nft` is for one user at a time. Who has gone away meanwhile changes nothing about that: what was
begun is finished before the next begins. What is to be in the table is decided in the loop, and
handed over as values.

What was put there last is the thread's to know, so that it can be put back by whoever hears that
somebody took it away, whatever the loop is at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

from api.resources.errors import ApplyError
from policies.compile.ruleset import Ruleset
from policies.counters import Reading
from policies.firewall import Blocking
from policies.nat import Nat, PortMapping
from policies.slaves import Slaves

log = logging.getLogger("routed.agent")
T = TypeVar("T")

SAY_SECONDS = 10.0  # between two lines of the log that say that the table was restored


class Filter(Protocol):
    """The base table of policies: in place before any link is."""

    def sync(self, nat: Nat | None, rules: Ruleset | None = None, *, trusted: bool = False) -> bool:
        """Make it so, with `nat` and with these rules of policies, either of which None leaves as
        it is; whether that changed anything. `trusted`: nobody else has changed it since the last
        call, so that it need not be read. ApplyError."""

    def policed(self) -> bool:
        """Whether the table has any rules of policies. ApplyError, also where there is no table."""

    def stand_by(self) -> None:
        """Let no flow of a workload begin while the table, which is there now, is away. ApplyError:
        not on this host, or not yet."""

    def opened(self) -> bool:
        """Whether the table was away, and workloads were open, before it was made; told once."""

    def check(self, rules: Ruleset) -> None:
        """ApplyError if the kernel would not take these, by themselves; nothing is changed."""

    def map_ports(self, ports: Iterable[PortMapping], *, add: bool) -> None:
        """Put these into the table that is there, or take them out, and nothing else. ApplyError,
        also where some were there already, or were not."""

    def open_docker(self) -> bool:
        """Keep our pair of rules in Docker's chain; whether that changed anything. ApplyError."""

    def blocking(self, slaves: Slaves) -> list[Blocking]:
        """Chains of others that cut workloads off; `slaves`: those of the ipvlan modes.
        ApplyError."""

    def counted(self) -> Reading:
        """What rules of policies have counted; in any thread. ApplyError."""

    def watch(self) -> AsyncIterator[bool]:
        """One item for every burst of changes that somebody else made: whether our table may be
        among what was changed. The first one comes at once."""


class Table:
    """`filter` in its thread. `rules` are those of policies that were put there last."""

    def __init__(self, held: Filter) -> None:
        self.filter = held
        self.rules: Ruleset | None = None
        self._nat: Nat | None = None
        self._there = False
        self.opened = False  # workloads were open before the table was made
        self._alone: str | None = None  # why nothing stands by; "": something does
        self._thread = ThreadPoolExecutor(1, "nftables")
        self._unsaid = 0  # times that it was restored
        self._quiet: asyncio.TimerHandle | None = None  # until it is said

    async def aside(self, job: Callable[..., T], *arguments: object, **named: object) -> T:
        """`job` in the thread, in its turn."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(job, *arguments, **named))

    async def sync(self, nat: Nat | None, rules: Ruleset | None, *, trusted: bool = False) -> bool:
        """See `Filter`. ApplyError."""
        return await self.aside(self.put, nat, rules, trusted=trusted)

    def put(self, nat: Nat | None, rules: Ruleset | None, *, trusted: bool) -> bool:
        """`sync`, of who is in the thread. ApplyError."""
        changed = self.filter.sync(nat, rules, trusted=trusted)
        self._nat = nat if nat is not None else self._nat
        self.rules = rules if rules is not None else self.rules
        self._there = True
        self.opened = self.filter.opened() or self.opened
        if not trusted:
            self._stand_by()
        return changed

    def _stand_by(self) -> None:
        try:
            self.filter.stand_by()
            why = ""
        except ApplyError as error:
            why = str(error)
        if why and why != self._alone:
            log.warning("while somebody has flushed the filter table, all passes: %s", why)
        self._alone = why

    async def map_ports(self, ports: frozenset[PortMapping], after: Nat, *, add: bool) -> None:
        """See `Filter`; `after` is what is translated then. ApplyError."""
        await self.aside(self._map_ports, ports, after, add=add)

    def _map_ports(self, ports: frozenset[PortMapping], after: Nat, *, add: bool) -> None:
        self.filter.map_ports(ports, add=add)
        self._nat = after

    async def restore(self) -> None:
        """Put back what was there last, if it is not there any more."""
        try:
            if await self.aside(self._restore):
                self._say()
        except ApplyError as error:  # the next round says so
            log.error("filter table not made anew: %s", error)

    def _say(self) -> None:
        """The first time, and then once in SAY_SECONDS: who does it in a loop does not fill the
        log."""
        if self._quiet is not None:
            self._unsaid += 1
            return
        log.warning("filter table made anew: somebody had changed it")
        self._later()

    def _later(self) -> None:
        self._quiet = asyncio.get_running_loop().call_later(SAY_SECONDS, self._say_rest)

    def _say_rest(self) -> None:
        times, self._unsaid, self._quiet = self._unsaid, 0, None
        if times:
            log.warning("filter table made anew %d times more in %g s", times, SAY_SECONDS)
            self._later()

    def _restore(self) -> bool:
        changed = self._there and self.filter.sync(self._nat, self.rules)
        self.opened = self.filter.opened() or self.opened
        return changed
