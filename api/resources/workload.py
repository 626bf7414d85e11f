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
from api.resources.net import Address, Cidr, IPAddress, IPNetwork
from api.resources.registry import Column, resource

BGP = 179  # its port
LEAST_RATE = 8000  # bits a second
LONGEST_BURST = 60  # seconds


class Origin(StrEnum):
    NODE = "Node"
    API = "API"


class Mode(StrEnum):
    VETH = "veth"
    IPVLAN_L3 = "ipvlan-l3"
    IPVLAN_L3S = "ipvlan-l3s"
    TAP = "tap"
    HOST = "host"
    NONE = "none"
    SHARED = "shared"


IPVLAN = frozenset({Mode.IPVLAN_L3, Mode.IPVLAN_L3S})
INSIDE = IPVLAN | {Mode.NONE}  # modes that need a namespace
OUTSIDE = frozenset({Mode.TAP, Mode.HOST, Mode.SHARED})  # modes that have none of their own


def mode_causes(
    mode: Mode, netns: str, shared_with: str, *, asks: bool, prefix: str = ""
) -> list[Cause]:
    """What does not go with a mode; `asks`: for an address, whichever way. Fields are told behind
    `prefix`."""
    found: list[Cause] = []
    if mode is Mode.SHARED and not shared_with:
        found.append(
            Cause(f"{prefix}sharedWith", "is needed by mode shared: whose namespace it is")
        )
    if mode is not Mode.SHARED and shared_with:
        found.append(Cause(f"{prefix}sharedWith", f"is of no use in mode {mode}: use mode shared"))
    if netns and mode in OUTSIDE:
        found.append(Cause(f"{prefix}netns", f"mode {mode} has none of its own: leave it out"))
    if not netns and mode in INSIDE:
        said = f"is needed by mode {mode}, which has no hand-over form"
        found.append(Cause(f"{prefix}netns", said))
    if asks and mode in (Mode.NONE, Mode.SHARED):
        whose = "none has no address" if mode is Mode.NONE else "shared has those of its holder"
        said = f"{whose}: leave addresses, pools, ipFamilies and lease out"
        found.append(Cause(f"{prefix}mode", said))
    return found


class IPFamily(StrEnum):
    """As Kubernetes calls them."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"

    @property
    def version(self) -> Literal[4, 6]:
        return 4 if self is IPFamily.IPV4 else 6


def family_causes(
    addresses: list[IPAddress], families: list[IPFamily], prefix: str = ""
) -> list[Cause]:
    """Where both say something, the addresses asked for are of the families asked for, and of each
    of them. Fields are told behind `prefix`."""
    if not addresses or not families:
        return []
    found = [
        Cause(f"{prefix}addresses[{place}]", f"{one} is of a family that ipFamilies leaves out")
        for place, one in enumerate(addresses)
        if all(one.version != family.version for family in families)
    ]
    for family in families:
        if all(one.version != family.version for one in addresses):
            said = f"has {family}, which no address of addresses is of: leave one of the two out"
            found.append(Cause(f"{prefix}ipFamilies", said))
    return found


class Phase(StrEnum):
    PENDING = "Pending"
    READY = "Ready"
    FAILED = "Failed"


class Port(Model):
    name: str = ""
    """What policies call it."""
    protocol: str = Field(default="TCP", pattern="^(TCP|UDP|SCTP)$")
    """TCP, UDP or SCTP."""
    port: int = Field(ge=1, le=65_535)
    """Its number."""


class WorkloadPort(Port):
    """A port of a workload, and where its node maps it."""

    host_port: int = Field(default=0, ge=0, le=65_535)
    """The workload is also reached at this port of its node; 0: it is not."""
    host_ip: Address | Literal[""] = Field(default="", alias="hostIP")
    """At this address of the node alone; 0.0.0.0 or ::, or none: at all of them, but for loopback
    addresses."""

    @property
    def where(self) -> IPAddress | None:
        """`host_ip`; None: there is none."""
        return self.host_ip or None


def port_causes(ports: list[WorkloadPort], field: str) -> list[Cause]:
    """What is wrong with the mapped ones among a workload's ports, told by `field`."""
    found: list[Cause] = []
    for number, port in enumerate(ports):
        path = f"{field}[{number}]"
        if port.where is not None and not port.host_port:
            found.append(Cause(f"{path}.hostIP", "is of no use without hostPort"))
        if port.where is not None and port.where.is_loopback:
            said = (
                f"{port.host_ip}: loopback addresses are not mapped, since the host would have to "
                "take packets to them from its links; take another address of the host, or none"
            )
            found.append(Cause(f"{path}.hostIP", said))
        if (port.host_port, port.protocol) == (BGP, "TCP"):
            said = f"{BGP}/TCP is BGP's: the switches' sessions with the node come in there"
            found.append(Cause(f"{path}.hostPort", said))
        if any(same_host_port(port, other) for other in ports[:number]):
            said = f"{port.host_port}/{port.protocol} is mapped twice"
            found.append(Cause(f"{path}.hostPort", said, "FieldValueDuplicate"))
    return found


