"""Pools, blocks, and who may claim which: pure functions over the present state.

The caller reads pools and blocks at one revision, decides here, and commits with the guard key's
revision in `expect` (api.store.seam), so that no two decisions made on the same state both stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from api.resources.errors import Cause, Conflict, Invalid, PoolExhausted
from api.resources.ippool import Allocation, IPBlock, IPPool
from api.resources.net import IPAddress, IPNetwork, parse_cidr
from api.resources.selectors import parse as parse_selector


def overlapping(cidr: IPNetwork, pools: Iterable[IPPool], name: str) -> IPPool | None:
    """Another pool than `name` that shares an address with `cidr`, or None."""
    for pool in pools:
        if pool.metadata.name != name and _overlap(pool.spec.cidr, cidr):
            return pool
    return None


def block_name(cidr: IPNetwork) -> str:
    """``10.65.0.0/26`` is called ``10-65-0-0-26``; v6 in full groups, so that names are unique."""
    address = cidr.network_address.exploded.replace(".", "-").replace(":", "-")
    return f"{address}-{cidr.prefixlen}"


def block_of(address: IPAddress, pool: IPPool) -> IPNetwork:
    """The block of `pool` that holds `address`."""
    bits = address.max_prefixlen - pool.spec.block_size
    start = type(address)(int(address) >> bits << bits)
    return parse_cidr(f"{start}/{pool.spec.block_size}")


def lowest_free(pool: IPPool, taken: Iterable[IPNetwork]) -> IPNetwork | None:
    """The lowest aligned block of `pool` that is not in `taken`, or None."""
    bits = pool.spec.cidr.max_prefixlen - pool.spec.block_size
    base = int(pool.spec.cidr.network_address) >> bits
    count = 1 << (pool.spec.block_size - pool.spec.cidr.prefixlen)
    used = sorted({(int(cidr.network_address) >> bits) - base for cidr in taken})
    # Binary search for the first gap: used[i] == i holds exactly before it.
    low, high = 0, len(used)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if used[middle] == middle else (low, middle)
    if low >= count:
        return None
    start = (base + low) << bits
    return parse_cidr(f"{type(pool.spec.cidr.network_address)(start)}/{pool.spec.block_size}")


def claim(
    wanted: IPBlock,
    pools: Mapping[str, IPPool],
    blocks: Mapping[str, IPBlock],
    node_labels: Mapping[str, str],
) -> IPNetwork:
    """The block that `wanted` claims for its node.

    By cidr or address: the block that holds it, also one that the node owns already. By pool:
    the lowest free. Raises Invalid, Conflict (another node's; named), PoolExhausted.
    """
    spec = wanted.spec
    if spec.cidr is None and spec.address is None:
        pool = _named(spec.pool, pools)
        _usable(pool, spec.node, node_labels)
        return _lowest(pool, blocks, spec.node)
    anchor = spec.address or (spec.cidr.network_address if spec.cidr else None)
    assert anchor is not None
    field = "spec.address" if spec.address else "spec.cidr"
    pool_found = next((p for p in pools.values() if anchor in p.spec.cidr), None)
    if pool_found is None:
        raise outside_every_pool(anchor, pools, field)
    pool = pool_found
    if spec.pool and spec.pool != pool.metadata.name:
        raise _invalid("spec.pool", f"{anchor} is in pool {pool.metadata.name}, not {spec.pool}")
    cidr = block_of(anchor, pool)
    if spec.cidr is not None and spec.cidr != cidr:
        raise _invalid("spec.cidr", f"{spec.cidr} is no block of {pool.metadata.name}; {cidr} is")
    held = blocks.get(block_name(cidr))
    if held is not None:
        if held.spec.node != spec.node:
            raise owned_by_another(anchor, held)
        return cidr
    _usable(pool, spec.node, node_labels)
    return cidr


def owner_of(address: IPAddress, blocks: Iterable[IPBlock]) -> IPBlock | None:
    """The block that holds `address`, or None."""
    return next((b for b in blocks if b.spec.cidr is not None and address in b.spec.cidr), None)


def owned_by_another(address: IPAddress, block: IPBlock) -> Conflict:
    return Conflict(
        f"cannot assign {address}: it is inside block {block.spec.cidr} of node "
        f"{block.spec.node}; attach there, or ask for another address",
        causes=[Cause("spec.addresses", f"{address} belongs to node {block.spec.node}")],
        kind="IPBlock",
        name=block.metadata.name,
    )


def outside_every_pool(address: IPAddress, pools: Mapping[str, IPPool], field: str) -> Invalid:
    listed = ", ".join(f"{name} {pool.spec.cidr}" for name, pool in sorted(pools.items()))
    message = f"{address} is outside every pool ({listed or 'there is none'})"
    return Invalid(f"cannot assign {address}: {message}", causes=[Cause(field, message)])


def _lowest(pool: IPPool, blocks: Mapping[str, IPBlock], node: str) -> IPNetwork:
    taken = [
        block.spec.cidr
        for block in blocks.values()
        if block.spec.cidr is not None and _overlap(block.spec.cidr, pool.spec.cidr)
    ]
    cidr = lowest_free(pool, taken)
    if cidr is None:
        size = 1 << (pool.spec.block_size - pool.spec.cidr.prefixlen)
        raise PoolExhausted(
            f"cannot claim a block of pool {pool.metadata.name} ({pool.spec.cidr}) for node "
            f"{node}: all {size} blocks of /{pool.spec.block_size} are owned; 0 are free",
            kind="IPPool",
            name=pool.metadata.name,
        )
    return cidr


def _named(name: str, pools: Mapping[str, IPPool]) -> IPPool:
    pool = pools.get(name)
    if pool is None:
        known = ", ".join(sorted(pools)) or "none"
        raise _invalid("spec.pool", f"there is no pool {name!r}; there are: {known}")
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
    "lowest_free",
    "outside_every_pool",
    "overlapping",
    "owned_by_another",
    "owner_of",
]
