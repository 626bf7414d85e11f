"""Intent: what the service has told this node, and its last good copy on disk.

`Intent` is what decides: a new value whenever something that decides has changed. What the service
shows of node-born workloads are only reports (R2 of ADR 1); they come and go with every attach, so
they are kept beside it and no round is run for them. After a boot they say which addresses have to
cool down, so the copy on disk has them too.

The copy (``<stateDir>/intent.json``, 0600, fsynced) is what an agent works from that starts while
the service is out of reach, also after a reboot. It is written when something changes, never
emptied by an outage: a copy is replaced only by a whole newer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pydantic import Field

from api.ipam.reserved import Reserved
from api.resources import (
    AddressLease,
    BGPConfiguration,
    BGPPeer,
    HostEndpoint,
    IPBlock,
    IPPool,
    IPReservation,
    NetworkPolicy,
    Node,
    Tier,
    Workload,
)
from api.resources.meta import Model, Resource
from api.resources.net import IPAddress, IPNetwork, PrefixIndex
from api.resources.workload import Origin
from routed.agent.encoded import Encoded

WATCHED = (
    "nodes",
    "ippools",
    "ipblocks",
    "workloads",
    "ipreservations",
    "addressleases",
    "bgppeers",
    "bgpconfigurations",
    "tiers",
    "networkpolicies",
    "hostendpoints",
)
# no node sees these of an older control plane
LATER = frozenset(("tiers", "networkpolicies", "hostendpoints"))


@dataclass(frozen=True)
class Intent:
    """Everything that decides, by name. `blocks` and `host_endpoints` are this node's own,
    `declared` its API-born workloads: the service is their truth."""

    node_name: str
    node: Node | None = None
    pools: Mapping[str, IPPool] = field(default_factory=dict)
    blocks: Mapping[str, IPBlock] = field(default_factory=dict)
    declared: Mapping[str, Workload] = field(default_factory=dict)
    peers: Mapping[str, BGPPeer] = field(default_factory=dict)
    bgp: BGPConfiguration | None = None
    reservations: Mapping[str, IPReservation] = field(default_factory=dict)
    leases: Mapping[str, AddressLease] = field(default_factory=dict)
    tiers: Mapping[str, Tier] = field(default_factory=dict)
    policies: Mapping[str, NetworkPolicy] = field(default_factory=dict)
    host_endpoints: Mapping[str, HostEndpoint] = field(default_factory=dict)

    @property
    def draining(self) -> bool:
        """Whether this node is to take nothing more."""
        return self.node is not None and self.node.spec.unschedulable

    def labels(self) -> Mapping[str, str]:
        return self.node.metadata.labels if self.node else {}

    @cached_property
    def pool_index(self) -> PrefixIndex[IPPool]:
        """The pool that holds an address; pools never overlap, so there is at most one."""
        return PrefixIndex((pool.spec.cidr, pool) for pool in self.pools.values())

    @cached_property
    def block_index(self) -> PrefixIndex[tuple[str, IPNetwork]]:
        """The name and prefix of the block of ours that holds an address."""
        return PrefixIndex(
            (block.spec.cidr, (name, block.spec.cidr))
            for name, block in self.blocks.items()
            if block.spec.cidr is not None
        )

    @cached_property
    def reserved(self) -> Reserved:
        """What nobody is given."""
        return Reserved({name: one.spec.reserved_cidrs for name, one in self.reservations.items()})

    @cached_property
    def leased(self) -> Mapping[IPAddress, str]:
        """The lease of each address that has one."""
        return {one.spec.address: name for name, one in self.leases.items() if one.spec.address}

    @cached_property
    def promised(self) -> frozenset[IPAddress]:
        """Addresses that declared workloads ask for: nobody else gets them."""
        return frozenset(a for w in self.declared.values() for a in w.spec.addresses)


class _Document(Model):
    """The copy on disk."""

    node_name: str
    node: Node | None = None
    pools: dict[str, IPPool] = Field(default_factory=dict)
    blocks: dict[str, IPBlock] = Field(default_factory=dict)
    workloads: dict[str, Workload] = Field(default_factory=dict)
    peers: dict[str, BGPPeer] = Field(default_factory=dict)
    bgp: BGPConfiguration | None = None
    reservations: dict[str, IPReservation] = Field(default_factory=dict)
    leases: dict[str, AddressLease] = Field(default_factory=dict)
    tiers: dict[str, Tier] = Field(default_factory=dict)
    policies: dict[str, NetworkPolicy] = Field(default_factory=dict)
    host_endpoints: dict[str, HostEndpoint] = Field(default_factory=dict)


class Encoder:
    """Intent and reports as the bytes of the copy; each object is encoded once for as long as it
    does not change."""

    def __init__(self) -> None:
        self._texts: dict[str, Encoded[str, Resource]] = {}  # by the field that they are in

    def encode(self, intent: Intent, reports: Mapping[str, Workload]) -> bytes:
        """A `_Document`."""

        def texts(name: str, held: Iterable[tuple[str, Resource]]) -> list[bytes]:
            return self._texts.setdefault(name, Encoded(_text)).all(held)

        def one(name: str, held: Resource | None) -> list[bytes]:
            some = [(name, held)] if held is not None else []
            return [b'"%b":%b' % (name.encode(), text) for text in texts(name, some)]

        def group(name: str, held: Mapping[str, Resource]) -> bytes:
            # names of objects are DNS names: nothing in them has to be escaped
            pairs = zip(held, texts(name, held.items()), strict=True)
            inside = b",".join(b'"%b":%b' % (key.encode(), text) for key, text in pairs)
            return b'"%b":{%b}' % (name.encode(), inside)

        parts = [b'"nodeName":"%b"' % intent.node_name.encode()]
        parts += [*one("node", intent.node), *one("bgp", intent.bgp)]
        parts += [group("pools", intent.pools), group("blocks", intent.blocks)]
        parts += [group("workloads", {**intent.declared, **reports})]
        parts += [group("peers", intent.peers)]
        parts += [group("reservations", intent.reservations)]
        parts += [group("leases", intent.leases)]
        parts += [group("tiers", intent.tiers)]
        parts += [group("policies", intent.policies)]
        parts += [group("hostEndpoints", intent.host_endpoints)]
        return b"{%b}" % b",".join(parts)


def _text(_: str, held: Resource) -> bytes:
    return held.model_dump_json(by_alias=True).encode()


def load(path: Path, node_name: str) -> tuple[Intent, dict[str, Workload]] | None:
    """The last good intent of `node_name` and the reports beside it, or None: no copy, another
    node's, or unreadable.

    An unreadable copy is moved aside to ``intent.json.bad``, so that it can be looked at.
    """
    try:
        found = parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        path.rename(path.with_suffix(".json.bad"))
        return None
    return found if found[0].node_name == node_name else None


def parse(data: bytes) -> tuple[Intent, dict[str, Workload]]:
    """The inverse of `Encoder.encode`; ValueError."""
    document = _Document.model_validate_json(data, extra="ignore")  # it may be a newer agent's
    declared, reports = apart(document.workloads)
    intent = Intent(
        node_name=document.node_name,
        node=document.node,
        pools=document.pools,
        blocks=document.blocks,
        declared=declared,
        peers=document.peers,
        bgp=document.bgp,
        reservations=document.reservations,
        leases=document.leases,
        tiers=document.tiers,
        policies=document.policies,
        host_endpoints=document.host_endpoints,
    )
    return intent, reports


def by_kind(intent: Intent, reports: Mapping[str, Workload]) -> dict[str, Mapping[str, Resource]]:
    """The objects of a copy, as `Known` has them."""
    return {
        "nodes": {intent.node_name: intent.node} if intent.node else {},
        "ippools": intent.pools,
        "ipblocks": intent.blocks,
        "workloads": {**intent.declared, **reports},
        "ipreservations": intent.reservations,
        "addressleases": intent.leases,
        "tiers": intent.tiers,
        "networkpolicies": intent.policies,
        "hostendpoints": intent.host_endpoints,
        "bgppeers": intent.peers,
        "bgpconfigurations": {"default": intent.bgp} if intent.bgp else {},
    }


def apart(workloads: Mapping[str, Workload]) -> tuple[dict[str, Workload], dict[str, Workload]]:
    """The declared ones, and the reports."""
    declared: dict[str, Workload] = {}
    reports: dict[str, Workload] = {}
    for name, workload in workloads.items():
        (declared if workload.spec.origin is Origin.API else reports)[name] = workload
    return declared, reports


def decides(before: Resource | None, after: Resource | None) -> bool:
    """Whether a change of an object changes intent: reports never do, and nobody acts on what is
    only status."""
    held = after or before
    if isinstance(held, Workload) and held.spec.origin is Origin.NODE:
        return False
    if before is None or after is None:
        return True
    return _deciding(before) != _deciding(after)


def _deciding(held: Resource) -> tuple[object, ...]:
    """Its parts that decide; labels, and whether it is wanted back, do."""
    metadata = held.metadata
    return held.spec, metadata.labels, metadata.deletion_timestamp  # type: ignore[attr-defined]


def only_more_blocks(before: Intent, after: Intent) -> bool:
    """Whether nothing but blocks was added: what was ours is ours still."""
    kept = all(
        name in after.blocks and _deciding(after.blocks[name]) == _deciding(block)
        for name, block in before.blocks.items()
    )
    return kept and replace(after, blocks=before.blocks) == before


def only_policies(before: Intent, after: Intent) -> bool:
    """Whether nothing but policies, tiers and host endpoints has changed: no link and no route."""
    rest = replace(after, tiers=before.tiers, policies=before.policies)
    return replace(rest, host_endpoints=before.host_endpoints) == before
