"""An attachment: one workload's interface on this node, as the agent holds and records it.

A record is written to ``<runDir>/attachments/<id>.json`` before the kernel is touched and removed
after the kernel is clean again, so an agent killed at any instant finds in the records everything
that may be in the kernel. /run is gone with a reboot, and so are the namespaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import Field

from api.resources.errors import Cause, Invalid
from api.resources.meta import Condition, DNSSubdomain, InterfaceName, Model
from api.resources.net import Address, Cidr
from api.resources.workload import (
    Bandwidth,
    IPFamily,
    Mode,
    Origin,
    Phase,
    Workload,
    WorkloadPort,
    WorkloadSpec,
    WorkloadStatus,
)
from routed.agent import modes
from routed.state import (
    GATEWAY_V4,
    GATEWAY_V6,
    Endpoint,
    Limits,
    host_interface_name,
    slave_name,
    workload_mac,
)

ETHERNET_HEADER = 14  # bytes


class Step(StrEnum):
    """Whether it is there or going; the next agent goes on from here, whatever the kernel holds."""

    ATTACHED = "Attached"
    DETACHING = "Detaching"


class Attachment(Model):
    """`id` is the Workload object's name; `name` what the caller said. `netns_id` is
    (st_dev, st_ino) of the namespace, so that a path that names another one later is noticed.
    `parent` is the link whose slave it is (ipvlan), `shared_with` the id of whose namespace it is
    in (shared). `leaving`: it was detached, and stays for those that share with it."""

    id: DNSSubdomain
    name: str
    node: DNSSubdomain
    origin: Origin
    netns: str = ""
    netns_id: tuple[int, int] | None = None
    if_name: InterfaceName = "eth0"
    mode: Mode = Mode.VETH
    pools: list[str] = Field(default_factory=list)
    requested: list[Address] = Field(default_factory=list)
    ip_families: list[IPFamily] = Field(default_factory=list)
    addresses: list[Address]
    lease: str = ""
    container_id: str = Field(default="", alias="containerID")
    labels: dict[str, str] = Field(default_factory=dict)
    mtu: int = 1500
    parent: str = ""
    ports: list[WorkloadPort] = Field(default_factory=list)
    bandwidth: Bandwidth = Bandwidth()
    default_route: bool = True
    routes: list[Cidr] = Field(default_factory=list)
    shared_with: str = ""
    leaving: bool = False
    step: Step = Step.ATTACHED

    def endpoint(self) -> Endpoint:
        """What the kernel should hold for it."""
        return Endpoint(
            workload=self.id,
            if_name=self.if_name if self.netns else self.peer_interface,
            addresses=tuple(self.addresses),
            netns=self.netns or None,
            mtu=self.mtu,
            netns_id=self.netns_id,
            mode=self.mode,
            parent=self.parent,
            limits=self.limits,
            default_route=self.default_route,
            routes=tuple(self.routes),
        )

    @property
    def limits(self) -> Limits | None:
        """None: whatever comes."""
        asked = self.bandwidth
        if not (asked.ingress_rate or asked.egress_rate):
            return None
        packets = 2 * 8 * (self.mtu + ETHERNET_HEADER)
        return Limits(
            to_rate=asked.ingress_rate,
            to_burst=max(asked.ingress_burst or asked.ingress_rate // 10, packets),
            from_rate=asked.egress_rate,
            from_burst=max(asked.egress_burst or asked.egress_rate // 10, packets),
        )

    @property
    def gateway(self) -> str:
        """Where its default route leads; "": it has none, or all is on its link."""
        if self.mode not in modes.GATEWAYS or not self.default_route:
            return ""
        six_only = all(address.version == 6 for address in self.addresses)
        return GATEWAY_V6 if six_only else GATEWAY_V4

    @property
    def peer_interface(self) -> str:
        """What the inner end is called in the hand-over form, until the runtime moves it."""
        return "rp" + host_interface_name(self.id).removeprefix("rt")

    @property
    def handed_over(self) -> str:
        """The link that the runtime takes: moves, or (tap) opens; "": none."""
        if self.mode is Mode.TAP:
            return self.host_interface
        return self.peer_interface if self.mode is Mode.VETH and not self.netns else ""

    @property
    def host_interface(self) -> str:
        """The link that the host's routes to it lead over; "": it has no address."""
        if not self.addressed:
            return ""
        return slave_name(self.parent) if self.parent else host_interface_name(self.id)

    @property
    def mac(self) -> str:
        """ "": its parent's, or none."""
        return workload_mac(self.id).hex(":") if self.mode in modes.GATEWAYS else ""

    @property
    def addressed(self) -> bool:
        """Whether it has addresses, or is to have some."""
        asks = bool(self.requested or self.pools or self.ip_families or self.lease)
        return modes.addressed(self.mode, asks)

    def refused(self, field: str, said: str) -> Invalid:
        """The error about one field of what was asked for."""
        return Invalid(
            f"cannot attach {self.name}: {field} {said}",
            causes=[Cause(field, said)],
            kind="Workload",
            name=self.id,
        )

    def spec(self) -> WorkloadSpec:
        """The spec of the Workload object that reports a node-born attachment."""
        return WorkloadSpec(
            node=self.node,
            origin=self.origin,
            netns=self.netns,
            if_name=self.if_name,
            mode=self.mode,
            pools=self.pools,
            addresses=[] if self.lease else self.requested,
            lease=self.lease,
            ip_families=self.ip_families,
            shared_with=self.shared_with,
            container_id=self.container_id,
            ports=self.ports,
            bandwidth=self.bandwidth,
            default_route=self.default_route,
            routes=self.routes,
        )

    def status(
        self,
        *,
        ready: bool,
        message: str = "",
        uplinks: Sequence[str] = (),
        policies: Sequence[str] = (),
        neighbours: bool = False,
    ) -> WorkloadStatus:
        """The status to report: Ready once link, addresses and routes were read back."""
        condition = Condition(
            type="Ready",
            status="True" if ready else "False",
            reason="Attached" if ready else "Applying",
            message=message,
        )
        return WorkloadStatus(
            conditions=[
                condition,
                *modes.conditions(self.mode, self.parent, uplinks, policies, neighbours=neighbours),
            ],
            phase=Phase.READY if ready else Phase.PENDING,
            addresses=self.addresses,
            host_interface=self.host_interface,
            gateway=self.gateway,
            mac=self.mac,
            mtu=self.mtu,
        )

    def wire_view(self, *, ready: bool) -> dict[str, Any]:
        """What the local API answers."""
        return {
            "id": self.id,
            "name": self.name,
            "node": self.node,
            "origin": self.origin.value,
            "containerID": self.container_id,
            "ifName": self.if_name,
            "netns": self.netns,
            "mode": self.mode.value,
            "addresses": [str(address) for address in self.addresses],
            "gateway": self.gateway,
            "hostInterface": self.host_interface,
            "mac": self.mac,
            "mtu": self.mtu,
            "peerInterface": self.handed_over,
            "phase": (Phase.READY if ready else Phase.PENDING).value,
            "labels": self.labels,
            "sharedWith": self.shared_with,
            "leaving": self.leaving,
            "defaultRoute": self.default_route,
            "routes": [str(prefix) for prefix in self.routes],
            "bandwidth": self.bandwidth.model_dump(by_alias=True),
            "ports": [port.model_dump(mode="json", by_alias=True) for port in self.ports],
        }


def node_born_id(name: str, node: str) -> str:
    """The Workload object's name of a node-born attachment: it carries the node's name."""
    return f"{name}.{node}"


def failed_status(workload: Workload, reason: str, message: str, phase: Phase) -> WorkloadStatus:
    """The status of an API-born workload that could not be attached."""
    condition = Condition(type="Ready", status="False", reason=reason, message=message)
    return WorkloadStatus(phase=phase, conditions=[condition], addresses=workload.status.addresses)
