"""Workloads of this host in policies: as endpoints that these are for, and as members of selectors.

Of its own workloads the node is the truth (ADR 1): what the service says of them is put right by
what is attached here, so a workload that comes while the service is out of reach is a member at
once, and who gets an address that another had before is not taken for that one. A selector whose
members were never told stays unknown: its members of this host are not all that it has. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from api.client.selections import Subject
from api.resources.net import IPAddress
from api.resources.policy import NUMBERS
from api.resources.selectors import parse
from api.resources.workload import IPVLAN, Mode
from policies.model import Endpoint, Ipvlan, Members, Membership, Needs, PortKey, PortMembers
from routed.agent.attachment import Attachment, Step
from routed.agent.modes import ENFORCED, GATEWAYS
from routed.agent.told import Known


def endpoint_of(record: Attachment) -> Endpoint:
    """Its interface. `link` is empty where it has none of its own on this host."""
    return Endpoint(
        name=record.id,
        labels=record.labels,
        addresses=frozenset(record.addresses),
        ports=tuple(record.ports),
        link=record.host_interface if record.mode in GATEWAYS else "",
    )


def enforced(records: Iterable[Attachment]) -> list[Endpoint]:
    """Endpoints that policies are enforced for. One that is on its way out is so until its link is
    gone."""
    return [endpoint_of(record) for record in records if record.mode in ENFORCED]


def ipvlan(records: Iterable[Attachment]) -> Ipvlan:
    """Those of the ipvlan modes, until their links are gone."""
    some = [record for record in records if record.mode in IPVLAN]
    return Ipvlan(
        frozenset(address for one in some for address in one.addresses),
        frozenset(address for one in some if one.mode not in ENFORCED for address in one.addresses),
        frozenset(one.parent for one in some),
    )


def held_of(records: Iterable[Attachment]) -> tuple[set[IPAddress], set[IPAddress]]:
    """Addresses of which this node is the truth, and those of its records of which it is not: of
    who is on his way out, and of the host, whose may be more than that."""
    held, others = set[IPAddress](), set[IPAddress]()
    for record in records:
        sure = record.step is not Step.DETACHING and record.mode is not Mode.HOST
        (held if sure else others).update(record.addresses)
    return held, others - held


class Own:
    """The workloads of this host as members. `held` are their addresses."""

    def __init__(self, records: Iterable[Attachment]) -> None:
        records = list(records)
        self.held, _ = held_of(records)
        self._groups: dict[frozenset[tuple[str, str]], list[Attachment]] = {}
        for record in records:
            if record.addresses and record.step is not Step.DETACHING:
                self._groups.setdefault(frozenset(record.labels.items()), []).append(record)

    def membership(self, needs: Needs, told: Mapping[Subject, Known]) -> Membership:
        """Of what is needed all that is known."""
        selectors = {
            text: self._members(text, told[text]) for text in needs.selectors if text in told
        }
        ports = {key: self._ports(key, told[key]) for key in needs.ports if key in told}
        return Membership(selectors, ports)

    def _members(self, text: str, known: Known) -> Members:
        mine = {address for one in self._matching(text) for address in one.addresses}
        told = known.entries.addresses
        if not mine <= told or not self.held & told <= mine:
            told = (told - self.held) | mine
        return Members(told, known.entries.nets)

    def _ports(self, key: PortKey, known: Known) -> PortMembers:
        name, text = key
        mine = (
            (address, NUMBERS[port.protocol], port.port)
            for record in self._matching(text)
            for port in record.ports
            if port.name == name
            for address in record.addresses
        )
        return frozenset(one for one in known.entries.ports if one[0] not in self.held).union(mine)

    def _matching(self, text: str) -> Iterable[Attachment]:
        matches = parse(text).matches
        return (
            one for labels, some in self._groups.items() if matches(dict(labels)) for one in some
        )


def unknown(needs: Needs, told: Mapping[Subject, Known]) -> Needs:
    """Of what is needed, what was never told."""
    return Needs(
        frozenset(one for one in needs.selectors if one not in told),
        frozenset(one for one in needs.ports if one not in told),
    )
