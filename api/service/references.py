"""Rules over what an object refers to, for kinds whose addresses and blocks are not concerned."""

from __future__ import annotations

import json
from typing import Any

from api.ipam import blocks as ipam
from api.resources.errors import Cause, Conflict, Invalid, none_such
from api.resources.hostendpoint import HostEndpoint
from api.resources.ippool import Allocation
from api.resources.meta import Resource
from api.resources.policy import NetworkPolicy
from api.resources.virtualip import VirtualIP
from api.service.codec import key_of
from api.service.state import State

DEFAULT_TIER = "default"  # is there without being written


def referred(state: State, held: Resource) -> list[str]:
    """The keys of what `held` rests on, as they are; Invalid or Conflict if it cannot."""
    if isinstance(held, NetworkPolicy) and held.spec.tier != DEFAULT_TIER:
        tier = held.spec.tier
        if state.item("tiers", tier) is None:
            known = [DEFAULT_TIER, *state.table("tiers").names()]
            raise _invalid(held, "spec.tier", none_such("tier", tier, known))
        return [key_of("tiers", tier)]
    if isinstance(held, HostEndpoint):
        if held.spec.node not in state.world.nodes:
            said = f"there is no node {held.spec.node!r}; its agent registers it"
            raise _invalid(held, "spec.node", said)
        return [key_of("nodes", held.spec.node)]
    if isinstance(held, VirtualIP):
        return _virtual(state, held)
    return []


def _virtual(state: State, held: VirtualIP) -> list[str]:
    others = {
        address: item.key.rpartition("/")[2]
        for item in state.table("virtualips").items.values()
        for address in json.loads(item.value)["spec"]["addresses"]
    }
    rest = []
    for place, address in enumerate(held.spec.addresses):
        path = f"spec.addresses[{place}]"
        pool = state.world.space.pool_of(address)
        if pool is None:
            raise ipam.outside_every_pool(address, state.world.space.pools, path)
        name = pool.metadata.name
        if pool.spec.allocation is not Allocation.ANYCAST:
            said = (
                f"{address} is in pool {name} with allocation {pool.spec.allocation}, not Anycast"
            )
            raise _invalid(held, path, said)
        if (by := state.world.space.reserved.name_of(address)) is not None:
            raise ipam.reserved(address, by, path)
        other = others.get(str(address))
        if other not in (None, held.metadata.name):
            raise Conflict(
                f"cannot assign {address}: it is VirtualIP {other}'s",
                causes=[Cause(path, f"is {other}'s", "FieldValueDuplicate")],
                kind="VirtualIP",
                name=held.metadata.name,
            )
        rest.append(key_of("ippools", name))
    return list(dict.fromkeys(rest))


def free_of_policies(state: State, tier: str) -> None:
    """Conflict if a policy is of it."""
    inside = [
        name
        for name, item in sorted(state.table("networkpolicies").items.items())
        if json.loads(item.value)["spec"].get("tier") == tier
    ]
    if inside:
        listed = ", ".join(inside[:3]) + (", ..." if len(inside) > 3 else "")
        raise Conflict(
            f"cannot delete tier {tier}: {len(inside)} policies are of it ({listed}); delete "
            "them first",
            kind="Tier",
            name=tier,
        )


def _invalid(held: Any, field: str, message: str) -> Invalid:
    name = held.metadata.name
    return Invalid(
        f'{held.kind} "{name}" is invalid: {field}: {message}',
        causes=[Cause(field, message)],
        kind=held.kind,
        name=name,
    )
