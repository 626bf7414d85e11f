"""What an object must satisfy to be deleted: rules over other objects, decided purely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.resources.errors import Conflict
from api.resources.ippool import FORCE_RELEASE
from api.service.codec import ADDRESSES_GUARD, NODES_GUARD, encoded, key_of
from api.service.references import free_of_policies
from api.service.state import State


@dataclass(frozen=True, slots=True)
class Release:
    """How an object goes: at once, under `guard` and with `also` written; or, with `asked`, when
    its owner has let go of it, who is to see that it is wanted back."""

    guard: str = ""
    also: Mapping[str, bytes | None] = field(default_factory=dict)
    asked: bool = False


def release(
    state: State, plural: str, held: dict[str, Any], node: str, user: str, statement: str = ""
) -> Release:
    """How `held` may be deleted by `user`, who is `node` ("": none); Conflict if it may not.

    A block changes its owner only after the owner has withdrawn what it announced of it, and only
    it knows when. So whoever else deletes one asks for it (`deletionTimestamp`), and the owner's
    agent does it; unless an operator states, with the deletion or in an annotation before it, that
    the node is off.
    """
    name = held["metadata"]["name"]
    if plural == "ippools":
        count = state.world.space.owned(name)
        if count:
            blocks = state.world.space.blocks.items()
            inside = sorted(block for block, owned in blocks if owned.pool == name)
            raise Conflict(
                f"cannot delete pool {name}: {count} block(s) are owned "
                f"({', '.join(inside[:3])}{', ...' if count > 3 else ''}); disable the pool "
                "and detach its workloads first",
                kind="IPPool",
                name=name,
            )
        return Release(ADDRESSES_GUARD)
    if plural == "tiers":
        free_of_policies(state, name)
        return Release(NODES_GUARD)
    if plural == "addressleases":
        _not_used(state, name)
        return Release(ADDRESSES_GUARD)
    if plural == "nodes":
        _not_an_owner(state, name)
        return Release(NODES_GUARD)
    if plural != "ipblocks":
        return Release()
    owner, status = held["spec"]["node"], held.get("status", {})
    if node != owner:
        statement = statement or held["metadata"].get("annotations", {}).get(FORCE_RELEASE, "")
        if not statement.strip():
            return Release(asked=True)
        record = {"from": owner, "by": user, "statement": statement}
        return Release(ADDRESSES_GUARD, {key_of("reclaims", name): encoded(record)})
    assigned, cooling = status.get("assigned", 0), status.get("cooling", 0)
    if assigned or cooling:
        raise Conflict(
            f"cannot delete block {name}: node {node} has {assigned} addresses of it "
            f"assigned and {cooling} cooling down",
            kind="IPBlock",
            name=name,
        )
    return Release(ADDRESSES_GUARD)


def _not_used(state: State, name: str) -> None:
    """Conflict if a node owns the address of the lease: a workload may have it."""
    held = state.world.leases.get(name)
    owner = state.world.space.owner_of(held.address) if held else None
    if held is not None and owner is not None:
        raise Conflict(
            f"cannot delete lease {name}: node {owner.node} holds {held.address}; detach its "
            "workload first",
            kind="AddressLease",
            name=name,
        )


def _not_an_owner(state: State, node: str) -> None:
    blocks = sorted(n for n, held in state.world.space.blocks.items() if held.node == node)
    if blocks:
        listed = ", ".join(blocks[:3]) + (", ..." if len(blocks) > 3 else "")
        raise Conflict(
            f"cannot delete node {node}: it owns {len(blocks)} block(s) ({listed}) and may be "
            "announcing addresses of them; drain it (routectl drain), or, if it is off for good, "
            "say so (routectl delete node --force --statement)",
            kind="Node",
            name=node,
        )
