"""AddressLease: a named, fixed address that outlives workloads and moves between nodes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from api.resources.errors import Cause
from api.resources.meta import DNSSubdomain, Model, Resource, Status
from api.resources.net import Address
from api.resources.registry import Column, resource


class AddressLeaseSpec(Model):
    """An address of a pool with allocation Fixed. With `pool` alone the service chooses the lowest
    that is free. As long as the lease is there nobody has the address but a workload that names
    it."""

    pool: DNSSubdomain | None = None
    """A pool with allocation Fixed. Immutable."""
    address: Address | None = None
    """The address; the lowest free one of `pool` by default. Immutable."""

    def causes(self) -> list[Cause]:
        if self.pool is None and self.address is None:
            return [Cause("spec", "pool or address must say what to lease", "FieldValueRequired")]
        return []


class AddressLeaseStatus(Status):
    pass


@resource(
    "addressleases",
    short=("lease", "leases"),
    columns=(Column("ADDRESS", "spec.address"), Column("POOL", "spec.pool")),
    immutable=("spec.pool", "spec.address"),
    kept=("pool", "address"),
)
class AddressLease(Resource):
    """A named, fixed address that outlives workloads and moves between nodes."""

    KIND: ClassVar[str] = "AddressLease"

    kind: str = Field(default="AddressLease", pattern="^AddressLease$")
    spec: AddressLeaseSpec
    """Which address."""
    status: AddressLeaseStatus = Field(default_factory=AddressLeaseStatus)
    """Nothing yet."""
