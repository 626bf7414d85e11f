"""The reference evaluator: what has to become of one packet, and which rule says so.

Written from docs/policy.md alone, to be read beside it, and to judge what is compiled to nftables:
it shares no code with the compiler but the language of selectors. It is asked about the first
packet of a flow (answers and what is related pass), which the host has seen and whose source is
not forged, and walks tiers, policies and rules as they are written. Pure, and slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from api.resources.net import IPAddress
from api.resources.workload import IPVLAN, Mode, Workload
from policies.reference_hosts import Passed, host_of, passed
from policies.reference_rules import NUMBERS
from policies.reference_walk import By, Decision, Direction, Verdict, walk, would_deny
from policies.reference_world import Packet, World, counts, gathered

__all__ = [
    "By", "Decision", "Judgement", "Packet", "Passed", "Verdict", "World", "gathered", "judge",
    "walk",
]  # fmt: skip

ENFORCED = frozenset({Mode.VETH, Mode.TAP, Mode.IPVLAN_L3S})
GATEWAY = IPv4Address("169.254.1.1")
BROADCAST = IPv4Address("255.255.255.255")
DISCOVERY = frozenset({133, 135, 136})  # RFC 4861: solicitations and neighbour advertisements
ECHO = {4: (NUMBERS["ICMP"], 8), 6: (NUMBERS["ICMPv6"], 128)}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What each end says; None: that end has no say. `own_host` is the allow-list of the sender's
    host, where the packet is for that host; `hosts` what host endpoints say on the way, in order.
    `staged_egress`, `staged_ingress`: what would deny it if staged policies were in effect; None:
    they would not."""

    egress: Decision | None = None
    own_host: Decision | None = None
    ingress: Decision | None = None
    hosts: tuple[Passed, ...] = ()
    staged_egress: Decision | None = None
    staged_ingress: Decision | None = None

    @property
    def decision(self) -> Decision | None:
        """The first that does not allow it; else the last; None if nobody has a say."""
        hosts = (one.decision for one in self.hosts)
        ends = (self.egress, self.own_host, *hosts, self.ingress)
        asked = [d for d in ends if d is not None]
        return next(
            (d for d in asked if d.verdict is not Verdict.ALLOW), asked[-1] if asked else None
        )

    @property
    def verdict(self) -> Verdict:
        return self.decision.verdict if self.decision else Verdict.ALLOW


def judge(world: World, packet: Packet) -> Judgement:
    """What becomes of `packet`, at both of its ends."""
    sender = _workload(world, packet.sender, packet.source)
    receiver = _workload(world, packet.receiver, packet.destination)
    to_host = sender is not None and _is_host(world, sender.spec.node, packet.destination)
    from_host = receiver is not None and _is_host(world, receiver.spec.node, packet.source)
    if sender and receiver and _beside_the_host(sender, receiver):
        unseen = Decision(Verdict.ALLOW, By.MODE)
        return Judgement(egress=unseen, ingress=unseen)
    if to_host and _discovery(packet) and sender and sender.spec.mode not in IPVLAN:
        return Judgement(egress=Decision(Verdict.ALLOW, By.DISCOVERY))
    hosts = tuple(_hosts(world, sender, receiver, packet, apart=not (to_host or from_host)))
    if from_host:
        return Judgement(ingress=Decision(Verdict.ALLOW, By.HOST), hosts=hosts)
    return Judgement(
        egress=_end(world, sender, "Egress", packet),
        own_host=_allow_list(sender, packet) if to_host else None,
        ingress=_end(world, receiver, "Ingress", packet),
        hosts=hosts,
        staged_egress=_would_deny(world, sender, "Egress", packet),
        staged_ingress=_would_deny(world, receiver, "Ingress", packet),
    )


