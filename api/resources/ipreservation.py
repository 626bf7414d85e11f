"""IPReservation: ranges that are never assigned to anybody."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from api.resources.errors import Cause
from api.resources.meta import Model, Resource, Status
from api.resources.net import Cidr
from api.resources.registry import Column, resource


class IPReservationSpec(Model):
    """`reserved_cidrs` may lie in any pool or in none, and may be single addresses (/32, /128). Who
    has an address of them already keeps it; nobody gets one any more."""

    reserved_cidrs: list[Cidr] = Field(alias="reservedCIDRs", min_length=1, max_length=1000)
    """Nobody is given an address of these."""

    def causes(self) -> list[Cause]:
        seen: set[object] = set()
        found: list[Cause] = []
        for place, cidr in enumerate(self.reserved_cidrs):
            if cidr in seen:
                path = f"spec.reservedCIDRs[{place}]"
                found.append(Cause(path, f"names {cidr} twice", "FieldValueDuplicate"))
            seen.add(cidr)
        return found


class IPReservationStatus(Status):
    pass


@resource("ipreservations", columns=(Column("CIDRS", "spec.reservedCIDRs"),))
class IPReservation(Resource):
    """Ranges that nobody is given an address of."""

    KIND: ClassVar[str] = "IPReservation"

    kind: str = Field(default="IPReservation", pattern="^IPReservation$")
    spec: IPReservationSpec
    """What is reserved."""
    status: IPReservationStatus = Field(default_factory=IPReservationStatus)
    """Nothing yet."""
