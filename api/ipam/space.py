"""The address space as it is owned: pools, blocks, leases, and the lowest free of each pool.

A value that is kept up with the store's log, change by change, so that a claim costs the same with
ten blocks owned and with twenty thousand, and so does a lease. Pools never overlap, so an address
lies in at most one of them and in at most one block of it; a block is called by its CIDR, so the
block of an address is looked up by name.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from heapq import heappop, heappush

from api.ipam.reserved import Range, Reserved
from api.resources.ippool import IPPool
from api.resources.net import IPAddress, IPNetwork, PrefixIndex, host_prefix


@dataclass(frozen=True, slots=True)
class Held:
    """A block that `node` owns."""

    cidr: IPNetwork
    pool: str
    node: str


@dataclass(slots=True)
class Lowest:
    """A set of numbers, and the lowest beyond a start that is not in it.

    The frontier only grows. Below it, whatever is free is in the heap `_freed`, once, which may
    also hold what has been taken since. What is in `skips`, sorted ranges, is passed over; they
    were made of `reserved`.
    """

    taken: set[int] = field(default_factory=set)
    skips: list[Range] = field(default_factory=list)
    reserved: Reserved | None = None
    _frontier: int = 0
    _freed: list[int] = field(default_factory=list)
    _queued: set[int] = field(default_factory=set)

    def take(self, number: int) -> None:
        self.taken.add(number)

    def free(self, number: int) -> None:
        self.taken.discard(number)
        if number < self._frontier and number not in self._queued:
            heappush(self._freed, number)
            self._queued.add(number)

    def skip(self, ranges: list[Range]) -> None:
        """Pass these over from now on, and no others: all is to be looked at once more."""
        if ranges != self.skips:
            self.skips, self._frontier = ranges, 0
            self._freed.clear()
            self._queued.clear()

    def lowest(self, start: int) -> int:
        """From `start` on, which is the same every time."""
        self._frontier = max(self._frontier, start)
        while self._freed:
            lowest = self._freed[0]
            if lowest not in self.taken and self._beyond(lowest) == lowest:
                return lowest
            self._queued.discard(heappop(self._freed))
        while True:
            beyond = self._beyond(self._frontier)
            if beyond not in self.taken:
                self._frontier = beyond
                return beyond
            self._frontier = beyond + 1

    def _beyond(self, number: int) -> int:
        """`number`, or the first one behind the range to be skipped that it is in."""
        place = bisect_right(self.skips, number, key=lambda held: held[0]) - 1
        if place >= 0 and self.skips[place][1] >= number:
            return self.skips[place][1] + 1
        return number


class Space:
    """Pools, blocks, leases and reservations. `set_pool`, `set_block`, `set_lease` and
    `set_reservation` put, replace, or (None) take away one. All mappings are to be read only."""

    def __init__(self) -> None:
        self.pools: dict[str, IPPool] = {}
        self.reserved = Reserved()
        self.leases: dict[IPAddress, str] = {}  # the lease of each address
        self.blocks: dict[str, Held] = {}
        self._owned: dict[str, Lowest] = {}  # by pool: the numbers of its owned blocks
        self._kept: dict[str, Lowest] = {}  # by Fixed pool: of addresses owned or leased
        self._index: PrefixIndex[IPPool] = PrefixIndex()

    def set_pool(self, name: str, pool: IPPool | None) -> None:
        self._kept.pop(name, None)
        if pool is None:
            self.pools.pop(name, None)
        else:
            self.pools[name] = pool
        self._index = PrefixIndex((held.spec.cidr, held) for held in self.pools.values())

    def set_reservation(self, name: str, cidrs: tuple[IPNetwork, ...] | None) -> None:
        held = {other: of for other, of in self.reserved.by_name.items() if other != name}
        self.reserved = Reserved(held if cidrs is None else {**held, name: cidrs})

    def set_block(self, name: str, block: Held | None) -> None:
        before = self.blocks.pop(name, None)
        if before is not None:
            owned = self._owned[before.pool]
            owned.free(_number(before.cidr))
            if not owned.taken:
                del self._owned[before.pool]
            if before.cidr.network_address not in self.leases:
                self._keep(before.pool, before.cidr, kept=False)
        if block is not None:
            self.blocks[name] = block
            if block.pool not in self._owned:
                self._owned[block.pool] = Lowest()
            self._owned[block.pool].take(_number(block.cidr))
            self._keep(block.pool, block.cidr, kept=True)

    def set_lease(self, address: IPAddress, name: str | None) -> None:
        pool = self.pool_of(address)
        if name is None:
            self.leases.pop(address, None)
        else:
            self.leases[address] = name
        if pool is not None:
            kept = name is not None or self.owner_of(address) is not None
            self._keep(pool.metadata.name, host_prefix(address), kept=kept)

    def owned(self, pool: str) -> int:
        """How many blocks of `pool` are owned."""
        return len(self._owned[pool].taken) if pool in self._owned else 0

    def pool_of(self, address: IPAddress) -> IPPool | None:
        """The pool that holds `address`, or None."""
        return self._index.find(address)

    def owner_of(self, address: IPAddress) -> Held | None:
        """The owned block that holds `address`, or None."""
        pool = self.pool_of(address)
        return None if pool is None else self.blocks.get(block_name(block_of(address, pool)))

    def leased(self, pool: IPPool) -> int:
        """How many addresses of a Fixed pool are leased and owned by nobody."""
        return len(self._of_fixed(pool).taken) - self.owned(pool.metadata.name)

    def lowest_free(self, pool: IPPool) -> IPNetwork | None:
        """The lowest aligned block of `pool` that nobody owns and that has an address to assign,
        or None."""
        owned = self._owned.get(pool.metadata.name)
        return self._lowest(pool, owned or Lowest())

    def lowest_leasable(self, pool: IPPool) -> IPAddress | None:
        """The lowest address of a Fixed pool that is neither leased, owned nor reserved, or
        None."""
        found = self._lowest(pool, self._of_fixed(pool))
        return None if found is None else found.network_address

    def _lowest(self, pool: IPPool, numbers: Lowest) -> IPNetwork | None:
        """The block of the lowest number that is free."""
        size, cidr = pool.spec.block_size, pool.spec.cidr
        bits = cidr.max_prefixlen - size
        first, count = int(cidr.network_address) >> bits, 1 << (size - cidr.prefixlen)
        if numbers.reserved is not self.reserved:  # else they pass over its ranges already
            numbers.reserved = self.reserved
            numbers.skip(self.reserved.blocks(cidr, size))
        number = numbers.lowest(first)
        return None if number >= first + count else type(cidr)((number << bits, size))

    def _of_fixed(self, pool: IPPool) -> Lowest:
        """The addresses of a Fixed pool that somebody owns or a lease keeps: looked for once,
        kept up from then on."""
        name, cidr = pool.metadata.name, pool.spec.cidr
        if name not in self._kept:
            owned = self._owned.get(name) or Lowest()
            leased = {int(a) for a in self.leases if a.version == cidr.version and a in cidr}
            self._kept[name] = Lowest(owned.taken | leased)
        return self._kept[name]

    def _keep(self, pool: str, cidr: IPNetwork, *, kept: bool) -> None:
        numbers = self._kept.get(pool)
        if numbers is not None:
            (numbers.take if kept else numbers.free)(_number(cidr))


def block_name(cidr: IPNetwork) -> str:
    """``10.65.0.0/26`` is called ``10-65-0-0-26``; v6 in full groups, so that names are unique."""
    address = cidr.network_address.exploded.replace(".", "-").replace(":", "-")
    return f"{address}-{cidr.prefixlen}"


def block_of(address: IPAddress, pool: IPPool) -> IPNetwork:
    """The block of `pool` that holds `address`."""
    size = pool.spec.block_size
    bits = address.max_prefixlen - size
    return type(pool.spec.cidr)((int(address) >> bits << bits, size))


def _number(cidr: IPNetwork) -> int:
    return int(cidr.network_address) >> (cidr.max_prefixlen - cidr.prefixlen)
