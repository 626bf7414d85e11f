"""Whether one rule fits one packet: docs/policy.md, "When a rule fits", sentence by sentence.

Part of the reference evaluator (`policies/reference.py`). Naive on purpose: members are looked for
in the objects again for every packet. Pure.
"""

from __future__ import annotations

from api.resources import selectors
from api.resources.net import IPAddress
from api.resources.policy import ICMP, Entity, Rule
from api.resources.workload import Port
from policies.reference_world import Packet, World, counts

NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132, "UDPLite": 136}
FAMILY = {NUMBERS["ICMP"]: 4, NUMBERS["ICMPv6"]: 6}


def fits(world: World, rule: Rule, packet: Packet) -> bool:
    """Whether all that the rule says is true of the packet. What nobody told the members of is
    taken as true; what that means depends on the action (`incomplete`)."""
    return (
        (rule.ip_version is None or rule.ip_version == packet.source.version)
        and (rule.protocol is None or _protocol(rule.protocol, packet))
        and (rule.not_protocol is None or _number(rule.not_protocol) != packet.protocol)
        and (rule.icmp is None or _icmp(rule.icmp, packet))
        and (rule.not_icmp is None or not _icmp(rule.not_icmp, packet))
        and _entity(world, rule.source, packet, packet.source, packet.source_port)
        and _entity(world, rule.destination, packet, packet.destination, packet.destination_port)
    )


def incomplete(world: World, rule: Rule) -> bool:
    """Whether the rule needs members that nobody has told."""
    return any(
        entity.selector in world.unknown
        or entity.not_selector in world.unknown
        or _ports_unknown(world, entity, entity.ports)
        or _ports_unknown(world, entity, entity.not_ports)
        for entity in (rule.source, rule.destination)
    )


def _number(protocol: int | str) -> int:
    return NUMBERS[protocol] if isinstance(protocol, str) else protocol


def _protocol(protocol: int | str, packet: Packet) -> bool:
    number = _number(protocol)
    family = FAMILY.get(number, packet.source.version)
    return packet.protocol == number and packet.source.version == family


def _icmp(icmp: ICMP, packet: Packet) -> bool:
    return icmp.type == packet.icmp_type and icmp.code in (None, packet.icmp_code)


def _entity(
    world: World, entity: Entity, packet: Packet, address: IPAddress, port: int | None
) -> bool:
    def one_of(ports: list[int | str]) -> bool:
        return any(_port(world, entity, wanted, packet, address, port) for wanted in ports)

    if entity.nets and not any(address in net for net in entity.nets):
        return False
    if any(address in net for net in entity.not_nets):
        return False
    chosen, excluded = entity.selector, entity.not_selector
    if chosen is not None and chosen not in world.unknown and not member(world, chosen, address):
        return False
    if excluded is not None and excluded not in world.unknown and member(world, excluded, address):
        return False
    if (
        entity.ports
        and not _ports_unknown(world, entity, entity.ports)
        and not one_of(entity.ports)
    ):
        return False
    return _ports_unknown(world, entity, entity.not_ports) or not one_of(entity.not_ports)


def member(world: World, selector: str, address: IPAddress) -> bool:
    """Whether `address` is of anything that has such labels."""
    chosen = selectors.parse(selector)
    return (
        any(
            address in workload.status.addresses and chosen.matches(workload.metadata.labels)
            for workload in world.workloads
            if counts(workload)
        )
        or any(
            address in endpoint.spec.expected_ips and chosen.matches(endpoint.metadata.labels)
            for endpoint in world.host_endpoints
        )
        or any(
            any(address in net for net in held.spec.nets) and chosen.matches(held.metadata.labels)
            for held in world.network_sets
        )
    )


def _port(
    world: World,
    entity: Entity,
    wanted: int | str,
    packet: Packet,
    address: IPAddress,
    port: int | None,
) -> bool:
    if isinstance(wanted, int):
        return port == wanted
    if ":" in wanted:
        first, last = wanted.split(":")
        return port is not None and int(first) <= port <= int(last)
    chosen = selectors.parse(entity.selector or "all()")
    ports: list[Port] = []
    for workload in world.workloads:
        if (
            counts(workload)
            and address in workload.status.addresses
            and chosen.matches(workload.metadata.labels)
        ):
            ports += workload.spec.ports
    for endpoint in world.host_endpoints:
        if address in endpoint.spec.expected_ips and chosen.matches(endpoint.metadata.labels):
            ports += endpoint.spec.ports
    mine = (wanted, packet.protocol, port)
    return any((held.name, NUMBERS[held.protocol], held.port) == mine for held in ports)


def _ports_unknown(world: World, entity: Entity, ports: list[int | str]) -> bool:
    return any((port, entity.selector or "") in world.unknown_ports for port in ports)