def _hosts(
    world: World,
    sender: Workload | None,
    receiver: Workload | None,
    packet: Packet,
    *,
    apart: bool,
) -> Iterator[Passed]:
    """Host endpoints by which it leaves the sender's host, passes another that forwards it, and
    comes to the receiver's. What stays on a host (not `apart`) passes none of its interfaces; what
    a slave sends in IPv4 leaves by its parent, whoever it is for."""
    leaves = sender.spec.node if sender else host_of(world, packet.source)
    comes = receiver.spec.node if receiver else host_of(world, packet.destination)
    if not comes and packet.through != leaves and _goes_no_further(packet.destination):
        comes = packet.through
    pinned = sender is not None and sender.spec.mode in IPVLAN and packet.source.version == 4
    apart = apart and (leaves != comes or not leaves or pinned)
    if leaves and apart and (sender is None or sender.spec.mode in ENFORCED):
        forwarded = sender is not None
        yield from passed(world, leaves, "Egress", packet, forwarded=forwarded)
    if packet.through and packet.through not in (leaves, comes):
        yield from passed(world, packet.through, "Ingress", packet, forwarded=True)
        yield from passed(world, packet.through, "Egress", packet, forwarded=True)
    if comes and apart and (receiver is None or receiver.spec.mode in ENFORCED):
        forwarded = receiver is not None
        yield from passed(world, comes, "Ingress", packet, forwarded=forwarded)


def _beside_the_host(sender: Workload, receiver: Workload) -> bool:
    """Whether what one says to the other passes no hook of their host: both are slaves of one of
    its links, which is said by the host's own slave of it."""
    one, other = sender.spec, receiver.spec
    same = (one.node, sender.status.host_interface) == (other.node, receiver.status.host_interface)
    return one.mode in IPVLAN and other.mode in IPVLAN and same


def _end(
    world: World, workload: Workload | None, direction: Direction, packet: Packet
) -> Decision | None:
    if workload is None:
        return None
    if workload.spec.mode not in ENFORCED:
        return Decision(Verdict.ALLOW, By.MODE)
    return walk(world, workload.metadata.labels, direction, packet)


def _would_deny(
    world: World, workload: Workload | None, direction: Direction, packet: Packet
) -> Decision | None:
    """What denies it in the second walk, if that is a staged policy's doing."""
    if workload is None or workload.spec.mode not in ENFORCED:
        return None
    return would_deny(world, workload.metadata.labels, direction, packet)


def _workload(world: World, name: str, address: IPAddress) -> Workload | None:
    """The workload that sends or receives as an endpoint of its own."""
    for workload in world.workloads:
        if (counts(workload) and workload.spec.mode in ENFORCED | IPVLAN) and (
            workload.metadata.name == name if name else address in workload.status.addresses
        ):
            return workload
    return None


def _goes_no_further(address: IPAddress) -> bool:
    return (
        address in (GATEWAY, BROADCAST)
        or address.is_multicast
        or (address.version == 6 and address.is_link_local)
    )


def _is_host(world: World, node: str, address: IPAddress) -> bool:
    """Whether a host takes `address`, or what is sent to it, as its own."""
    return (
        address in world.nodes.get(node, frozenset())
        or _goes_no_further(address)
        or any(
            endpoint.spec.node == node and address in endpoint.spec.expected_ips
            for endpoint in world.host_endpoints
        )
        or any(
            (workload.spec.node, workload.spec.mode) == (node, Mode.HOST)
            and counts(workload)
            and address in workload.status.addresses
            for workload in world.workloads
        )
    )


def _discovery(packet: Packet) -> bool:
    return packet.protocol == NUMBERS["ICMPv6"] and packet.icmp_type in DISCOVERY


def _allow_list(sender: Workload | None, packet: Packet) -> Decision | None:
    if sender is None:
        return None
    echo = (packet.protocol, packet.icmp_type) == ECHO[packet.source.version]
    return Decision(Verdict.ALLOW if echo else Verdict.DENY, By.OWN_HOST)
