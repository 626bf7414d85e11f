"""Assigning inside a node's own blocks: a pure value, told the time.

Nobody else assigns inside these blocks, so no address here needs a central round trip. A freed
address cools for its pool's `cooldownSeconds` before anybody else gets it, so that packets, ARP
caches and connections of the old holder do not reach the new one; its own old holder may have it
back at once. Fresh addresses go first (lowest first), then cooled ones, oldest first.

Each block has a bit for every address that is not free, so that what is asked on every attach
(how many are free, which is the lowest) costs the same with one workload and with thousands.

Time is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from api.ipam.blocks import reserved as reserved_by
from api.ipam.reserved import Range, Reserved
from api.resources.errors import Cause, Conflict, PoolExhausted
from api.resources.net import IPAddress, IPNetwork, PrefixIndex

COOLDOWN = 60.0  # seconds, of addresses that are in no block of ours any more


@dataclass(frozen=True, slots=True)
class Block:
    """A block of ours; `cooldown` is in seconds. Nothing more is assigned of one that is `closed`:
    it goes back when it is empty."""

    cidr: IPNetwork
    pool: str
    cooldown: float = 60.0
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Cooling:
    owner: str
    since: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Of addresses; `reserved` are those that are neither assigned nor cooling."""

    size: int
    assigned: int
    cooling: int
    reserved: int = 0

    @property
    def free(self) -> int:
        return self.size - self.assigned - self.cooling - self.reserved


@dataclass(slots=True, eq=False)
class _Use:
    """What is taken in one block: a bit for each address, counted from its first one. `reserved`
    are those that nobody is given; some of them may be taken, from before they were reserved."""

    block: Block
    first: int
    reserved: int = 0
    taken: int = 0  # assigned or cooling
    assigned: int = 0
    cooling: int = 0

    def bit(self, address: IPAddress) -> int:
        return 1 << (int(address) - self.first)

    @property
    def free(self) -> int:
        return self.block.cidr.num_addresses - (self.taken | self.reserved).bit_count()

    def lowest(self, keep: Container[IPAddress]) -> IPAddress | None:
        """The lowest free address that is not in `keep`."""
        kind, size = type(self.block.cidr.network_address), self.block.cidr.num_addresses
        taken = self.taken | self.reserved
        while (place := (~taken & (taken + 1)).bit_length() - 1) < size:
            address = kind(self.first + place)
            if address not in keep:
                return address
            taken |= 1 << place
        return None


