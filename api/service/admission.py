"""What a new object must satisfy beyond its own fields: rules over other objects.

Each rule decides on the state at one revision, purely, and returns the object to write with the
keys whose revisions the decision rests on. A decision about overlap names the guard key, which is
compared and written with it; one that rests on a pool or a node as it is compares that as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.ipam import blocks as ipam
from api.ipam.leases import lease
from api.ipam.space import Held
from api.resources.addresslease import AddressLease
from api.resources.bgppeer import BGPConfiguration, BGPConfigurationSpec
from api.resources.errors import Cause, Conflict, Invalid, PoolExhausted, none_such
from api.resources.ippool import FORCED, RECLAIMED, IPBlock, IPPool
from api.resources.ipreservation import IPReservation
from api.resources.meta import API_GROUP, Resource
from api.resources.net import IPAddress
from api.resources.node import Node
from api.resources.virtualip import VirtualIP
from api.resources.workload import Origin, Workload
from api.service.codec import ADDRESSES_GUARD, NODES_GUARD, kept, key_of, stored
from api.service.references import referred
from api.service.state import Fact, Lease, State


@dataclass(frozen=True, slots=True)
class Admitted:
    """The document to write; `fact` as `fact_of` would find it in there, if it is known already.
    `existing`: the claim found a block that is what was asked for."""

    document: dict[str, Any]
    expect: Mapping[str, int] = field(default_factory=dict)
    guard: str = ""
    fact: Fact | None = None
    existing: bool = False
    also: Mapping[str, bytes | None] = field(default_factory=dict)


def admit(state: State, held: Resource) -> Admitted:
    """`held` as it may be created; IntentError if it may not."""
    if isinstance(held, IPPool):
        return _pool(state, held)
    if isinstance(held, IPBlock):
        return _block(state, held)
    if isinstance(held, Node):
        return _node(state, held)
    if isinstance(held, Workload):
        return _workload(state, held)
    if isinstance(held, AddressLease):
        address, pool = lease(held, state.world.space)
        made = stored(held)
        made["spec"] |= {"address": str(address), "pool": pool}
        expect = _as_it_is(state, key_of("ippools", pool))
        return Admitted(made, expect, ADDRESSES_GUARD, Lease(address))
    if isinstance(held, IPReservation):
        return Admitted(stored(held), guard=ADDRESSES_GUARD)
    if isinstance(held, BGPConfiguration) and held.metadata.name != "default":
        name = held.metadata.name
        raise Invalid(
            f'BGPConfiguration "{name}" is invalid: there is one, called default',
            causes=[Cause("metadata.name", "must be default")],
            kind="BGPConfiguration",
            name=name,
        )
    guard = ADDRESSES_GUARD if isinstance(held, VirtualIP) else ""
    return Admitted(stored(held), _as_it_is(state, *referred(state, held)), guard)


def _pool(state: State, pool: IPPool) -> Admitted:
    name, cidr = pool.metadata.name, pool.spec.cidr
    other = ipam.overlapping(cidr, state.world.space.pools.values(), name)
    if other is not None:
        said = f"{cidr} overlaps pool {other.metadata.name} ({other.spec.cidr})"
        raise Invalid(
            f'IPPool "{name}" is invalid: spec.cidr: {said}',
            causes=[Cause("spec.cidr", said, "FieldValueDuplicate")],
            kind="IPPool",
            name=name,
        )
    return Admitted(stored(pool), guard=ADDRESSES_GUARD)


def _block(state: State, wanted: IPBlock) -> Admitted:
    node = state.world.nodes.get(wanted.spec.node)
    if node is None:
        raise _no_node(wanted.spec.node, "IPBlock")
    cidr, pool = ipam.claim(wanted, state.world.space, node.labels)
    name = ipam.block_name(cidr)
    made = stored(wanted)
    made["metadata"]["name"] = name
    # beyond every earlier owner's: their claims and releases were committed before this revision
    made["spec"] |= {"cidr": str(cidr), "pool": pool, "epoch": state.revision}
    made["metadata"]["annotations"] = {
        key: value
        for key, value in made["metadata"]["annotations"].items()
        if not key.startswith(f"{API_GROUP}/")  # those are the service's to write
    }
    for asked in ("address", "lease"):
        made["spec"].pop(asked, None)
    if name in state.world.space.blocks:
        return Admitted(made, existing=True)
    also: dict[str, bytes | None] = {}
    if (record := state.item("reclaims", name)) is not None:
        before = json.loads(record.value)
        made["metadata"]["annotations"] |= {f"{RECLAIMED}{key}": before[key] for key in FORCED}
        also[record.key] = None
    expect = _as_it_is(state, key_of("nodes", wanted.spec.node), key_of("ippools", pool))
    held = Held(cidr, pool, wanted.spec.node)
    return Admitted(made, expect, ADDRESSES_GUARD, held, also=also)


def _node(state: State, node: Node) -> Admitted:
    made = stored(node)
    if node.spec.as_number is not None:
        return Admitted(made)
    key = key_of("bgpconfigurations", "default")
    configuration = state.item("bgpconfigurations", "default")
    held = kept(BGPConfiguration, configuration).spec if configuration else BGPConfigurationSpec()
    numbers, used = held.asn_range(), state.world.asns
    number = next((candidate for candidate in numbers if candidate not in used), None)
    if number is None:
        raise PoolExhausted(
            f"cannot give node {node.metadata.name} an ASN: all {len(numbers)} of "
            "BGPConfiguration.asNumberRange are used",
            kind="Node",
            name=node.metadata.name,
        )
    made["spec"]["asNumber"] = number
    return Admitted(made, _as_it_is(state, key), NODES_GUARD)


def _workload(state: State, workload: Workload) -> Admitted:
    """API-born: refuse what its node could never do. Node-born: a report of what is, admitted
    unless it claims an address that is another node's."""
    spec, world = workload.spec, state.world
    if spec.node not in world.nodes:
        raise _no_node(spec.node, "Workload")
    born_here = spec.origin is Origin.API
    if born_here and spec.lease and spec.lease not in world.leases:
        message = none_such("AddressLease", spec.lease, sorted(world.leases)[:10])
        raise Invalid(
            f"cannot use lease {spec.lease}: {message}",
            causes=[Cause("spec.lease", message)],
            kind="Workload",
            name=workload.metadata.name,
        )
    asked = spec.addresses if born_here else workload.status.addresses
    if not asked:
        return Admitted(stored(workload))
    for address in asked:
        if born_here and world.space.pool_of(address) is None:
            raise ipam.outside_every_pool(address, world.space.pools, "spec.addresses")
        if born_here:
            ipam.not_leased(address, world.space.leases, spec.lease, "spec.addresses")
        if born_here and (name := world.space.reserved.name_of(address)) is not None:
            raise ipam.reserved(address, name, "spec.addresses")
    _not_anothers(state, workload, asked, on_its_node=born_here)
    return Admitted(stored(workload), _as_it_is(state, key_of("nodes", spec.node)), ADDRESSES_GUARD)


