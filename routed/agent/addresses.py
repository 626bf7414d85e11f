"""The address book of one node: which workload has which address, inside the node's own blocks.

What is assigned is derived from the records and never written down twice. What cools is written
to ``<stateDir>/cooling.log``; if the host has booted since, what was in it cools once more, and so
do the addresses that the service still has reports of (nobody may get them while a switch or a peer
may still hold the old route).

`prepare` may ask the service for a block and runs outside the writer; `assign` is a pure step in
it. Headless, `prepare` only fails if the node's own blocks cannot serve.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from api.ipam import blocks as ipam
from api.ipam.allocator import Allocator, Block, Cooling
from api.resources.errors import Cause, Conflict, Invalid, PoolExhausted, RoutedError, none_such
from api.resources.ippool import IPPool
from api.resources.net import IPAddress
from api.resources.workload import IPFamily, Workload
from routed.agent.attachment import Attachment
from routed.agent.cooling import CoolingLog
from routed.agent.intent import Intent
from routed.agent.plan import automatic_pools, why_not


class BlockSource(Protocol):
    """Where blocks come from."""

    async def claim(
        self, *, pool: str = "", address: IPAddress | None = None, lease: str = ""
    ) -> Intent:
        """Intent with the claimed block in it; IntentError, or Unreachable."""


class AddressBook:
    """`low_water` free addresses are held ready in each pool that this node uses."""

    def __init__(self, log: CoolingLog, low_water: int) -> None:
        self.log = log
        self.low_water = low_water
        self.allocator = Allocator()
        self.releasing: set[str] = set()

    def restore(
        self,
        records: Mapping[str, Attachment],
        intent: Intent | None,
        reports: Mapping[str, Workload],
    ) -> None:
        """Derive the book from what survived."""
        now = time.monotonic()
        if intent is not None:
            self.own(intent)
        for record in records.values():
            for address in record.addresses:
                self.allocator.hold(address, record.id)
        cooling, same_boot = self.log.load()
        if not same_boot:
            declared = intent.declared if intent is not None else {}
            reported = {
                address: name
                for name, workload in (*declared.items(), *reports.items())
                for address in workload.status.addresses
            }
            owners = reported | {address: one.owner for address, one in cooling.items()}
            cooling = {address: Cooling(owner, now) for address, owner in owners.items()}
        self.allocator.cool(cooling)
        self.tidy()

    def tidy(self) -> None:
        """Forget what has cooled down, in the log as well: after a boot it would cool again."""
        self.allocator.expire(time.monotonic())
        self.log.tidy(self.allocator.cooling)

    def released(self) -> set[IPAddress]:
        """Addresses that somebody may have had lately and nobody has: those that cool, and those
        of blocks of one address, which do not cool for who holds their lease."""
        fixed = {cidr.network_address for cidr in self.allocator.blocks if cidr.num_addresses == 1}
        return (fixed | self.allocator.cooling.keys()) - self.allocator.assigned.keys()

    def own(self, intent: Intent) -> None:
        """The blocks of `intent` are ours from now on."""
        self.releasing &= intent.blocks.keys()
        found = []
        for name, block in intent.blocks.items():
            pool = intent.pools.get(block.spec.pool)
            if block.spec.cidr is None or name in self.releasing:
                continue
            cooldown = pool.spec.cooldown_seconds if pool else 60
            closed = intent.draining or block.metadata.deletion_timestamp is not None
            found.append(Block(block.spec.cidr, block.spec.pool, float(cooldown), closed))
        self.allocator.own(found, intent.reserved)

    # -- getting ready ------------------------------

    async def prepare(self, intent: Intent, wanted: Attachment, source: BlockSource) -> None:
        """Own what `wanted` needs; IntentError or Unreachable says why that cannot be."""
        for address in wanted.requested:
            pool = intent.pool_index.find(address)
            if pool is None:
                raise ipam.outside_every_pool(address, intent.pools, "addresses")
            if wanted.pools and pool.metadata.name not in wanted.pools:
                said = f"{address} is in pool {pool.metadata.name}, not {', '.join(wanted.pools)}"
                raise Invalid(f"cannot assign {address}: {said}", causes=[Cause("addresses", said)])
            if (name := intent.reserved.name_of(address)) is not None:
                raise ipam.reserved(address, name, "addresses")
            ipam.not_leased(address, intent.leased, wanted.lease, "addresses")
            self._not_going(intent, address)
            if self.allocator.block_of(address) is None:
                intent = await source.claim(address=address, lease=wanted.lease)
                self.own(intent)
                self._not_going(intent, address)  # it may have begun to go back meanwhile
        if wanted.requested:
            return
        for pools in self._choices(intent, wanted):
            if not any(map(self._free, pools)):
                await self._claim(pools, source)

    async def _claim(self, pools: Sequence[IPPool], source: BlockSource) -> None:
        """A block of the first of `pools`, all of one family, that has one; PoolExhausted says of
        each why not."""
        full: list[PoolExhausted] = []
        for pool in pools:
            name, cidr = pool.metadata.name, pool.spec.cidr
            try:
                self.own(await source.claim(pool=name))
                return
            except RoutedError as error:
                why = f"no block more: {error}"
                full.append(self.allocator.exhausted(name, cidr, why))
                if not isinstance(error, PoolExhausted):  # another pool would not help
                    break
        more = "; ".join(map(str, full))
        raise PoolExhausted(more, kind="IPPool", name=full[0].name)

    def _not_going(self, intent: Intent, address: IPAddress) -> None:
        """Conflict if `address` is in a block on its way back: nobody can say how that ends."""
        block = intent.block_index.find(address)
        if block is not None and block[0] in self.releasing:
            said = "its block is being given back, and whether it was is not known yet"
            raise Conflict(f"cannot assign {address}: {said}", causes=[Cause("addresses", said)])

    def keeps(self, wanted: Attachment) -> bool:
        """Whether it had addresses that it may have again: then no block is needed."""
        blocks = [self.allocator.block_of(address) for address in wanted.addresses]
        return bool(blocks) and all(block is not None and not block.closed for block in blocks)

    def pools_below_mark(self, intent: Intent) -> list[str]:
        """Pools that this node would assign from and has too few free addresses of."""
        now = time.monotonic()
        self.allocator.expire(now)
        used = {block.pool for block in self.allocator.blocks.values()}
        found = []
        first: set[int] = set()
        for pool in automatic_pools(intent):
            name, version = pool.metadata.name, pool.spec.cidr.version
            if name not in used and version in first:
                continue  # only the first pool of a family is held ready before it is used
            first.add(version)
            mark = min(self.low_water, 1 << (pool.spec.cidr.max_prefixlen - pool.spec.block_size))
            if self.allocator.free(name, version, now) < mark:
                found.append(name)
        return found

    def spare_blocks(self, intent: Intent) -> list[str]:
        """Empty blocks that could go back: those that are wanted back, those of pools that nothing
        is assigned of by itself, and of the others as many as leave twice the mark free."""
        now = time.monotonic()
        usable = {pool.metadata.name for pool in automatic_pools(intent)}
        found = []
        for pool in intent.pools.values():
            name, version = pool.metadata.name, pool.spec.cidr.version
            keep = 2 * max(self.low_water, 1) if name in usable else 0
            free = self.allocator.free(name, version, now)
            for block in self.allocator.empty_blocks(name, now):
                size = 0 if block.closed else self.allocator.counts(block).free
                if free - size >= keep or block.closed:
                    free -= size
                    found.append(ipam.block_name(block.cidr))
        return [name for name in found if name in intent.blocks]

    def only_cooling(self, intent: Intent) -> bool:
        """Whether a block would go back but for addresses that still cool."""
        usable = {pool.metadata.name for pool in automatic_pools(intent)}
        for block in self.allocator.blocks.values():
            if block.closed or block.pool not in usable:
                counts = self.allocator.counts(block)
                if counts.cooling and not counts.assigned:
                    return True
        return False

    # -- steps of the writer ------------------------------

    def assign(self, intent: Intent, wanted: Attachment) -> list[IPAddress]:
        """The addresses of `wanted`: those it asks for, else those it had, else a new one.

        Conflict or PoolExhausted, with nothing assigned.
        """
        now = time.monotonic()
        if not wanted.requested and wanted.addresses:
            kept = self._again(intent, wanted, now)
            if kept:
                return kept
        try:
            if wanted.lease:
                for address in wanted.requested:
                    self.allocator.warm(address)
            if wanted.requested:
                return [self.allocator.take(a, wanted.id, now) for a in wanted.requested]
        except RoutedError:
            self.allocator.forget(wanted.id)
            raise
        given = []
        for pool in self._pools(intent, wanted):
            name, cidr = pool.metadata.name, pool.spec.cidr
            keep = intent.promised
            found = self.allocator.assign(name, cidr.version, wanted.id, now, keep=keep)
            if found is None:
                self.allocator.forget(wanted.id)
                raise self.allocator.exhausted(name, cidr, "its owned blocks are used up")
            given.append(found)
        return given

    def _again(self, intent: Intent, wanted: Attachment, now: float) -> list[IPAddress]:
        """The addresses it had before, if every one of them can still be had."""
        if any(self.allocator.block_of(address) is None for address in wanted.addresses):
            return []
        if any(intent.leased.get(a, wanted.lease) != wanted.lease for a in wanted.addresses):
            return []
        try:
            return [self.allocator.take(a, wanted.id, now) for a in wanted.addresses]
        except RoutedError:
            self.allocator.forget(wanted.id)
            return []

    def release(self, workload: str, *, leased: bool = False) -> None:
        """The workload's addresses begin to cool; written down before anybody can have them. Those
        that are leased need not: nobody else can."""
        if leased:
            self.allocator.forget(workload)
            return
        freed = self.allocator.release(workload, time.monotonic())
        cooling = self.allocator.cooling
        self.log.add([(address, cooling[address]) for address in freed], cooling)

    def forget(self, workload: str) -> None:
        """The attach failed: its addresses were never used."""
        self.allocator.forget(workload)

    def counts(self) -> dict[str, tuple[int, int]]:
        """(assigned, cooling) of each of our blocks, by name."""
        self.allocator.expire(time.monotonic())
        found = {}
        for block in self.allocator.blocks.values():
            counts = self.allocator.counts(block)
            found[ipam.block_name(block.cidr)] = (counts.assigned, counts.cooling)
        return found

    def _pools(self, intent: Intent, wanted: Attachment) -> list[IPPool]:
        """The pools to assign from, one a family: the first that may be used and has room, else
        the first."""
        choices = self._choices(intent, wanted)
        return [next(filter(self._free, pools), pools[0]) for pools in choices]

    def _free(self, pool: IPPool) -> int:
        version = pool.spec.cidr.version
        return self.allocator.free(pool.metadata.name, version, time.monotonic())

    def _choices(self, intent: Intent, wanted: Attachment) -> list[list[IPPool]]:
        """The pools that may be used, by name, of each family that is wanted."""
        for name in wanted.pools:
            if name not in intent.pools:
                said = none_such("pool", name, sorted(intent.pools))
                raise Invalid(f"cannot attach {wanted.name}: {said}", causes=[Cause("pools", said)])
        usable = automatic_pools(intent, wanted.pools)
        families = list(wanted.ip_families) or [
            family
            for family in IPFamily
            if any(p.spec.cidr.version == family.version for p in usable)
        ]
        if not (wanted.ip_families or wanted.pools):
            families = families[:1]
        of_each = [[p for p in usable if p.spec.cidr.version == one.version] for one in families]
        if not all(of_each) or not families:
            lacking = next((f"{f} " for f, p in zip(families, of_each, strict=True) if not p), "")
            raise PoolExhausted(
                f"cannot attach {wanted.name}: no {lacking}pool is to be used by node "
                f"{intent.node_name}: {why_not(intent, wanted.pools) or 'there is none'}"
            )
        return of_each
