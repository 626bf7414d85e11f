"""Which address a lease may have: pure decisions over the space as it is owned."""

from __future__ import annotations

from api.ipam.blocks import not_leased, outside_every_pool, owned_by_another, reserved
from api.ipam.space import Space
from api.resources.addresslease import AddressLease
from api.resources.errors import Cause, Invalid, PoolExhausted, none_such
from api.resources.ippool import Allocation, IPPool
from api.resources.net import IPAddress


def lease(wanted: AddressLease, space: Space) -> tuple[IPAddress, str]:
    """The address of a new lease, and its pool. Invalid, Conflict (another's; named) or
    PoolExhausted."""
    name, spec = wanted.metadata.name, wanted.spec
    if spec.address is None:
        pool = space.pools.get(spec.pool or "")
        if pool is None:
            said = none_such("pool", spec.pool, sorted(space.pools))
            raise _invalid(name, "spec.pool", said)
        _fixed(name, pool, "spec.pool")
        return _lowest(pool, space, name), pool.metadata.name
    found = space.pool_of(spec.address)
    if found is None:
        raise outside_every_pool(spec.address, space.pools, "spec.address")
    if spec.pool not in (None, found.metadata.name):
        said = f"{spec.address} is in pool {found.metadata.name}, not {spec.pool}"
        raise _invalid(name, "spec.pool", said)
    _fixed(name, found, "spec.address")
    if (by := space.reserved.name_of(spec.address)) is not None:
        raise reserved(spec.address, by, "spec.address")
    not_leased(spec.address, space.leases, "", "spec.address")
    if (owner := space.owner_of(spec.address)) is not None:
        raise owned_by_another(spec.address, owner)
    return spec.address, found.metadata.name


def _lowest(pool: IPPool, space: Space, name: str) -> IPAddress:
    address = space.lowest_leasable(pool)
    if address is None:
        cidr, owned = pool.spec.cidr, space.owned(pool.metadata.name)
        raise PoolExhausted(
            f"cannot lease an address of pool {pool.metadata.name} ({cidr}) to {name}: of its "
            f"{cidr.num_addresses} addresses {owned} are owned by nodes, {space.leased(pool)} more "
            "are leased, the others reserved",
            kind="IPPool",
            name=pool.metadata.name,
        )
    return address


def _fixed(name: str, pool: IPPool, field: str) -> None:
    if pool.spec.allocation is not Allocation.FIXED:
        said = f"pool {pool.metadata.name} has allocation {pool.spec.allocation}, not Fixed"
        raise _invalid(name, field, f"{said}: its addresses do not move between nodes")


def _invalid(name: str, field: str, message: str) -> Invalid:
    return Invalid(
        f'AddressLease "{name}" is invalid: {field}: {message}',
        causes=[Cause(field, message)],
        kind="AddressLease",
        name=name,
    )
