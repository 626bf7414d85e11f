"""Whether what the service holds of addresses agrees with itself: pure, on documents' typed values.

Nothing here can happen while all programs do what they should; it is looked for because stores are
restored, objects written by hand, and programs wrong. What is `garbage` nobody can be using: taking
it away loses nothing. What each node's agent has found itself is in a condition of the Node; a node
that is silent, or has never said it, is said, for nobody knows what it has.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from api.ipam.reserved import Reserved
from api.ipam.space import block_of
from api.resources import IPBlock, IPPool, IPReservation, Node, Workload
from api.resources.ippool import FORCE_RELEASE, Allocation
from api.resources.net import IPAddress, PrefixIndex
from api.resources.node import ADDRESSES_CONSISTENT
from api.resources.workload import Origin


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with the object `name` of `plural`. Of garbage the whole object, or with
    `annotation` that alone. `about` stays the same where the message says more that may become
    more while it is wrong."""

    plural: str
    name: str
    message: str
    garbage: bool = False
    annotation: str = ""
    about: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        """By which it is the same as one of another look."""
        return self.plural, self.name, self.about or self.message

    def __str__(self) -> str:
        return f"{self.plural}/{self.name}: {self.message}"


@dataclass(frozen=True, slots=True)
class Held:
    """Everything that concerns addresses, as the service shows it."""

    pools: Sequence[IPPool] = ()
    blocks: Sequence[IPBlock] = ()
    nodes: Sequence[Node] = ()
    workloads: Sequence[Workload] = ()
    reservations: Sequence[IPReservation] = ()


def findings(held: Held) -> list[Finding]:
    """Everything that does not agree, by kind and name."""
    found = [*_pools(held.pools), *_nodes(held.nodes), *_blocks(held), *_workloads(held)]
    return sorted(found, key=lambda one: (one.plural, one.name, one.message))


def _pools(pools: Sequence[IPPool]) -> Iterator[Finding]:
    ordered = sorted(pools, key=lambda p: (p.spec.cidr.version, int(p.spec.cidr.network_address)))
    for one, other in pairwise(ordered):
        a, b = one.spec.cidr, other.spec.cidr
        if a.version == b.version and a.overlaps(b):
            yield Finding("ippools", one.metadata.name, f"{a} overlaps {other.metadata.name} {b}")


def _nodes(nodes: Sequence[Node]) -> Iterator[Finding]:
    """What agents say of themselves."""
    for node in nodes:
        name, conditions = node.metadata.name, node.status.conditions
        said = next((one for one in conditions if one.type == ADDRESSES_CONSISTENT), None)
        if said is None:
            why = "has not said whether its addresses agree" if conditions else "never reported"
            yield Finding("nodes", name, f"{why}: what it has is not known")
        elif said.status != "True":
            what = "found" if said.status == "False" else "does not know"
            because = ": ".join(text for text in (said.reason, said.message) if text)
            yield Finding("nodes", name, f"{what}: {because}", about=f"{what}: {said.reason}")


def _blocks(held: Held) -> Iterator[Finding]:
    pools = {pool.metadata.name: pool for pool in held.pools}
    nodes = {node.metadata.name for node in held.nodes}
    owners: dict[object, str] = {}
    assigned = _assigned(held)
    for block in held.blocks:
        name, spec = block.metadata.name, block.spec
        pool, cidr = pools.get(spec.pool), spec.cidr
        if cidr is None:
            yield Finding("ipblocks", name, "has no cidr")
            continue
        if pool is None:
            yield Finding("ipblocks", name, f"its pool {spec.pool!r} does not exist")
        elif cidr != block_of(cidr.network_address, pool) or not _within(cidr, pool):
            yield Finding("ipblocks", name, f"{cidr} is no block of {spec.pool} {pool.spec.cidr}")
        elif pool.spec.allocation is Allocation.ANYCAST:
            yield Finding("ipblocks", name, f"pool {spec.pool} has allocation Anycast: no blocks")
        if spec.node not in nodes:
            yield Finding("ipblocks", name, f"its node {spec.node!r} does not exist")
        if FORCE_RELEASE in block.metadata.annotations:
            said = f"has a statement that {spec.node} is off, and was not taken: a deletion would"
            yield Finding("ipblocks", name, said, garbage=True, annotation=FORCE_RELEASE)
        if cidr in owners:
            yield Finding("ipblocks", name, f"{cidr} is block {owners[cidr]} as well")
        owners[cidr] = name
        if block.status.assigned != assigned[name]:
            yield Finding(
                "ipblocks",
                name,
                f"its node counts {block.status.assigned} assigned addresses, "
                f"workloads have {assigned[name]}",
            )


def _assigned(held: Held) -> Counter[str]:
    """How many addresses of each block workloads have."""
    index = _index(held.blocks)
    found: Counter[str] = Counter()
    for address in {a for workload in held.workloads for a in workload.status.addresses}:
        block = index.find(address)
        if block is not None:
            found[block.metadata.name] += 1
    return found


def _workloads(held: Held) -> Iterator[Finding]:
    index = _index(held.blocks)
    reserved = Reserved({r.metadata.name: r.spec.reserved_cidrs for r in held.reservations})
    nodes = {node.metadata.name for node in held.nodes}
    holders: defaultdict[IPAddress, list[str]] = defaultdict(list)
    for workload in held.workloads:
        name, node = workload.metadata.name, workload.spec.node
        if node not in nodes:
            born_there = workload.spec.origin is Origin.NODE
            owns = any(block.spec.node == node for block in held.blocks)
            said = f"its node {node!r} does not exist"
            yield Finding("workloads", name, said, garbage=born_there and not owns)
        for address in workload.status.addresses:
            holders[address].append(name)
            block = index.find(address)
            if block is None:
                yield Finding("workloads", name, f"{address} is in no block")
            elif block.spec.node != node:
                said = f"{address} is in block {block.spec.cidr} of node {block.spec.node}"
                yield Finding("workloads", name, f"{said}, not of its node {node}")
            if (by := reserved.name_of(address)) is not None:
                yield Finding("workloads", name, f"{address} is reserved by {by}")
    for address, names in holders.items():
        for name in names[1:]:
            yield Finding("workloads", name, f"{address} is workload {names[0]}'s as well")


def _index(blocks: Iterable[IPBlock]) -> PrefixIndex[IPBlock]:
    return PrefixIndex((b.spec.cidr, b) for b in blocks if b.spec.cidr is not None)


def _within(cidr: object, pool: IPPool) -> bool:
    return cidr.subnet_of(pool.spec.cidr)  # type: ignore[attr-defined,no-any-return]


__all__ = ["Finding", "Held", "findings"]
