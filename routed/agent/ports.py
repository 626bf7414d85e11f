"""Ports of this host that are mapped to workloads: who has which, and what a workload's mean. Pure.

One (protocol, port) of the host may be mapped several times, at several addresses of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from api.resources.errors import Cause, Conflict, Invalid
from api.resources.net import IPAddress
from api.resources.workload import WorkloadPort, same_host_port
from policies.nat import PortMapping
from routed.agent.attachment import Attachment
from routed.agent.modes import GATEWAYS


def mappings(record: Attachment) -> frozenset[PortMapping]:
    """Of the first address of each family."""
    return frozenset(
        PortMapping(
            protocol=port.protocol.lower(),
            host_port=port.host_port,
            address=address,
            port=port.port,
            host_ip=None if port.where is None or port.where.is_unspecified else port.where,
        )
        for port in record.ports
        if port.host_port
        for address in _targets(port, record.addresses)
    )


def _targets(port: WorkloadPort, addresses: Iterable[IPAddress]) -> list[IPAddress]:
    first: dict[int, IPAddress] = {}
    for address in addresses:
        first.setdefault(address.version, address)
    if port.where is not None:
        return [first[port.where.version]] if port.where.version in first else []
    return list(first.values())


def unreachable(record: Attachment) -> Invalid | None:
    """Of a port that cannot be mapped: at an address of a family that the workload has none of, or
    where what it answers does not come back through the host's translation."""
    for number, port in enumerate(record.ports):
        if not port.host_port:
            continue
        if record.mode not in GATEWAYS:
            said = f"mode {record.mode} has no mapped ports: use mode veth"
            return record.refused(f"ports[{number}].hostPort", said)
        if port.where is not None and not _targets(port, record.addresses):
            said = f"{port.where}: the workload has no IPv{port.where.version} address"
            return record.refused(f"ports[{number}].hostIP", said)
    return None


def taken(record: Attachment, number: int, by: str) -> Conflict:
    """The error that says who has the host's port that ports[`number`] of `record` asks for."""
    port = record.ports[number]
    where = f"{port.host_ip or 'any address'}, port {port.host_port}/{port.protocol}"
    return Conflict(
        f"cannot attach {record.name}: {where} of node {record.node} {by}; take another hostPort",
        causes=[Cause(f"ports[{number}].hostPort", by, "FieldValueDuplicate")],
    )


class MappedPorts:
    """Who has which; kept with the records."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], list[tuple[WorkloadPort, str]]] = {}

    def keep(self, record: Attachment) -> None:
        self.drop(record)
        for port in record.ports:
            if port.host_port:
                key = port.protocol, port.host_port
                self._held.setdefault(key, []).append((port, record.id))

    def drop(self, record: Attachment) -> None:
        for port in record.ports:
            if port.host_port:
                key = port.protocol, port.host_port
                left = [one for one in self._held.get(key, []) if one[1] != record.id]
                if left:
                    self._held[key] = left
                else:
                    self._held.pop(key, None)

    def owner(self, port: WorkloadPort, but: str) -> str:
        """The workload other than `but` that has the host's port that `port` asks for; "": none."""
        if not port.host_port:
            return ""
        held = self._held.get((port.protocol, port.host_port), [])
        return next((by for one, by in held if by != but and same_host_port(port, one)), "")
