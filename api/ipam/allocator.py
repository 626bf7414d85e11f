"""Assigning inside a node's own blocks: a pure value, told the time.

Nobody else assigns inside these blocks, so no address here needs a central round trip. A freed
address cools for its pool's `cooldownSeconds` before anybody else gets it, so that packets, ARP
caches and connections of the old holder do not reach the new one; its own old holder may have it
back at once. Fresh addresses go first (lowest first), then cooled ones, oldest first.

Time is monotonic seconds; the state that is written down holds ages, not times.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from api.resources.errors import Cause, Conflict, PoolExhausted
from api.resources.net import IPAddress, IPNetwork, parse_address


@dataclass(frozen=True, slots=True)
class Block:
    """A block of ours; `cooldown` is in seconds."""

    cidr: IPNetwork
    pool: str
    cooldown: float = 60.0


@dataclass(frozen=True, slots=True)
class Cooling:
    owner: str
    since: float


@dataclass(frozen=True, slots=True)
class Counts:
    size: int
    assigned: int
    cooling: int

    @property
    def free(self) -> int:
        return self.size - self.assigned - self.cooling


@dataclass(slots=True)
class Allocator:
    """The addresses of one node: `assigned` by address to their owner's name."""

    blocks: dict[IPNetwork, Block] = field(default_factory=dict)
    assigned: dict[IPAddress, str] = field(default_factory=dict)
    cooling: dict[IPAddress, Cooling] = field(default_factory=dict)

    def own(self, blocks: Iterable[Block]) -> None:
        """These are our blocks from now on. What is assigned elsewhere stays known."""
        self.blocks = {block.cidr: block for block in blocks}

    def block_of(self, address: IPAddress) -> Block | None:
        return next((b for b in self.blocks.values() if address in b.cidr), None)

    def take(self, address: IPAddress, owner: str, now: float) -> IPAddress:
        """Assign exactly `address`; Conflict names who has it or how long it still cools."""
        held = self.assigned.get(address)
        if held == owner:
            return address
        if held is not None:
            raise Conflict(
                f"cannot assign {address}: it is in use by workload {held}",
                causes=[Cause("spec.addresses", f"{address} is in use by {held}")],
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
        self.cooling.pop(address, None)
        self.assigned[address] = owner
        return address

    def assign(
        self, pool: str, version: int, owner: str, now: float, *, keep: Container[IPAddress] = ()
    ) -> IPAddress | None:
        """Any address of our blocks of `pool`, or None; those in `keep` are promised to others."""
        blocks = sorted(
            (b for b in self.blocks.values() if b.pool == pool and b.cidr.version == version),
            key=lambda block: int(block.cidr.network_address),
        )
        for block in blocks:
            first, size = int(block.cidr.network_address), block.cidr.num_addresses
            kind = type(block.cidr.network_address)
            for offset in range(size):
                address = kind(first + offset)
                if address in self.assigned or address in self.cooling or address in keep:
                    continue
                self.assigned[address] = owner
                return address
        cooled = sorted(
            (cooling.since, int(address), address)
            for address, cooling in self.cooling.items()
            if address not in keep
            and any(address in block.cidr for block in blocks)
            and self._left(address, cooling, now) <= 0
        )
        if not cooled:
            return None
        address = cooled[0][2]
        del self.cooling[address]
        self.assigned[address] = owner
        return address

    def release(self, owner: str, now: float) -> list[IPAddress]:
        """Everything `owner` has begins to cool."""
        freed = [address for address, held in self.assigned.items() if held == owner]
        for address in freed:
            del self.assigned[address]
            self.cooling[address] = Cooling(owner, now)
        return freed

    def forget(self, owner: str) -> None:
        """Free at once what `owner` was given but never used on the wire."""
        for address in [a for a, held in self.assigned.items() if held == owner]:
            del self.assigned[address]

    def expire(self, now: float) -> None:
        """Drop what has cooled down."""
        for address, cooling in list(self.cooling.items()):
            if self._left(address, cooling, now) <= 0:
                del self.cooling[address]

    def counts(self, block: Block) -> Counts:
        assigned = sum(address in block.cidr for address in self.assigned)
        cooling = sum(address in block.cidr for address in self.cooling)
        return Counts(block.cidr.num_addresses, assigned, cooling)

    def free(self, pool: str, version: int, now: float) -> int:
        """How many addresses of `pool` could be assigned now without a new block."""
        self.expire(now)
        return sum(
            self.counts(block).free
            for block in self.blocks.values()
            if block.pool == pool and block.cidr.version == version
        )

    def empty_blocks(self, pool: str, now: float) -> list[Block]:
        """Blocks of `pool` without assigned or cooling addresses, highest first."""
        self.expire(now)
        found = [
            block
            for block in self.blocks.values()
            if block.pool == pool and self.counts(block).free == block.cidr.num_addresses
        ]
        return sorted(found, key=lambda block: int(block.cidr.network_address), reverse=True)

    def exhausted(self, pool: str, cidr: IPNetwork, why: str) -> PoolExhausted:
        """The error that names everything: pool, size, used, free, cooling."""
        mine = [self.counts(block) for block in self.blocks.values() if block.pool == pool]
        return PoolExhausted(
            f"cannot assign an address of pool {pool} ({cidr}, {cidr.num_addresses} addresses): "
            f"this node's {len(mine)} block(s) have {sum(c.size for c in mine)} addresses, "
            f"{sum(c.assigned for c in mine)} used, {sum(c.free for c in mine)} free, "
            f"{sum(c.cooling for c in mine)} cooling, 0 reserved; {why}",
            kind="IPPool",
            name=pool,
        )

    def cooling_ages(self, now: float) -> dict[str, tuple[str, float]]:
        """What cools, as JSON-ready ``{address: (owner, seconds since it was freed)}``."""
        return {str(a): (c.owner, now - c.since) for a, c in self.cooling.items()}

    def restore_cooling(self, ages: Mapping[str, tuple[str, float]], now: float) -> None:
        """The inverse of `cooling_ages`; addresses that are assigned stay assigned."""
        for text, (owner, age) in ages.items():
            address = parse_address(text)
            if address not in self.assigned:
                self.cooling[address] = Cooling(owner, now - age)

    def _left(self, address: IPAddress, cooling: Cooling, now: float) -> float:
        block = self.block_of(address)
        return cooling.since + (block.cooldown if block else 60.0) - now