def same_host_port(one: WorkloadPort, other: WorkloadPort) -> bool:
    """Whether a packet could be meant for either."""
    if not one.host_port:
        return False
    if (one.host_port, one.protocol) != (other.host_port, other.protocol):
        return False
    here, there = one.where, other.where
    if here is None or there is None:
        return True
    if here.version != there.version:
        return False
    return here == there or here.is_unspecified or there.is_unspecified


def route_causes(routes: list[IPNetwork], field: str, *, default: bool, netns: str) -> list[Cause]:
    """What is wrong with the routes of an interface, told by fields that begin with `field`."""
    found: list[Cause] = []
    if not default and not netns:
        said = "who moves the link says where its routes lead: false needs netns"
        found.append(Cause(f"{field}defaultRoute", said))
    if routes and default:
        found.append(Cause(f"{field}routes", "are of use with defaultRoute: false only"))
    for number, prefix in enumerate(routes):
        if prefix.prefixlen == 0:
            said = f"{prefix} is the default route: say defaultRoute"
            found.append(Cause(f"{field}routes[{number}]", said))
    if len(set(routes)) != len(routes):
        found.append(Cause(f"{field}routes", "names a prefix twice"))
    return found


class Bandwidth(Model):
    """Named as CNI's: bits a second, and the bits that may come at once, of which there are always
    enough for two packets; a tenth of a second's by default."""

    ingress_rate: int = Field(default=0, ge=0, le=10**12)
    """Of what it is sent, at least 8000; 0: as fast as it comes."""
    ingress_burst: int = Field(default=0, ge=0, le=8 * 10**9)
    """What of that may come at once."""
    egress_rate: int = Field(default=0, ge=0, le=10**12)
    """Of what it sends, at least 8000; 0: as fast as it comes."""
    egress_burst: int = Field(default=0, ge=0, le=8 * 10**9)
    """What of that may come at once."""

    def causes(self, field: str) -> list[Cause]:
        found: list[Cause] = []
        for name, rate, burst in (
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ):
            if 0 < rate < LEAST_RATE:
                found.append(Cause(f"{field}.{name}Rate", f"must be at least {LEAST_RATE} bits/s"))
            elif burst and not rate:
                found.append(Cause(f"{field}.{name}Burst", f"is of no use without {name}Rate"))
            elif burst > LONGEST_BURST * rate:
                said = f"must not be more than {LONGEST_BURST} seconds of {name}Rate"
                found.append(Cause(f"{field}.{name}Burst", said))
        return found


