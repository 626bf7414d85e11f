"""What HostEndpoints say of a packet: docs/policy.md, "HostEndpoints", sentence by sentence.

Part of the reference evaluator (`policies/reference.py`). Pure, and slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from api.resources.hostendpoint import HostEndpoint
from api.resources.net import IPAddress
from api.resources.workload import Mode
from policies.reference_rules import NUMBERS
from policies.reference_walk import By, Decision, Direction, Verdict, tiers, walk, would_deny
from policies.reference_world import Packet, World, counts

LOOPBACK, EVERY = "lo", "*"
# packet too big; multicast listeners; router and neighbour solicitations and advertisements
NEEDED6 = frozenset({2, 130, 131, 132, 133, 134, 135, 136, 143})
FRAGMENTATION_NEEDED = (3, 4)  # of ICMP


@dataclass(frozen=True, slots=True)
class Passed:
    """What the host endpoint called `endpoint` says, of a packet that its host forwards or that is
    of the host itself. `staged`: what would deny it if staged policies were in effect."""

    node: str
    endpoint: str
    direction: Direction
    forwarded: bool
    decision: Decision
    staged: Decision | None = None


def host_of(world: World, address: IPAddress) -> str:
    """The host that has the address; "" if none is known that has."""
    for node, addresses in world.nodes.items():
        if address in addresses:
            return node
    for endpoint in world.host_endpoints:
        if address in endpoint.spec.expected_ips:
            return endpoint.spec.node
    for workload in world.workloads:
        of_host = workload.spec.mode is Mode.HOST and counts(workload)
        if of_host and address in workload.status.addresses:
            return workload.spec.node
    return ""


def passed(
    world: World, node: str, direction: Direction, packet: Packet, *, forwarded: bool
) -> Iterator[Passed]:
    """Of the host endpoint whose interface it passes. Which one that is may not be known: then what
    the first by name says that does not allow it, else the first."""
    interface = packet.arrives if direction == "Ingress" else packet.leaves
    held = _in_effect(world, node)
    if interface == LOOPBACK:
        return
    if interface:
        one = held.get(interface) or held.get(EVERY)
        asked = [one] if one is not None else []
    else:
        asked = sorted(held.values(), key=lambda one: one.metadata.name)
    each = (_said(world, one, direction, packet, forwarded=forwarded) for one in asked)
    said = [one for one in each if one is not None]
    denied = [one for one in said if one.decision.verdict is not Verdict.ALLOW]
    yield from (denied or said)[:1]


def _in_effect(world: World, node: str) -> dict[str, HostEndpoint]:
    """By interface: of several of one the first by name."""
    found: dict[str, HostEndpoint] = {}
    for one in sorted(world.host_endpoints, key=lambda one: one.metadata.name):
        if one.spec.node == node:
            interface = one.spec.interface_name or _having(world, one)
            if interface != LOOPBACK:
                found.setdefault(interface, one)
    return found


def _having(world: World, one: HostEndpoint) -> str:
    """The interface that has one of its addresses; what is the name of none if nobody knows."""
    known = world.interfaces.get(one.spec.node, {})
    for address in one.spec.expected_ips:
        if address in known:
            return known[address]
    return f"/{one.metadata.name}"


def _said(
    world: World, one: HostEndpoint, direction: Direction, packet: Packet, *, forwarded: bool
) -> Passed | None:
    """None: no policy selects it."""
    labels, name = one.metadata.labels, one.metadata.name
    if forwarded:
        chosen = tuple(held for held in world.policies if held.spec.apply_on_forward)
        world = replace(world, policies=chosen)
    if not any(True for _ in tiers(world, labels, direction, staged=True)):
        return None
    staged = None
    if not forwarded and _is_needed(packet):
        decision = Decision(Verdict.ALLOW, By.NEEDED)
    elif not forwarded and _is_failsafe(world, direction, packet):
        decision = Decision(Verdict.ALLOW, By.FAILSAFE)
    else:
        decision = Decision(Verdict.ALLOW, By.UNSELECTED)
        if any(True for _ in tiers(world, labels, direction, staged=False)):
            decision = walk(world, labels, direction, packet)
        staged = would_deny(world, labels, direction, packet)
    return Passed(one.spec.node, name, direction, forwarded, decision, staged)


def _is_needed(packet: Packet) -> bool:
    if packet.protocol == NUMBERS["ICMPv6"]:
        return packet.source.version == 6 and packet.icmp_type in NEEDED6
    kind = packet.icmp_type, packet.icmp_code
    return packet.protocol == NUMBERS["ICMP"] and kind == FRAGMENTATION_NEEDED


def _is_failsafe(world: World, direction: Direction, packet: Packet) -> bool:
    ports = world.failsafe.inbound if direction == "Ingress" else world.failsafe.outbound
    return (packet.protocol, packet.destination_port) in ports