@dataclass(slots=True)
class Allocator:
    """The addresses of one node: `assigned` by address to their owner's name. Both mappings are
    to be read only; what changes them are the methods."""

    blocks: dict[IPNetwork, Block] = field(default_factory=dict)
    assigned: dict[IPAddress, str] = field(default_factory=dict)
    cooling: dict[IPAddress, Cooling] = field(default_factory=dict)
    _held: dict[str, list[IPAddress]] = field(default_factory=dict)  # by owner
    _uses: dict[IPNetwork, _Use] = field(default_factory=dict)  # by block, lowest first
    _index: PrefixIndex[_Use] = field(default_factory=PrefixIndex)
    reserved: Reserved = field(default_factory=Reserved)

    def own(self, blocks: Iterable[Block], reserved: Reserved | None = None) -> None:
        """These are our blocks from now on, and nothing of `reserved` is given to anybody. What is
        assigned elsewhere stays known."""
        wanted, reserved = {block.cidr: block for block in blocks}, reserved or Reserved()
        if (wanted, reserved) == (self.blocks, self.reserved):
            return
        self.blocks, self.reserved = wanted, reserved
        ordered = sorted(wanted.values(), key=lambda b: (b.cidr.version, b.cidr.network_address))
        self._uses = {
            b.cidr: _Use(b, int(b.cidr.network_address), _bits(reserved.inside(b.cidr)))
            for b in ordered
        }
        self._index = PrefixIndex(self._uses.items())
        for address in self.assigned:
            self._take_bit(address, assigned=1)
        for address in self.cooling:
            self._take_bit(address, cooling=1)

    def hold(self, address: IPAddress, owner: str) -> None:
        """`owner` has it, whatever anybody thinks: what survived a restart."""
        if address not in self.assigned:
            self._give(address, owner)

    def block_of(self, address: IPAddress) -> Block | None:
        use = self._index.find(address)
        return use.block if use else None

    def take(self, address: IPAddress, owner: str, now: float) -> IPAddress:
        """Assign exactly `address`; Conflict names who has it or how long it still cools."""
        held = self.assigned.get(address)
        if held == owner:
            return address
        if held is None and (name := self.reserved.name_of(address)) is not None:
            raise reserved_by(address, name, "spec.addresses")
        if held is not None:
            raise Conflict(
                f"cannot assign {address}: it is in use by workload {held}",
                causes=[Cause("spec.addresses", f"{address} is in use by {held}")],
            )
        block = self.block_of(address)
        if block is not None and block.closed:
            raise Conflict(
                f"cannot assign {address}: block {block.cidr} is wanted back, nothing more is "
                "assigned of it",
                causes=[Cause("spec.addresses", f"{address} is in a block that goes back")],
            )
        cooling = self.cooling.get(address)
        if cooling is not None and cooling.owner != owner:
            left = self._left(address, cooling, now)
            if left > 0:
                raise Conflict(
                    f"cannot assign {address}: freed by {cooling.owner}, it cools down for "
                    f"{left:.0f} s more",
                    causes=[Cause("spec.addresses", f"{address} is cooling down")],
                )
        self._give(address, owner)
        return address

    def assign(
        self, pool: str, version: int, owner: str, now: float, *, keep: Container[IPAddress] = ()
    ) -> IPAddress | None:
        """Any address of our blocks of `pool`, or None; those in `keep` are promised to others."""
        uses: list[_Use | None] = [*self._of(pool, version)]
        for use in self._of(pool, version):
            if use.free and (address := use.lowest(keep)) is not None:
                self._give(address, owner)
                return address
        cooled = min(
            (
                (cooling.since, int(address), address)
                for address, cooling in self.cooling.items()
                if address not in keep
                and address not in self.reserved
                and self._index.find(address) in uses
                and self._left(address, cooling, now) <= 0
            ),
            default=None,
        )
        if cooled is None:
            return None
        self._give(cooled[2], owner)
        return cooled[2]

    def warm(self, address: IPAddress) -> None:
        """Have it cool no longer: whoever is to get it is who had it."""
        if self.cooling.pop(address, None) is not None:
            self._free_bit(address, cooling=-1)

    def release(self, owner: str, now: float) -> list[IPAddress]:
        """Everything `owner` has begins to cool."""
        freed = self._held.pop(owner, [])
        for address in freed:
            del self.assigned[address]
            self.cooling[address] = Cooling(owner, now)
            self._count(address, assigned=-1, cooling=1)
        return freed

    def forget(self, owner: str) -> None:
        """Free at once what `owner` was given but never used on the wire."""
        for address in self._held.pop(owner, []):
            del self.assigned[address]
            self._free_bit(address, assigned=-1)

    def expire(self, now: float) -> None:
        """Drop what has cooled down. The oldest are first, so this does not look at all that
        cools."""
        shortest = min((block.cooldown for block in self.blocks.values()), default=COOLDOWN)
        gone = []
        for address, cooling in self.cooling.items():
            if cooling.since + min(shortest, COOLDOWN) > now:
                break
            if self._left(address, cooling, now) <= 0:
                gone.append(address)
        for address in gone:
            del self.cooling[address]
            self._free_bit(address, cooling=-1)

    def counts(self, block: Block) -> Counts:
        use = self._uses[block.cidr]
        reserved = (use.reserved & ~use.taken).bit_count()
        return Counts(block.cidr.num_addresses, use.assigned, use.cooling, reserved)

    def free(self, pool: str, version: int, now: float) -> int:
        """How many addresses of `pool` could be assigned now without a new block; what has cooled
        down counts once it was expired, or if there is nothing else."""
        free = sum(use.free for use in self._of(pool, version))
        if free:
            return free
        self.expire(now)
        return sum(use.free for use in self._of(pool, version))

    def empty_blocks(self, pool: str, now: float) -> list[Block]:
        """Blocks of `pool` without assigned or cooling addresses, highest first."""
        self.expire(now)
        found = [
            use.block for use in self._uses.values() if use.block.pool == pool and not use.taken
        ]
        return sorted(found, key=lambda block: int(block.cidr.network_address), reverse=True)

    def exhausted(self, pool: str, cidr: IPNetwork, why: str) -> PoolExhausted:
        """The error that names everything: pool, size, used, free, cooling."""
        mine = [self.counts(block) for block in self.blocks.values() if block.pool == pool]
        return PoolExhausted(
            f"cannot assign an address of pool {pool} ({cidr}, {cidr.num_addresses} addresses): "
            f"this node's {len(mine)} block(s) have {sum(c.size for c in mine)} addresses, "
            f"{sum(c.assigned for c in mine)} used, {sum(c.free for c in mine)} free, "
            f"{sum(c.cooling for c in mine)} cooling, {sum(c.reserved for c in mine)} reserved; "
            f"{why}",
            kind="IPPool",
            name=pool,
        )

    def cool(self, cooling: Mapping[IPAddress, Cooling]) -> None:
        """These cool as well: what survived a restart. What is assigned stays assigned."""
        for address in cooling.keys() - self.assigned.keys() - self.cooling.keys():
            self.cooling[address] = cooling[address]
            self._take_bit(address, cooling=1)
        oldest_first = sorted(self.cooling.items(), key=lambda entry: entry[1].since)
        self.cooling = dict(oldest_first)

    def _of(self, pool: str, version: int) -> list[_Use]:
        return [
            use
            for use in self._uses.values()
            if use.block.pool == pool and use.block.cidr.version == version and not use.block.closed
        ]

    def _give(self, address: IPAddress, owner: str) -> None:
        was_cooling = self.cooling.pop(address, None) is not None
        self.assigned[address] = owner
        self._held.setdefault(owner, []).append(address)
        if was_cooling:
            self._count(address, assigned=1, cooling=-1)
        else:
            self._take_bit(address, assigned=1)

    def _count(self, address: IPAddress, *, assigned: int = 0, cooling: int = 0) -> _Use | None:
        use = self._index.find(address)
        if use is not None:
            use.assigned += assigned
            use.cooling += cooling
        return use

    def _take_bit(self, address: IPAddress, *, assigned: int = 0, cooling: int = 0) -> None:
        if (use := self._count(address, assigned=assigned, cooling=cooling)) is not None:
            use.taken |= use.bit(address)

    def _free_bit(self, address: IPAddress, *, assigned: int = 0, cooling: int = 0) -> None:
        if (use := self._count(address, assigned=assigned, cooling=cooling)) is not None:
            use.taken &= ~use.bit(address)

    def _left(self, address: IPAddress, cooling: Cooling, now: float) -> float:
        block = self.block_of(address)
        return cooling.since + (block.cooldown if block else COOLDOWN) - now


def _bits(ranges: Iterable[Range]) -> int:
    found = 0
    for first, last in ranges:
        found |= (1 << (last + 1)) - (1 << first)
    return found
