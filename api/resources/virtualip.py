"""VirtualIP: an anycast address, announced by every node that has a workload for it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from api.resources.errors import Cause
from api.resources.meta import Model, Resource, Status
from api.resources.net import Address
from api.resources.registry import Column, resource
from api.resources.selectors import SelectorText


class VirtualIPSpec(Model):
    """Addresses of pools with allocation Anycast."""

    addresses: list[Address] = Field(min_length=1, max_length=16)
    """The addresses; no two VirtualIPs have one in common."""
    selector: SelectorText
    """The workloads that answer there; a node that has a ready one announces the addresses."""
    node_selector: SelectorText = "all()"
    """Only nodes with such labels do."""

    def causes(self) -> list[Cause]:
        if len(set(self.addresses)) != len(self.addresses):
            return [Cause("spec.addresses", "names an address twice", "FieldValueDuplicate")]
        return []


@resource(
    "virtualips",
    short=("vip", "vips"),
    columns=(Column("ADDRESSES", "spec.addresses"), Column("SELECTOR", "spec.selector")),
)
class VirtualIP(Resource):
    """An anycast address that every node with a healthy matching workload announces. Not in effect
    yet."""

    KIND: ClassVar[str] = "VirtualIP"

    kind: str = Field(default="VirtualIP", pattern="^VirtualIP$")
    spec: VirtualIPSpec
    """Which addresses, and who answers there."""
    status: Status = Field(default_factory=Status)
    """Nothing yet."""