def revise(state: State, before: Resource, after: Resource) -> str:
    """The guard under which a spec may be replaced ("": none); refused if `after` cannot be. Claims
    rest on reservations, and VirtualIPs on each other."""
    if before != after:
        referred(state, after)
    if isinstance(after, IPReservation | VirtualIP) and before != after:
        return ADDRESSES_GUARD
    return ""


def report(state: State, before: Resource, after: Resource) -> str:
    """The guard under which a status may be replaced ("": none); Conflict if a workload's has a new
    address that is another node's."""
    if not (isinstance(before, Workload) and isinstance(after, Workload)):
        return ""
    new = [a for a in after.status.addresses if a not in before.status.addresses]
    if not new:
        return ""
    _not_anothers(state, after, new, on_its_node=False)
    return ADDRESSES_GUARD


def _not_anothers(
    state: State, workload: Workload, asked: list[IPAddress], *, on_its_node: bool
) -> None:
    """Conflict if one of the addresses is in another node's block, or another workload's: of
    another node, or with `on_its_node` of any. That workload is the first by name."""
    spec, world = workload.spec, state.world
    for address in asked:
        owner = world.space.owner_of(address)
        if owner is not None and owner.node != spec.node:
            raise ipam.owned_by_another(address, owner)
    found = [
        (other, index)
        for index, address in enumerate(asked)
        for other in world.users.get(str(address), ())
        if other != workload.metadata.name
        and (on_its_node or world.workloads[other].node != spec.node)
    ]
    if found:
        other, index = min(found)
        raise Conflict(
            f"cannot assign {asked[index]}: it is in use by workload {other} "
            f"on node {world.workloads[other].node}",
            causes=[Cause("spec.addresses", f"{asked[index]} is in use")],
            kind="Workload",
            name=other,
        )


def _as_it_is(state: State, *keys: str) -> dict[str, int]:
    return {key: state.revision_of(key) for key in keys}


def _no_node(node: str, kind: str) -> Invalid:
    message = f"there is no node {node!r}; its agent registers it when it first starts"
    return Invalid(
        f"cannot use node {node}: {message}", causes=[Cause("spec.node", message)], kind=kind
    )