class WorkloadSpec(Model):
    """`netns` is a name under /run/netns or an absolute path of an nsfs file; empty: the runtime
    moves the link itself (hand-over). `pools` empty: every pool that selects the node, by name.
    `addresses`: those asked for; empty: one of each of `ip_families`; these empty too: one of each
    family that `pools` has, and without `pools` one v4 address, or v6 where only v6 pools exist.
    `lease`: the address of this AddressLease, and nothing else."""

    node: DNSSubdomain
    """The node that it is on. Immutable."""
    origin: Origin = Origin.API
    """Node: attached on its node, this is a report. API: declared here, its node carries it out.
    Immutable."""
    netns: str = Field(default="", max_length=4095)
    """Its network namespace: a name under /run/netns, or the path of one; empty: the runtime moves
    the link. Immutable."""
    if_name: InterfaceName = "eth0"
    """The interface inside. Immutable."""
    mode: Mode = Mode.VETH
    """How it is connected. Immutable."""
    pools: list[DNSSubdomain] = Field(default_factory=list, max_length=16)
    """Take its addresses from these. Immutable."""
    addresses: list[Address] = Field(default_factory=list, max_length=16)
    """Exactly these addresses. Immutable."""
    ip_families: list[IPFamily] = Field(default_factory=list, max_length=2)
    """One address of each of these. Immutable."""
    lease: DNSSubdomain | Literal[""] = ""
    """The address of this AddressLease. Immutable."""
    default_route: bool = True
    """Its namespace's default route leads over it. Without, its address is answered over it, and
    what is sent elsewhere goes over it only to `routes`. Immutable."""
    routes: list[Cidr] = Field(default_factory=list, max_length=64)
    """Without the default route: what is beyond it. Immutable."""
    shared_with: DNSSubdomain | Literal[""] = ""
    """Mode shared: the workload of its node whose namespace it is in. Immutable."""
    container_id: str = Field(default="", alias="containerID", max_length=253)
    """What a runtime calls it. Immutable."""
    ports: list[WorkloadPort] = Field(default_factory=list, max_length=256)
    """Names for its ports, which policies may use, and which of them its node maps. Immutable."""
    bandwidth: Bandwidth = Bandwidth()
    """Limits of what it is sent and sends, kept by its node. Immutable."""

    def causes(self) -> list[Cause]:
        found: list[Cause] = []
        if len(set(self.addresses)) != len(self.addresses):
            found.append(Cause("spec.addresses", "names an address twice"))
        if len(set(self.pools)) != len(self.pools):
            found.append(Cause("spec.pools", "names a pool twice"))
        if len(set(self.ip_families)) != len(self.ip_families):
            found.append(Cause("spec.ipFamilies", "names a family twice"))
        found += family_causes(self.addresses, self.ip_families, "spec.")
        if self.lease and (self.addresses or self.pools or self.ip_families):
            said = "says which address: leave addresses, pools and ipFamilies out"
            found.append(Cause("spec.lease", said))
        asks = bool(self.addresses or self.pools or self.ip_families or self.lease)
        found += mode_causes(self.mode, self.netns, self.shared_with, asks=asks, prefix="spec.")
        if self.netns and "\0" in self.netns:
            found.append(Cause("spec.netns", "contains a NUL byte"))
        found += port_causes(self.ports, "spec.ports")
        found += route_causes(self.routes, "spec.", default=self.default_route, netns=self.netns)
        return found + self.bandwidth.causes("spec.bandwidth")


class WorkloadStatus(Status):
    phase: Phase = Phase.PENDING
    """Pending, Ready or Failed."""
    addresses: list[Address] = Field(default_factory=list)
    """Those that it has."""
    host_interface: str = ""
    """The interface on its host."""
    gateway: str = ""
    """Where its default route leads."""
    mac: str = ""
    """Of the interface inside."""
    mtu: int = 0
    """Of the interface inside, in bytes; 0: not known yet."""


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
        Column("MTU", "status.mtu", 1),
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
        "spec.sharedWith",
        "spec.containerID",
        "spec.ports",
        "spec.bandwidth",
        "spec.defaultRoute",
        "spec.routes",
    ),
)
class Workload(Resource):
    """One interface of a container, VM or process with addresses of its own: attached, or to be."""

    KIND: ClassVar[str] = "Workload"

    kind: str = Field(default="Workload", pattern="^Workload$")
    spec: WorkloadSpec
    """What is to be attached, or was."""
    status: WorkloadStatus = Field(default_factory=WorkloadStatus)
    """What its node says of it."""
