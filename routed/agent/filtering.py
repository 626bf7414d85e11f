"""The filter table of this host, and the firewalls of others beside it.

The base table is in place before any link is; without it nothing is attached (fail closed).
Somebody else's drop beats our accept: where Docker has a chain for other people's rules, a pair
of ours is kept there; elsewhere it can only be said, with what would help.

Only what somebody else may have changed is read again: whenever the kernel tells of it, and with
every periodic look. What the kernel tells of is put back at once, and looked at with the round that
follows. All that is done in a thread (`routed/agent/table.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from api.resources.errors import ApplyError
from policies.compile import changes, ipvlan
from policies.compile.closed import closed
from policies.compile.compiler import Compiler
from policies.compile.members import renewed
from policies.compile.ruleset import Ruleset
from policies.firewall import Blocking
from policies.model import Policy
from policies.nat import Nat, PortMapping
from policies.plan import without
from policies.slaves import NO_SLAVES, Slaves
from routed.agent.enforcing import Arrival, Move, Wanted
from routed.agent.table import Filter, Table

log = logging.getLogger("routed.agent")

Moves = Callable[[], Sequence[Move] | None]
Step = Callable[[Ruleset], Ruleset | None]  # None: it takes more than elements

SHARE = 50  # times as long as reading the table took are between two that nothing asked for


class Filtering:
    """`nat` is to be translated, and policies as they are `wanted`; None: it is not known, and what
    is there stays. `ready`: the filter was read back. `policies` are in effect. `refused`: why they
    are not as they are wanted, but as they were before; `blamed`: those that the kernel does not
    take even alone; `withheld`: those of them without which all else is as it is wanted.
    `blocking`: other people's chains that cut workloads off, as of the last look."""

    def __init__(self, table: Filter) -> None:
        self.table = Table(table)
        self.nat: Nat | None = None
        self.wanted: Wanted | None = None
        self.ready = False
        self.refused: ApplyError | None = None
        self.blamed: list[str] = []
        self.withheld: frozenset[str] = frozenset()
        self.policies: Mapping[str, Policy] = {}
        self.blocking: list[Blocking] = []
        self._compiler = Compiler()  # for the thread alone
        self._made_nat: Nat | None = None  # as it was made last
        self._made: Wanted | None = None
        self._accepted: Wanted | None = None  # the last that was in effect as it was wanted
        self._fresh = False  # there were no rules of policies before
        self._judged_policies: Mapping[str, Policy] | None = None
        self._read_at = self._read_took = 0.0  # when, and for how long, by the loop's clock
        self._touched = True
        self._due = True
        self._slaves = NO_SLAVES

    def regard(self, slaves: Slaves) -> None:
        """Judge other people's firewalls by these workloads of the ipvlan modes too."""
        if slaves != self._slaves:
            self._slaves = slaves
            self._due = True

    def look(self) -> None:
        """Look at other people's firewalls with the next round, and at our table, unless reading it
        takes so long that it would hardly do anything else."""
        since = asyncio.get_running_loop().time() - self._read_at
        self._touched = self._touched or since >= SHARE * self._read_took
        self._due = True

    async def serve(self, wake: Callable[[], None]) -> None:
        """Hear of changes of anybody's rules."""
        async for touched in self.table.filter.watch():
            self.heard(touched=touched)
            wake()
            if touched:
                await self.table.restore()

    def heard(self, *, touched: bool) -> None:
        """Somebody changed rules; `touched`: ours may be among them."""
        self._touched = self._touched or touched
        self._due = True

    async def keep(self) -> ApplyError | None:
        """Make the table so; why it cannot be. Where the kernel refuses the translation, or
        policies, the filter is made with these as they were before, and is `ready`."""
        refused, trusted = None, self.ready and not self._touched
        news = self.wanted is not None and self.wanted is not self._made
        if not trusted or news or self.nat != self._made_nat:
            self._touched = False  # what is changed from now on is heard of
            began = asyncio.get_running_loop().time()
            refused = await self._make(trusted=trusted)
            self._touched = self._touched or refused is not None
            if not trusted:
                self._read_at = asyncio.get_running_loop().time()
                self._read_took = self._read_at - began
        self._made_nat = self.nat
        if self.wanted is not None:
            self._made = self.wanted
        if self.refused is None and self.wanted is not None:
            self.policies, self._accepted = self.wanted.plan.policies, self.wanted
        await self._blame()
        await self._withhold()
        if self.ready and self._due:
            self._due = False
            self._judged(*await self.table.aside(_judge, self.table.filter, self._slaves))
        return refused

    async def _make(self, *, trusted: bool) -> ApplyError | None:
        """All of it, or as much as is not refused."""
        before = rules = self.table.rules
        wanted = self.wanted
        if wanted is not None:
            rules = await self.table.aside(self._compiled, wanted)
        refused = await self._sync(self.nat, rules, trusted=trusted)
        self.ready = refused is None
        if self.wanted is not None or not self.withheld:
            self.refused = None
        if refused is not None:
            self._fresh = self._fresh or (before is None and not await self._policed())
            last = None
            if before is None and wanted is not None and wanted.of_workloads and self._fresh:
                # nobody knows what was in effect before; `last`: if not even that is taken
                before, last = closed(ipvlan.sets(wanted.plan.ipvlan)), closed()
            elif before and wanted is not None:  # who has left is not to be let in by them
                before = await self.table.aside(renewed, before, wanted.membership)
            for nat, some in (
                (self.nat, before), (None, rules), (None, before), (None, last), (None, None),
            ):  # fmt: skip
                if await self._sync(nat, some) is None:
                    self.ready, self.refused = True, refused if some is not rules else None
                    break
        return refused

    async def _policed(self) -> bool:
        """Whether rules of policies are there, of an earlier agent."""
        try:
            return await self.table.aside(self.table.filter.policed)
        except ApplyError:
            return False

    async def join(self, one: Arrival) -> bool:
        """Have a workload among those that policies are for, before its link is there. False: it
        takes more than elements of sets, and nothing has been done. ApplyError."""
        if self._none():
            return one.free
        step = partial(changes.joined, placed=one.placed, beside=one.beside)
        return await self._alone(lambda: one.moves, step)

    async def part(self, one: Arrival) -> bool:
        """No more; its link is gone. False, ApplyError: as for `join`."""
        if self._none():
            return one.free
        step = partial(changes.parted, placed=one.placed, beside=one.beside)
        return await self._alone(lambda: one.moves, step)

    async def move(self, moves: Moves) -> bool:
        """Have other members, as `moves` works out in the thread, None if that cannot be said so.
        False, ApplyError: as for `join`."""
        return await self._alone(moves, None)

    def _none(self) -> bool:
        """Whether policies have nothing in the table, as was wanted."""
        return self.table.rules is not None and not self.table.rules

    async def _alone(self, moves: Moves, step: Step | None) -> bool:
        """In one turn of the thread: what comes to every host with each change is little."""
        ready = self.refused is None and self.ready and not self._touched
        try:
            done = await self.table.aside(self._altered, moves, step, ready=ready)
        except ApplyError:
            self.wanted = self._made = None
            self._touched = True  # what is there is not what this was to make of it
            raise
        if done:
            self.wanted = self._made = None  # what was worked out before does not have it
        return done is not None

    def _altered(self, moves: Moves, step: Step | None, *, ready: bool) -> bool | None:
        """Whether anything was; None: it takes more than that."""
        found, rules = moves(), self.table.rules
        if found is not None and not found and step is None:
            return False
        if found is None or not rules or not ready:
            return None
        after = step(rules) if step is not None else rules
        if after is None:
            return None
        for move in found:
            after = changes.moved(after, *move)
        self.table.put(self.nat, after, trusted=True)
        return True

    async def _blame(self) -> None:
        """Find out which policies the kernel does not take, once for each change of policies: it
        takes long where there are many."""
        if self.refused is None or self.wanted is None:
            self.blamed, self._judged_policies = [], None
        elif self.wanted.plan.policies != self._judged_policies:
            self._judged_policies = self.wanted.plan.policies
            self.blamed = await self.table.aside(self._refused_alone, self.wanted)

    async def _withhold(self) -> None:
        """Have all else in effect, and of those to blame what was before; where nobody knows what
        was, they close the workloads that they select. Rules of an agent before stay as they are:
        what they mean is not known."""
        if self.wanted is None and self.refused is not None:
            return  # as it is
        self.withheld = frozenset()
        wanted, before = self.wanted, self._accepted
        if self.refused is None or wanted is None or not self.blamed:
            return
        if before is None and not self._fresh:
            return
        known = before or Wanted()
        plan = without(wanted.plan, self.blamed, known.plan.policies, closed=before is None)
        told = replace(
            wanted.membership,
            selectors={**known.membership.selectors, **wanted.membership.selectors},
            ports={**known.membership.ports, **wanted.membership.ports},
        )
        rules = await self.table.aside(self._compiler.compile, plan, told)
        if await self._sync(None, rules) is None:
            self.withheld = frozenset(self.blamed)

    def _refused_alone(self, wanted: Wanted) -> list[str]:
        found = []
        for name, alone in wanted.each():
            try:
                self.table.filter.check(self._compiler.compile(alone.plan, alone.membership))
            except ApplyError:
                found.append(name)
        return found

    def _compiled(self, wanted: Wanted) -> Ruleset:
        return self._compiler.compile(wanted.plan, wanted.membership)

    async def map_ports(self, ports: frozenset[PortMapping], *, add: bool) -> None:
        """Have these among what is translated, or no more: elements of sets that are there; where
        that fails, or none are there, the whole table. ApplyError."""
        if not ports or self.nat is None:
            return
        before, held = self.nat, self.nat.ports
        self.nat = replace(before, ports=held | ports if add else held - ports)
        try:
            if before and self.nat:
                await self.table.map_ports(ports, self.nat, add=add)
                if self._made_nat == before:
                    self._made_nat = self.nat
                return
        except ApplyError as error:
            log.info("ports not mapped alone: %s", error)
        await self.table.sync(self.nat, self.table.rules)
        self._made_nat = self.nat

    async def _sync(
        self, nat: Nat | None, rules: Ruleset | None, *, trusted: bool = False
    ) -> ApplyError | None:
        try:
            changed = await self.table.sync(nat, rules, trusted=trusted)
            if changed and not trusted:
                log.info("filter table made")
        except ApplyError as error:
            return error
        return None

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
