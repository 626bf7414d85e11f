"""HostEndpoint: an interface of a host itself, which policies can select."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from api.resources.errors import Cause
from api.resources.meta import DNSSubdomain, Model, Resource, Status, interface_name
from api.resources.net import Address
from api.resources.registry import Column, resource
from api.resources.workload import Port


def one_or_all(value: str) -> str:
    return value if value == "*" else interface_name(value)


class HostEndpointSpec(Model):
    """The interface `interfaceName` of `node`, or the one that has one of `expectedIPs`."""

    node: DNSSubdomain
    """The host. Immutable."""
    interface_name: Annotated[str, AfterValidator(one_or_all)] | None = None
    """The interface, or * for all that no other HostEndpoint of the host is for."""
    expected_ips: list[Address] = Field(default_factory=list, alias="expectedIPs", max_length=100)
    """Addresses that selectors of rules mean by it; where no interface is named, its interface is
    the one that has one of them."""
    ports: list[Port] = Field(default_factory=list, max_length=256)
    """Names for its ports, which policies may use."""

    def causes(self) -> list[Cause]:
        found = []
        if len(set(self.expected_ips)) != len(self.expected_ips):
            found.append(Cause("spec.expectedIPs", "names an address twice", "FieldValueDuplicate"))
        names = [(port.name, port.protocol) for port in self.ports if port.name]
        if len(set(names)) != len(names):
            said = "gives a name twice for one protocol"
            found.append(Cause("spec.ports", said, "FieldValueDuplicate"))
        if self.interface_name is None and not self.expected_ips:
            said = "interfaceName or expectedIPs must say which interface"
            found.append(Cause("spec", said, "FieldValueRequired"))
        return found


@resource(
    "hostendpoints",
    short=("hep",),
    columns=(Column("NODE", "spec.node"), Column("INTERFACE", "spec.interfaceName")),
    selectable=("spec.node",),
    immutable=("spec.node",),
)
class HostEndpoint(Resource):
    """An interface of a host: policies that select it protect the host itself, and rules of
    policies select its addresses."""

    KIND: ClassVar[str] = "HostEndpoint"

    kind: str = Field(default="HostEndpoint", pattern="^HostEndpoint$")
    spec: HostEndpointSpec
    """Which interface."""
    status: Status = Field(default_factory=Status)
    """Nothing yet."""
