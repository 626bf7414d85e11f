"""What a new object must satisfy beyond its own fields: rules over other objects.

Each rule reads what it needs from the store at one revision, decides purely, and returns the
object to write with the keys whose revisions the decision rests on. The pools' and blocks' guard
key is among them for every decision about overlap, and is written with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from api.ipam import blocks as ipam
from api.resources.bgppeer import BGPConfiguration, BGPConfigurationSpec
from api.resources.errors import Cause, Conflict, Invalid, PoolExhausted
from api.resources.ippool import IPBlock, IPPool
from api.resources.meta import Resource
from api.resources.node import Node
from api.resources.workload import Origin, Workload
from api.service.codec import kept, key_of, prefix_of
from api.store import Store

ADDRESSES_GUARD = "/guard/addresses"
NODES_GUARD = "/guard/nodes"

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class Admitted:
    """`existing`: the claim found an object that already is what was asked for."""

    object: Resource
    expect: Mapping[str, int] = field(default_factory=dict)
    puts: Mapping[str, bytes] = field(default_factory=dict)
    existing: bool = False


async def admit(store: Store, held: Resource) -> Admitted:
    """`held` as it may be created; IntentError if it may not."""
    if isinstance(held, IPPool):
        return await _pool(store, held)
    if isinstance(held, IPBlock):
        return await _block(store, held)
    if isinstance(held, Node):
        return await _node(store, held)
    if isinstance(held, Workload):
        return await _workload(store, held)
    if isinstance(held, BGPConfiguration) and held.metadata.name != "default":
        name = held.metadata.name
        raise Invalid(
            f'BGPConfiguration "{name}" is invalid: there is one, called default',
            causes=[Cause("metadata.name", "must be default")],
            kind="BGPConfiguration",
            name=name,
        )
    return Admitted(held)


async def release(store: Store, held: Resource) -> Admitted:
    """Whether `held` may be deleted."""
    if isinstance(held, IPPool):
        expect = await _guard(store, ADDRESSES_GUARD)
        blocks = await _all(store, IPBlock)
        inside = sorted(
            b.metadata.name for b in blocks.values() if b.spec.pool == held.metadata.name
        )
        if inside:
            raise Conflict(
                f"cannot delete pool {held.metadata.name}: {len(inside)} block(s) are owned "
                f"({', '.join(inside[:3])}{', ...' if len(inside) > 3 else ''}); disable the pool "
                "and detach its workloads first",
                kind="IPPool",
                name=held.metadata.name,
            )
        return Admitted(held, expect, {ADDRESSES_GUARD: b"{}"})
    if isinstance(held, IPBlock):
        expect = await _guard(store, ADDRESSES_GUARD)
        name, status, node = held.metadata.name, held.status, held.spec.node
        in_use = status.assigned or status.cooling
        if in_use and await store.get(key_of("nodes", node)) is not None:
            raise Conflict(
                f"cannot delete block {name}: node {node} has {status.assigned} addresses of it "
                f"assigned and {status.cooling} cooling down; detach its workloads first, or, if "
                "the node is off for good, delete the node",
                kind="IPBlock",
                name=name,
            )
        return Admitted(held, expect, {ADDRESSES_GUARD: b"{}"})
    return Admitted(held)


async def _pool(store: Store, pool: IPPool) -> Admitted:
    expect = await _guard(store, ADDRESSES_GUARD)
    pools = await _all(store, IPPool)
    name, cidr = pool.metadata.name, pool.spec.cidr
    other = ipam.overlapping(cidr, pools.values(), name)
    if other is not None:
        said = f"{cidr} overlaps pool {other.metadata.name} ({other.spec.cidr})"
        raise Invalid(
            f'IPPool "{name}" is invalid: spec.cidr: {said}',
            causes=[Cause("spec.cidr", said, "FieldValueDuplicate")],
            kind="IPPool",
            name=name,
        )
    return Admitted(pool, expect, {ADDRESSES_GUARD: b"{}"})


async def _block(store: Store, wanted: IPBlock) -> Admitted:
    expect = await _guard(store, ADDRESSES_GUARD)
    pools = await _all(store, IPPool)
    blocks = await _all(store, IPBlock)
    node = await store.get(key_of("nodes", wanted.spec.node))
    if node is None:
        raise _no_node(wanted.spec.node, "IPBlock")
    labels = kept(Node, node).metadata.labels
    cidr = ipam.claim(wanted, pools, blocks, labels)
    name = ipam.block_name(cidr)
    held = blocks.get(name)
    if held is not None:
        return Admitted(held, existing=True)
    pool = next(n for n, p in pools.items() if cidr.network_address in p.spec.cidr)
    spec = wanted.spec.model_copy(update={"cidr": cidr, "pool": pool, "address": None})
    metadata = wanted.metadata.model_copy(update={"name": name})
    made = wanted.model_copy(update={"spec": spec, "metadata": metadata})
    return Admitted(made, expect, {ADDRESSES_GUARD: b"{}"})


async def _node(store: Store, node: Node) -> Admitted:
    if node.spec.as_number is not None:
        return Admitted(node)
    expect = await _guard(store, NODES_GUARD)
    configuration = await store.get(key_of("bgpconfigurations", "default"))
    held = kept(BGPConfiguration, configuration).spec if configuration else BGPConfigurationSpec()
    numbers = held.asn_range()
    used = {other.spec.as_number for other in (await _all(store, Node)).values()}
    number = next((candidate for candidate in numbers if candidate not in used), None)
    if number is None:
        raise PoolExhausted(
            f"cannot give node {node.metadata.name} an ASN: all {len(numbers)} of "
            "BGPConfiguration.asNumberRange are used",
            kind="Node",
            name=node.metadata.name,
        )
    made = node.spec.model_copy(update={"as_number": number})
    return Admitted(node.model_copy(update={"spec": made}), expect, {NODES_GUARD: b"{}"})


async def _workload(store: Store, workload: Workload) -> Admitted:
    """API-born: refuse what its node could never do. Node-born: a report of what is, admitted
    unless it claims an address that is another node's."""
    expect = await _guard(store, ADDRESSES_GUARD)
    name, spec = workload.metadata.name, workload.spec
    if await store.get(key_of("nodes", spec.node)) is None:
        raise _no_node(spec.node, "Workload")
    asked = spec.addresses if spec.origin is Origin.API else workload.status.addresses
    if not asked:
        return Admitted(workload)
    pools = await _all(store, IPPool)
    blocks = await _all(store, IPBlock)
    for address in asked:
        if spec.origin is Origin.API and not any(address in p.spec.cidr for p in pools.values()):
            raise ipam.outside_every_pool(address, pools, "spec.addresses")
        owner = ipam.owner_of(address, blocks.values())
        if owner is not None and owner.spec.node != spec.node:
            raise ipam.owned_by_another(address, owner)
    for other in (await _all(store, Workload)).values():
        taken = {*other.spec.addresses, *other.status.addresses}
        for address in asked:
            if (
                address in taken
                and other.metadata.name != name
                and (spec.origin is Origin.API or other.spec.node != spec.node)
            ):
                raise Conflict(
                    f"cannot assign {address}: it is in use by workload {other.metadata.name} "
                    f"on node {other.spec.node}",
                    causes=[Cause("spec.addresses", f"{address} is in use")],
                    kind="Workload",
                    name=other.metadata.name,
                )
    return Admitted(workload, expect, {ADDRESSES_GUARD: b"{}"})


def _no_node(node: str, kind: str) -> Invalid:
    message = f"there is no node {node!r}; its agent registers it when it first starts"
    return Invalid(
        f"cannot use node {node}: {message}", causes=[Cause("spec.node", message)], kind=kind
    )


async def _guard(store: Store, key: str) -> dict[str, int]:
    held = await store.get(key)
    return {key: held.revision if held else 0}


async def _all(store: Store, model: type[R]) -> dict[str, R]:
    _, items = await store.scan(prefix_of(model))
    found = (kept(model, item) for item in items)
    return {held.metadata.name: held for held in found}
