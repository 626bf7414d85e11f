"""Which pools may be, and who may claim which block: pure decisions over the space as it is owned.

The caller has the space at one revision, decides here, and commits with the guard key's revision
in `expect` (api.store.seam), so that no two decisions made on the same state both stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from api.ipam.space import Held, Space, block_name, block_of
from api.resources.errors import Cause, Conflict, Invalid, PoolExhausted, none_such
from api.resources.ippool import Allocation, IPBlock, IPPool
from api.resources.net import IPAddress, IPNetwork
from api.resources.selectors import parse as parse_selector


def overlapping(cidr: IPNetwork, pools: Iterable[IPPool], name: str) -> IPPool | None:
    """Another pool than `name` that shares an address with `cidr`, or None."""
    for pool in pools:
        if pool.metadata.name != name and _overlap(pool.spec.cidr, cidr):
            return pool
    return None


def claim(wanted: IPBlock, space: Space, node_labels: Mapping[str, str]) -> tuple[IPNetwork, str]:
    """The block that `wanted` claims for its node, and the pool it is of.

    By cidr or address: the block that holds it, also one that the node owns already. By pool:
    the lowest free. Raises Invalid, Conflict (another node's; named), PoolExhausted.
    """
    spec = wanted.spec
    anchor = spec.address or (spec.cidr.network_address if spec.cidr else None)
    if anchor is None:
        pool = _named(spec.pool, space.pools)
        _usable(pool, spec.node, node_labels)
        return _lowest(pool, space, spec.node), pool.metadata.name
    field = "spec.address" if spec.address else "spec.cidr"
    found = space.pool_of(anchor)
    if found is None:
        raise outside_every_pool(anchor, space.pools, field)
    name = found.metadata.name
    if spec.address and (reservation := space.reserved.name_of(spec.address)) is not None:
        raise reserved(spec.address, reservation, field)
    if spec.address and found.spec.allocation is Allocation.FIXED:
        not_leased(spec.address, space.leases, spec.lease, field)
    if spec.pool and spec.pool != name:
        raise _invalid("spec.pool", f"{anchor} is in pool {name}, not {spec.pool}")
    cidr = block_of(anchor, found)
    if spec.cidr is not None and spec.cidr != cidr:
        raise _invalid("spec.cidr", f"{spec.cidr} is no block of {name}; {cidr} is")
    held = space.blocks.get(block_name(cidr))
    if held is None:
        _usable(found, spec.node, node_labels)
    elif held.node != spec.node:
        raise owned_by_another(anchor, held)
    return cidr, name


def owned_by_another(address: IPAddress, block: Held) -> Conflict:
    return Conflict(
        f"cannot assign {address}: it is inside block {block.cidr} of node "
        f"{block.node}; attach there, or ask for another address",
        causes=[Cause("spec.addresses", f"{address} belongs to node {block.node}")],
        kind="IPBlock",
        name=block_name(block.cidr),
    )


def reserved(address: IPAddress, reservation: str, field: str) -> Conflict:
    message = f"{address} is reserved by IPReservation {reservation}: nobody is given it"
    return _withheld(address, message, field, "IPReservation", reservation)


def not_leased(address: IPAddress, leases: Mapping[IPAddress, str], mine: str, field: str) -> None:
    """Conflict if `address` is leased, but by the lease `mine`."""
    holder = leases.get(address)
    if holder is not None and holder != mine:
        said = f"{address} is leased: only a workload with lease {holder!r} is given it"
        raise _withheld(address, said, field, "AddressLease", holder)


def _withheld(address: IPAddress, said: str, field: str, kind: str, name: str) -> Conflict:
    message = f"cannot assign {address}: {said}"
    return Conflict(message, causes=[Cause(field, said)], kind=kind, name=name)


def outside_every_pool(address: IPAddress, pools: Mapping[str, IPPool], field: str) -> Invalid:
    listed = ", ".join(f"{name} {pool.spec.cidr}" for name, pool in sorted(pools.items()))
    message = f"{address} is outside every pool ({listed or 'there is none'})"
    return Invalid(f"cannot assign {address}: {message}", causes=[Cause(field, message)])


def _lowest(pool: IPPool, space: Space, node: str) -> IPNetwork:
    cidr = space.lowest_free(pool)
    if cidr is None:
        size = 1 << (pool.spec.block_size - pool.spec.cidr.prefixlen)
        whole = space.reserved.blocks(pool.spec.cidr, pool.spec.block_size)
        withheld = sum(last - first + 1 for first, last in whole)
        raise PoolExhausted(
            f"cannot claim a block of pool {pool.metadata.name} ({pool.spec.cidr}) for node "
            f"{node}: of its {size} blocks of /{pool.spec.block_size} "
            f"{space.owned(pool.metadata.name)} are owned, {withheld} wholly reserved, 0 free",
            kind="IPPool",
            name=pool.metadata.name,
        )
    return cidr


def _named(name: str, pools: Mapping[str, IPPool]) -> IPPool:
    pool = pools.get(name)
    if pool is None:
        raise _invalid("spec.pool", none_such("pool", name, sorted(pools)))
    return pool


def _usable(pool: IPPool, node: str, labels: Mapping[str, str]) -> None:
    name = pool.metadata.name
    if pool.spec.disabled:
        raise _invalid("spec.pool", f"pool {name} is disabled: no new blocks")
    if pool.spec.allocation is Allocation.ANYCAST:
        raise _invalid("spec.pool", f"pool {name} has allocation Anycast, which has no blocks")
    if not parse_selector(pool.spec.node_selector).matches(labels):
        raise _invalid(
            "spec.node", f"nodeSelector {pool.spec.node_selector!r} of {name} excludes node {node}"
        )


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(
        f"cannot claim a block: {message}", causes=[Cause(field, message)], kind="IPBlock"
    )


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


__all__ = [
    "block_name",
    "block_of",
    "claim",
    "not_leased",
    "outside_every_pool",
    "overlapping",
    "owned_by_another",
    "reserved",
]
