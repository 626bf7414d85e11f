"""Whether the switches' tables, as one node receives them, agree with what the service has: pure.

A switch tells a host what the other hosts announce, each prefix with the AS that it comes from. It
does not send a host's own announcements back to it, and what comes from an AS that is the node's
own looks like a loop and is refused; of neither can anything be said here, so ask on another host.
A switch that shows nothing of the pools (many are to send a default route only) is not compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from api.ipam.check import Finding, Held
from api.resources import BGPPeer, IPBlock, IPPool, Node
from api.resources.ippool import Allocation, Announce
from api.resources.net import IPAddress, IPNetwork, PrefixIndex, host_prefix
from api.resources.workload import Phase


@dataclass(frozen=True, slots=True)
class Table:
    """What a switch shows: prefixes of the pools and the AS that each comes from, None where the
    path does not say. `versions` are those of IP that the session carries."""

    versions: frozenset[int]
    origins: Mapping[IPNetwork, int | None]


class _World:
    """What the tables are compared with."""

    def __init__(self, held: Held, peers: Sequence[BGPPeer]) -> None:
        self.held = held
        self.pools: PrefixIndex[IPPool] = PrefixIndex((p.spec.cidr, p) for p in held.pools)
        self.blocks: PrefixIndex[IPBlock] = PrefixIndex(
            (b.spec.cidr, b) for b in held.blocks if b.spec.cidr is not None
        )
        self.numbers = {n.metadata.name: _numbers(n, peers) for n in held.nodes}
        self.names: dict[int, str] = {}
        for name, numbers in sorted(self.numbers.items(), reverse=True):
            self.names |= dict.fromkeys(numbers, name)
        self.used: set[IPAddress] = {
            address
            for workload in held.workloads
            for address in (*workload.spec.addresses, *workload.status.addresses)
        }

    def called(self, number: int) -> str:
        return f"AS {number} ({self.names.get(number, 'of no node')})"


def findings(
    node: str, tables: Mapping[str, Table], held: Held, peers: Sequence[BGPPeer]
) -> list[Finding]:
    """What differs between `tables`, by peer, of `node` and all that the service has."""
    world = _World(held, peers)
    shown = {name: table for name, table in tables.items() if table.origins}
    found = [*_announced(node, shown, world), *_missing(node, shown, world)]
    return sorted(found, key=lambda one: (one.plural, one.name, one.message))


def silent(tables: Mapping[str, Table]) -> list[str]:
    """The peers that show nothing of the pools."""
    return sorted(name for name, table in tables.items() if not table.origins)


def _announced(node: str, tables: Mapping[str, Table], world: _World) -> Iterator[Finding]:
    """What others announce that is not theirs, or that nobody has."""
    seen: defaultdict[tuple[IPNetwork, int], list[str]] = defaultdict(list)
    for peer, table in tables.items():
        for prefix, origin in table.origins.items():
            if origin is not None:
                seen[prefix, origin].append(peer)
    for (prefix, origin), at in seen.items():
        pool = world.pools.find(prefix.network_address)
        if pool is None or pool.spec.allocation is Allocation.ANYCAST:
            continue
        if prefix.prefixlen < pool.spec.block_size:
            continue  # a summary of many nodes' blocks
        says = f"announces {prefix}, at {', '.join(sorted(at))}: "
        who = world.names.get(origin)
        plural, name = ("nodes", who) if who else ("ippools", pool.metadata.name)
        says = says if who else f"{world.called(origin)} {says}"
        block = world.blocks.find(prefix.network_address)
        if block is None:
            yield Finding(plural, name, f"{says}no node owns it")
        elif origin not in world.numbers.get(block.spec.node, ()):
            of = f"it is of block {block.spec.cidr} of {block.spec.node}"
            yield Finding(plural, name, f"{says}{of}")
        elif not is_aggregate(prefix, pool) and prefix.network_address not in world.used:
            yield Finding(plural, name, f"{says}no workload has it")


def _missing(node: str, tables: Mapping[str, Table], world: _World) -> Iterator[Finding]:
    """What others have and a switch does not show from their AS."""
    ours = world.numbers.get(node, frozenset())
    for workload in world.held.workloads:
        other = workload.spec.node
        numbers = world.numbers.get(other, frozenset())
        ready = workload.status.phase is Phase.READY
        if other == node or not numbers or numbers & ours or not ready:
            continue
        for address in workload.status.addresses:
            block, pool = world.blocks.find(address), world.pools.find(address)
            if block is None or pool is None or block.spec.node != other:
                continue  # said of the store itself
            wanted = block.spec.cidr if pool.spec.announce is Announce.BLOCKS else None
            prefix = wanted or host_prefix(address)
            lacking = sorted(
                peer
                for peer, table in tables.items()
                if address.version in table.versions
                and table.origins.get(prefix, -1) not in numbers
            )
            if lacking:
                said = f"{prefix} is not announced by {other} at {', '.join(lacking)}"
                yield Finding("workloads", workload.metadata.name, f"{said}, seen from {node}")


def is_aggregate(prefix: IPNetwork, pool: IPPool) -> bool:
    """Whether it is a block that is announced as a whole, which in a Fixed pool is an address."""
    return prefix.prefixlen == pool.spec.block_size and pool.spec.announce is not Announce.HOSTS


def _numbers(node: Node, peers: Sequence[BGPPeer]) -> frozenset[int]:
    """The ASes that it may announce from."""
    found = {
        peer.spec.local_as_number
        for peer in peers
        if peer.selects(node.metadata.name, node.metadata.labels)
    }
    return frozenset({node.spec.as_number, *found} - {None})  # type: ignore[arg-type]
