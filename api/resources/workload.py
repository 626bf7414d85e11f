"""Workload: one attached, or to be attached, interface.

`spec.origin` never changes. Node: born on the node (local API, CNI, Docker); the node is the
truth and this object its report, named ``<name>.<node>`` so that headless attaches of two nodes
never collide. API: declared through the service, named by a plain DNS label; the service is the
truth and the node carries it out.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from api.resources.errors import Cause
from api.resources.meta import DNSSubdomain, InterfaceName, Model, Resource, Status
from api.resources.net import Address
from api.resources.registry import Column, resource


class Origin(StrEnum):
    NODE = "Node"
    API = "API"


class Mode(StrEnum):
    VETH = "veth"
    IPVLAN_L3 = "ipvlan-l3"
    IPVLAN_L3S = "ipvlan-l3s"


class IPFamily(StrEnum):
    """As Kubernetes calls them."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"

    @property
    def version(self) -> Literal[4, 6]:
        return 4 if self is IPFamily.IPV4 else 6


class Phase(StrEnum):
    PENDING = "Pending"
    READY = "Ready"
    FAILED = "Failed"


class Port(Model):
    name: str = ""
    protocol: str = Field(default="TCP", pattern="^(TCP|UDP|SCTP)$")
    port: int = Field(ge=1, le=65_535)


class WorkloadSpec(Model):
    """`netns` is a name under /run/netns or an absolute path of an nsfs file; empty: the runtime
    moves the link itself (hand-over). `pools` empty: every pool that selects the node, by name.
    `addresses`: those asked for; empty: one of each of `ip_families`; these empty too: one of each
    family that `pools` has, and without `pools` one v4 address, or v6 where only v6 pools exist.
    `lease`: the address of this AddressLease, and nothing else."""

    node: DNSSubdomain
    origin: Origin = Origin.API
    netns: str = Field(default="", max_length=4095)
    if_name: InterfaceName = "eth0"
    mode: Mode = Mode.VETH
    pools: list[DNSSubdomain] = Field(default_factory=list, max_length=16)
    addresses: list[Address] = Field(default_factory=list, max_length=16)
    ip_families: list[IPFamily] = Field(default_factory=list, max_length=2)
    lease: DNSSubdomain | Literal[""] = ""
    container_id: str = Field(default="", alias="containerID", max_length=253)
    ports: list[Port] = Field(default_factory=list, max_length=256)

    def causes(self) -> list[Cause]:
        found: list[Cause] = []
        if len(set(self.addresses)) != len(self.addresses):
            found.append(Cause("spec.addresses", "names an address twice"))
        if len(set(self.pools)) != len(self.pools):
            found.append(Cause("spec.pools", "names a pool twice"))
        if len(set(self.ip_families)) != len(self.ip_families):
            found.append(Cause("spec.ipFamilies", "names a family twice"))
        if self.lease and (self.addresses or self.pools or self.ip_families):
            said = "says which address: leave addresses, pools and ipFamilies out"
            found.append(Cause("spec.lease", said))
        if self.netns and "\0" in self.netns:
            found.append(Cause("spec.netns", "contains a NUL byte"))
        return found


class WorkloadStatus(Status):
    phase: Phase = Phase.PENDING
    addresses: list[Address] = Field(default_factory=list)
    host_interface: str = ""
    gateway: str = ""
    mac: str = ""


@resource(
    "workloads",
    short=("wl",),
    columns=(
        Column("NODE", "spec.node"),
        Column("ADDRESSES", "status.addresses"),
        Column("PHASE", "status.phase"),
        Column("ORIGIN", "spec.origin", 1),
        Column("MODE", "spec.mode", 1),
        Column("INTERFACE", "status.hostInterface", 1),
        Column("NETNS", "spec.netns", 1),
    ),
    selectable=("spec.node", "spec.origin", "status.phase"),
    immutable=(
        "spec.node",
        "spec.origin",
        "spec.netns",
        "spec.ifName",
        "spec.mode",
        "spec.pools",
        "spec.addresses",
        "spec.ipFamilies",
        "spec.lease",
        "spec.containerID",
    ),
)
class Workload(Resource):
    KIND: ClassVar[str] = "Workload"

    kind: str = Field(default="Workload", pattern="^Workload$")
    spec: WorkloadSpec
    status: WorkloadStatus = Field(default_factory=WorkloadStatus)
