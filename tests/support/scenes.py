"""A scene: what is declared, seen from one host, and packets in it, for the oracles of policies.

The same scene is put to the reference evaluator (`world`) and to the compiler (`endpoints`,
`membership`); a packet is put to the evaluator (`asked`) and to an interpreter of rulesets, as each
hook of the host sees it (`seen`). Members are worked out here, naively: nothing of the compiler's
or of the service's is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address

from api.resources.hostendpoint import HostEndpoint
from api.resources.net import IPAddress
from api.resources.policy import NetworkPolicy, NetworkSet, Tier
from api.resources.selectors import parse
from api.resources.workload import IPVLAN, Mode, Workload
from policies.failsafe import Failsafe, failsafe
from policies.model import (
    Default,
    Endpoint,
    HostInterface,
    Ipvlan,
    Members,
    Membership,
    Needs,
    PortKey,
    PortMembers,
)
from policies.reference import World
from policies.reference_world import Packet as AskedPacket
from support.rulesets import Packet as SeenPacket
from support.rulesets.packets import ICMP, ICMPV6, PINGED, PORTED

HERE, THERE = "here", "there"  # the host in question, and any other
LINK_GROUP, SLAVE_GROUP, UPLINK = 0x7264, 0x7267, "up0"
NAMES = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP", 136: "UDPLite"}
NUMBERS = {name: number for number, name in NAMES.items()}
GATEWAYS = frozenset(map(ip_address, ("169.254.1.1", "fe80::1", "255.255.255.255")))
ASKS = frozenset({0, 8, *range(13, 19)})  # types of ICMP that Linux knows as no errors
FAILSAFE = failsafe()
Link = tuple[str, int] | None  # name and group
PASSING = ("established", "related")  # states that no policy is asked about


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet: `first` and `second` are its ports, or type and code of its ICMP. `by`: the
    workload that sends it under an address that is not its own."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    first: int | None = None
    second: int | None = None
    state: str = "new"
    by: str = ""

    def __str__(self) -> str:
        what = NAMES.get(self.protocol, str(self.protocol))
        numbers = "" if self.first is None else f" {self.first}/{self.second}"
        state = "" if self.state == "new" else f" {self.state}"
        by = f" by {self.by}" if self.by else ""
        return f"{self.source} > {self.destination} {what}{numbers}{state}{by}"

    @property
    def is_pinged(self) -> bool:
        return self.protocol == (ICMP if self.source.version == 4 else ICMPV6)

    @property
    def is_odd(self) -> bool:
        """ICMP in the other family, of which listings do not tell all (support.rulesets)."""
        return self.protocol in PINGED and not self.is_pinged

    @property
    def is_error(self) -> bool:
        """An ICMP error, or what the kernel takes for one, which is never answered with another
        (RFC 1122, section 3.2.2; RFC 4443, section 2.4 (e): of ICMPv6 all types below 128)."""
        if not self.is_pinged or self.first is None:
            return False
        return self.first < 128 if self.protocol == ICMPV6 else self.first not in ASKS

    @property
    def asked(self) -> AskedPacket:
        """For the reference evaluator."""
        ports = (self.first, self.second) if self.protocol in PORTED else (None, None)
        icmp = (self.first, self.second) if self.is_pinged else (None, None)
        return AskedPacket(self.source, self.destination, self.protocol, *ports, *icmp)


@dataclass(frozen=True)
class Scene:
    """`host`: the addresses of the host `HERE`. `untold`, `untold_ports`: of what selectors and
    names its agent was never told the members. `unready`: local workloads that have a link already,
    and nothing is worked out for it. `links`: what the links of workloads are called on the host's
    side, where it matters."""

    tiers: tuple[Tier, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    sets: tuple[NetworkSet, ...] = ()
    hosts: tuple[HostEndpoint, ...] = ()
    workloads: tuple[Workload, ...] = ()
    host: frozenset[IPAddress] = field(default_factory=frozenset)
    default: Default = "Allow"
    untold: frozenset[str] = field(default_factory=frozenset)
    untold_ports: frozenset[PortKey] = field(default_factory=frozenset)
    unready: frozenset[str] = field(default_factory=frozenset)
    links: Mapping[str, str] = field(default_factory=dict)
    failsafe: Failsafe = FAILSAFE

    @cached_property
    def world(self) -> World:
        """For the reference evaluator. Elsewhere is another world: it judges nothing there."""
        return World(
            self.tiers,
            self.policies,
            self.sets,
            self.hosts,
            self.workloads,
            {HERE: self.host},
            self.default,
            self.untold,
            self.untold_ports,
            {HERE: dict.fromkeys(self.host, UPLINK)},
            self.failsafe,
        )

    @property
    def interfaces(self) -> list[HostInterface]:
        """For the compiler: of the host `HERE`, whose only interface is the uplink."""
        return [
            HostInterface(one.metadata.name, one.metadata.labels, one.spec.interface_name or UPLINK)
            for one in self.hosts
            if one.spec.node == HERE
        ]

    @property
    def endpoints(self) -> list[Endpoint]:
        """For the compiler: those of the host `HERE`."""
        return [
            self.endpoint_of(one)
            for one in self.local()
            if one.metadata.name not in self.unready and one.spec.mode is not Mode.IPVLAN_L3
        ]

    def endpoint_of(self, workload: Workload) -> Endpoint:
        return Endpoint(
            workload.metadata.name,
            workload.metadata.labels,
            frozenset(workload.status.addresses),
            tuple(workload.spec.ports),
            self.link_of(workload),
        )

    @property
    def ipvlan(self) -> Ipvlan:
        """For the compiler: those of the host `HERE` of these modes."""
        return ipvlan_of(self.local())

    def local(self) -> list[Workload]:
        return [one for one in self.workloads if one.spec.node == HERE]

    def link_of(self, workload: Workload) -> str:
        name = workload.metadata.name
        return "" if workload.spec.mode in IPVLAN else self.links.get(name, f"rt{name}")

    def at(self, address: IPAddress) -> Workload | None:
        """The workload of the host `HERE` that has it."""
        return self._by_address.get(address)

    def takes(self, address: IPAddress) -> bool:
        """Whether the host `HERE` takes what is sent there as its own: also at the gateways' and at
        all that goes no further."""
        return address in self.host or address in GATEWAYS or address.is_multicast

    @property
    def here(self) -> frozenset[IPAddress]:
        """The addresses of workloads of the host `HERE`."""
        return frozenset(self._by_address)

    @cached_property
    def _by_address(self) -> dict[IPAddress, Workload]:
        return {address: one for one in self.local() for address in one.status.addresses}

    def membership(self, needs: Needs) -> Membership:
        """For the compiler: what was told of what it needs."""
        return Membership(
            {text: self._members(text) for text in needs.selectors - self.untold},
            {key: self._ports(*key) for key in needs.ports - self.untold_ports},
        )

    def _members(self, text: str) -> Members:
        chosen = parse(text)
        workloads = (one for one in self.workloads if chosen.matches(one.metadata.labels))
        hosts = (one for one in self.hosts if chosen.matches(one.metadata.labels))
        sets = (one for one in self.sets if chosen.matches(one.metadata.labels))
        return Members(
            frozenset(address for one in workloads for address in one.status.addresses)
            | frozenset(address for one in hosts for address in one.spec.expected_ips),
            frozenset(net for one in sets for net in one.spec.nets),
        )

    def _ports(self, name: str, text: str) -> PortMembers:
        chosen = parse(text or "all()")
        found = [
            (one.metadata.labels, one.status.addresses, one.spec.ports) for one in self.workloads
        ]
        owners = [
            *found,
            *((o.metadata.labels, o.spec.expected_ips, o.spec.ports) for o in self.hosts),
        ]
        return frozenset(
            (address, NUMBERS[port.protocol], port.port)
            for labels, addresses, ports in owners
            if chosen.matches(labels)
            for port in ports
            if port.name == name
            for address in addresses
        )

    def seen(self, sent: Sent) -> Iterator[tuple[str, SeenPacket]]:
        """(hook, the packet there), in order, on the host `HERE`."""
        sender, receiver = self.sender(sent), self.at(sent.destination)
        to_host, from_host = self.takes(sent.destination), sent.source in self.host
        ported = sent.protocol in PORTED
        packet = {
            "saddr": sent.source,
            "daddr": sent.destination,
            "protocol": sent.protocol,
            "sport": sent.first if ported else None,
            "dport": sent.second if ported else None,
            "type": sent.first if sent.is_pinged else None,
            "code": sent.second if sent.is_pinged else None,
            "state": sent.state,
            "routed_back": not sent.by,
            "saddr_type": "local" if from_host or sent.source.is_loopback else "unicast",
            "daddr_type": "local" if to_host else "unicast",
            "skuid": 0 if from_host else None,
        }
        if any(one is not None and one.spec.mode in IPVLAN for one in (sender, receiver)):
            pinned = sent.source.version == 4
            for hook, first, last in self._beside(sender, receiver, from_host, to_host, pinned):
                sides = {**_link("i", first), **_link("o", last)}
                yield hook, SeenPacket(**packet, **sides)  # type: ignore[arg-type]
            return
        come = self._side("i", None if from_host else sender, there=not from_host)
        gone = self._side("o", receiver, there=not to_host)
        nowhere = self._side("o", None, there=False)
        if not from_host:
            yield "prerouting", SeenPacket(**packet, **come, **nowhere)  # type: ignore[arg-type]
        if to_host:
            yield "input", SeenPacket(**packet, **come, **nowhere)  # type: ignore[arg-type]
            return
        hook = "output" if from_host else "forward"
        yield hook, SeenPacket(**packet, **come, **gone)  # type: ignore[arg-type]
        yield "postrouting", SeenPacket(**packet, **come, **gone)  # type: ignore[arg-type]

    def sender(self, sent: Sent) -> Workload | None:
        """The workload of the host `HERE` that sends it."""
        if sent.by:
            return next(one for one in self.local() if one.metadata.name == sent.by)
        return self.at(sent.source)

    def _beside(
        self,
        sender: Workload | None,
        receiver: Workload | None,
        from_host: bool,
        to_host: bool,
        pinned: bool,
    ) -> Iterator[tuple[str, Link, Link]]:
        """What hooks see of workloads of the ipvlan modes, and by which links: as it was tried in
        tests/guest. What is `pinned` leaves by the parent, and comes back from the switch."""
        by, to = (
            None if one is None else (parent_of(one) if one.spec.mode in IPVLAN else "")
            for one in (sender, receiver)
        )
        if by and by == to:
            return
        gone: Link = (UPLINK, 0)
        if to:
            gone = f"rtv-{to}", SLAVE_GROUP
        elif receiver is not None:
            gone = self.link_of(receiver), LINK_GROUP
        if by and receiver is not None and pinned:
            yield "output", None, (by, 0)
            yield from self._beside(None, receiver, from_host, to_host, pinned)
            if not to:
                yield "forward", (by, 0), gone
        elif by or from_host:
            gone = ("lo", 0) if to_host else (by, 0) if by and receiver is None else gone
            yield "output", None, gone
            yield "postrouting", None, gone
            if to_host:
                yield "prerouting", ("lo", 0), None
                yield "input", ("lo", 0), None
        elif sender is not None:
            come = self.link_of(sender), LINK_GROUP
            yield "prerouting", come, None
            yield "forward", come, gone
            yield "postrouting", come, gone
        elif to and receiver is not None and receiver.spec.mode is Mode.IPVLAN_L3S:
            yield "prerouting", (to, 0), None
            yield "input", (to, 0), None

    def _side(self, which: str, workload: Workload | None, *, there: bool) -> dict[str, object]:
        """The link by which a packet comes or goes: a workload's, the uplink, or none."""
        if not there:
            return {f"{which}ifname": "", f"{which}ifgroup": None}
        if workload is None:
            return {f"{which}ifname": UPLINK, f"{which}ifgroup": 0}
        return {f"{which}ifname": self.link_of(workload), f"{which}ifgroup": LINK_GROUP}


def ipvlan_of(workloads: Iterable[Workload]) -> Ipvlan:
    """What is known of those among them that are of these modes."""
    some = [one for one in workloads if one.spec.mode in IPVLAN]
    unjudged = [one for one in some if one.spec.mode is Mode.IPVLAN_L3]
    return Ipvlan(
        frozenset(address for one in some for address in one.status.addresses),
        frozenset(address for one in unjudged for address in one.status.addresses),
        frozenset(parent_of(one) for one in some),
    )


def parent_of(workload: Workload) -> str:
    return workload.status.host_interface.removeprefix("rtv-")


def _link(which: str, link: Link) -> dict[str, object]:
    name, group = link or ("", None)
    return {f"{which}ifname": name, f"{which}ifgroup": group}


def addresses(*texts: str) -> frozenset[IPAddress]:
    return frozenset(ip_address(text) for text in texts)
