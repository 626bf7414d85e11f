"""Node: a host that carries workloads."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from api.resources.meta import Model, Resource, Status
from api.resources.net import Address
from api.resources.registry import Column, resource

# The condition that says whether the truths about a node's addresses agree
ADDRESSES_CONSISTENT = "AddressesConsistent"


class NodeSpec(Model):
    """`as_number` is chosen by the service from BGPConfiguration.asNumberRange when left out.

    `addresses` are the host's own, the first of each family preferred; `router_id` is derived
    from the first v4 address, or, on a v6-only host, from the node's name.
    """

    addresses: list[Address] = Field(default_factory=list)
    """The host's own, the first of each family preferred."""
    as_number: int | None = Field(default=None, ge=1, le=4_294_967_294)
    """Its autonomous system; by default the next free one of asNumberRange of BGPConfiguration."""
    router_id: str | None = None
    """The BGP identifier; by default the first IPv4 address, or made of the name."""
    unschedulable: bool = False
    """Nothing is attached on it any more, its empty blocks go back: it is being drained."""


class NodeAddress(Model):
    """An address of a host, and how its agent came to it."""

    address: Address
    """One of the host's own."""
    interface: str = ""
    """That has it."""
    method: str = ""
    """As in the agent's setting `addressMethod`, or `addresses`, where its settings list them."""


class NodeStatus(Status):
    addresses: list[NodeAddress] = Field(default_factory=list)
    """The host's own as its agent finds them now, one of each family."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the programs that run on it: `routed`, the agent's, and `speaker`."""


@resource(
    "nodes",
    short=("no",),
    columns=(
        Column("READY", "status.conditions[Ready]"),
        Column("ASN", "spec.asNumber"),
        Column("ADDRESSES", "spec.addresses"),
        Column("UNSCHEDULABLE", "spec.unschedulable", 1),
        Column("VERSION", "status.versions.routed", 1),
        Column("SKEW", "status.conditions[VersionSkew]", 1),
    ),
    kept=("as_number", "addresses", "router_id"),
)
class Node(Resource):
    """A host that carries workloads. Its agent registers it."""

    KIND: ClassVar[str] = "Node"

    kind: str = Field(default="Node", pattern="^Node$")
    spec: NodeSpec = Field(default_factory=NodeSpec)
    """What it is to be."""
    status: NodeStatus = Field(default_factory=NodeStatus)
    """What its agent says: Ready, BGPEstablished, ForwardBlocked, ForwardIPv6Refused,
    RouteFlapping, ParentModeSwitched, Renumbered, VersionSkew, AddressesConsistent,
    PoliciesEnforced."""
