"""BGPFilter: which routes are taken from a peer and told to it. Field names are Calico's."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from api.resources.errors import Cause
from api.resources.meta import InterfaceName, Model, Resource, Status
from api.resources.net import Cidr
from api.resources.registry import resource


class PrefixLength(Model):
    """How long a prefix is."""

    min: int | None = Field(default=None, ge=0, le=128)
    """At least so long."""
    max: int | None = Field(default=None, ge=0, le=128)
    """At most so long."""


class Operation(Model):
    """What is done to a route that is accepted; one of these."""

    add_community: str | None = Field(default=None, pattern=r"^\d{1,10}(:\d{1,10}){1,2}$")
    """ASN:VALUE (RFC 1997) or ASN:A:B (RFC 8092)."""
    prepend_as_path: list[int] = Field(default_factory=list, alias="prependASPath", max_length=16)
    """These before the path."""
    set_priority: int | None = Field(default=None, ge=0, le=0xFFFF_FFFF)
    """The metric in the kernel."""


class FilterRule(Model):
    """Rules are tried in order; what none is about is accepted."""

    action: Literal["Accept", "Reject"]
    """Accept or Reject."""
    cidr: Cidr | None = None
    """Compared with the route's prefix by matchOperator."""
    match_operator: Literal["Equal", "NotEqual", "In", "NotIn"] | None = None
    """Equal, NotEqual, In or NotIn; needs a cidr."""
    prefix_length: PrefixLength | None = None
    """How long the route's prefix is."""
    communities: list[str] = Field(default_factory=list, max_length=32)
    """It has all of these."""
    interface: InterfaceName | None = None
    """It leads over this interface."""
    operations: list[Operation] = Field(default_factory=list, max_length=16)
    """What is done to it; only with Accept."""

    def causes(self, path: str, version: int) -> list[Cause]:
        found = []
        if (self.cidr is None) != (self.match_operator is None):
            lacking = "cidr" if self.cidr is None else "matchOperator"
            found.append(Cause(f"{path}.{lacking}", "is required with the other of the two"))
        if self.cidr is not None and self.cidr.version != version:
            found.append(Cause(f"{path}.cidr", f"{self.cidr} is not IPv{version}"))
        length = self.prefix_length
        if length is not None:
            low, high = length.min or 0, length.max if length.max is not None else 128
            if low > high or max(low, length.max or 0) > (32 if version == 4 else 128):
                said = f"{low} to {high} is no range of lengths of IPv{version}"
                found.append(Cause(f"{path}.prefixLength", said))
        if self.operations and self.action == "Reject":
            found.append(Cause(f"{path}.operations", "a rejected route is not changed"))
        for place, one in enumerate(self.operations):
            if len(one.model_fields_set) != 1:
                found.append(Cause(f"{path}.operations[{place}]", "must be one operation"))
        return found


class BGPFilterSpec(Model):
    """Rules by direction and family."""

    import_v4: list[FilterRule] = Field(default_factory=list, alias="importV4", max_length=1000)
    """For what a peer tells us of IPv4."""
    import_v6: list[FilterRule] = Field(default_factory=list, alias="importV6", max_length=1000)
    """For what a peer tells us of IPv6."""
    export_v4: list[FilterRule] = Field(default_factory=list, alias="exportV4", max_length=1000)
    """For what we tell a peer of IPv4."""
    export_v6: list[FilterRule] = Field(default_factory=list, alias="exportV6", max_length=1000)
    """For what we tell a peer of IPv6."""

    def causes(self) -> list[Cause]:
        found: list[Cause] = []
        for name, version, rules in (
            ("importV4", 4, self.import_v4),
            ("importV6", 6, self.import_v6),
            ("exportV4", 4, self.export_v4),
            ("exportV6", 6, self.export_v6),
        ):
            for place, rule in enumerate(rules):
                found += rule.causes(f"spec.{name}[{place}]", version)
        return found


@resource("bgpfilters", short=("filter", "filters"))
class BGPFilter(Resource):
    """Which routes are taken from the peers that name it, and told to them. Not in effect yet."""

    KIND: ClassVar[str] = "BGPFilter"

    kind: str = Field(default="BGPFilter", pattern="^BGPFilter$")
    spec: BGPFilterSpec
    """The rules."""
    status: Status = Field(default_factory=Status)
    """Nothing yet."""
