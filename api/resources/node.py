"""Node: a host that carries workloads."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from api.resources.meta import Model, Resource, Status
from api.resources.net import Address
from api.resources.registry import Column, resource


class NodeSpec(Model):
    """`as_number` is chosen by the service from BGPConfiguration.asNumberRange when left out.

    `addresses` are the host's own, the first of each family preferred; `router_id` is derived
    from the first v4 address, or, on a v6-only host, from the node's name.
    """

    addresses: list[Address] = Field(default_factory=list)
    as_number: int | None = Field(default=None, ge=1, le=4_294_967_294)
    router_id: str | None = None
    unschedulable: bool = False


class NodeStatus(Status):
    versions: dict[str, str] = Field(default_factory=dict)


@resource(
    "nodes",
    short=("no",),
    columns=(
        Column("READY", "status.conditions[Ready]"),
        Column("ASN", "spec.asNumber"),
        Column("ADDRESSES", "spec.addresses"),
        Column("UNSCHEDULABLE", "spec.unschedulable", 1),
        Column("VERSION", "status.versions.routed", 1),
    ),
    kept=("as_number", "addresses", "router_id"),
)
class Node(Resource):
    KIND: ClassVar[str] = "Node"

    kind: str = Field(default="Node", pattern="^Node$")
    spec: NodeSpec = Field(default_factory=NodeSpec)
    status: NodeStatus = Field(default_factory=NodeStatus)
