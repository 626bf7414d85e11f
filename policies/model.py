"""What policies are about, as values: endpoints, what selectors stand for, and the plan.

An endpoint is a workload's interface on this host. In each direction (ingress: to it, egress: from
it) it has a *signature*: the tiers that it passes, in order, and in each the policies that select
it, in order. Endpoints with the same signature are treated alike, so all that is compiled is
compiled once a signature. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from api.resources.net import IPAddress, IPNetwork
from api.resources.policy import Rule
from api.resources.workload import Port
from policies.failsafe import NO_FAILSAFE, Failsafe

Default = Literal["Allow", "Deny"]
PortKey = tuple[str, str]  # a port's name, and the selector beside it or ""
PortMember = tuple[IPAddress, int, int]  # address, protocol (IANA), port
PortMembers = frozenset[PortMember]


class Direction(StrEnum):
    INGRESS = "Ingress"
    EGRESS = "Egress"

    @property
    def short(self) -> str:
        """As in names and comments: ingress, egress."""
        return self.value.lower()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An interface of a workload on this host. `link` is its name on the host's side; where it is
    empty, there is none, and the endpoint is told by its addresses (ipvlan)."""

    name: str
    labels: Mapping[str, str]
    addresses: frozenset[IPAddress] = frozenset()
    ports: tuple[Port, ...] = ()
    link: str = ""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Members:
    """What a selector stands for: the addresses of workloads and host endpoints, and the nets of
    network sets."""

    addresses: frozenset[IPAddress] = frozenset()
    nets: frozenset[IPNetwork] = frozenset()


@dataclass(frozen=True, slots=True)
class Membership:
    """All that was told: by the text of the selector, and by the name of the port with it. What is
    missing here was never told, which is not the same as having no members."""

    selectors: Mapping[str, Members] = field(default_factory=dict)
    ports: Mapping[PortKey, PortMembers] = field(default_factory=dict)


NOTHING_TOLD = Membership()


@dataclass(frozen=True, slots=True)
class Policy:
    """A NetworkPolicy, and its rules in each direction that it is for."""

    name: str
    tier: str
    rules: Mapping[Direction, tuple[Rule, ...]]
    staged: bool = False
    forward: bool = False  # at host endpoints also for what the host forwards


@dataclass(frozen=True, slots=True)
class Tier:
    """`default` is of what is selected by a policy of the tier, not staged, and decided by none."""

    name: str
    default: Literal["Deny", "Pass"] = "Deny"


@dataclass(frozen=True, slots=True)
class Step:
    """A tier of a signature, and the policies in it, those that are staged among them."""

    tier: str
    policies: tuple[str, ...]


Signature = tuple[Step, ...]


def kept(signature: Signature, wanted: Callable[[str], bool]) -> Signature:
    """Of its policies those that are wanted, and the tiers that have any left."""
    steps = (
        replace(step, policies=tuple(name for name in step.policies if wanted(name)))
        for step in signature
    )
    return tuple(step for step in steps if step.policies)


@dataclass(frozen=True, slots=True)
class Placed:
    """An endpoint with its signatures. `addresses`: of one that has no link of its own."""

    link: str
    ingress: Signature = ()
    egress: Signature = ()
    addresses: frozenset[IPAddress] = frozenset()

    def of(self, direction: Direction) -> Signature:
        return self.ingress if direction is Direction.INGRESS else self.egress


EVERY = "*"  # interface of the host that nothing else is said of


@dataclass(frozen=True, slots=True)
class HostInterface:
    """A HostEndpoint of this host; `interface` is a name, or `EVERY`."""

    name: str
    labels: Mapping[str, str]
    interface: str


@dataclass(frozen=True, slots=True)
class PlacedHost:
    """An interface of this host with its signatures: for what processes of the host receive and
    send by it, and, in `forwarded`, for what the host forwards."""

    interface: str
    own: Placed
    forwarded: Placed


@dataclass(frozen=True, slots=True)
class Ipvlan:
    """All that is attached here by an ipvlan mode: the addresses, those among them that are judged
    by no policy, and the links of the host that they are slaves of."""

    addresses: frozenset[IPAddress] = frozenset()
    unjudged: frozenset[IPAddress] = frozenset()
    parents: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.addresses)


NO_IPVLAN = Ipvlan()


@dataclass(frozen=True, slots=True)
class Needs:
    """The selectors and named ports that have to be known."""

    selectors: frozenset[str] = frozenset()
    ports: frozenset[PortKey] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """Who passes which policies. `endpoints` by name; `policies` and `tiers` by name are those that
    signatures name, so that another policy makes no other plan; `default` is what becomes of a
    packet that no tier decides on. `hosts`: each interface once, that of all others last;
    `failsafe` is let pass there before. `ipvlan` are kept to their own addresses, whether any
    policy is for them or not."""

    endpoints: Mapping[str, Placed] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    tiers: Mapping[str, Tier] = field(default_factory=dict)
    default: Default = "Allow"
    hosts: tuple[PlacedHost, ...] = ()
    failsafe: Failsafe = NO_FAILSAFE
    ipvlan: Ipvlan = NO_IPVLAN

    def signatures(self, direction: Direction) -> set[Signature]:
        """All that there are, of endpoints and of host endpoints."""
        placed = {one.of(direction) for one in self.endpoints.values()}
        return placed | {
            one.of(direction) for host in self.hosts for one in (host.own, host.forwarded)
        }

    def links(self, direction: Direction) -> dict[Signature, frozenset[str]]:
        """The links of every signature that there is; of ipvlan there are none."""
        found: dict[Signature, list[str]] = {}
        for placed in self.endpoints.values():
            found.setdefault(placed.of(direction), []).extend([placed.link] * bool(placed.link))
        return {signature: frozenset(links) for signature, links in found.items()}

    def needs(self) -> Needs:
        """What has to be known of members to carry it out."""
        selectors: set[str] = set()
        ports: set[PortKey] = set()
        for direction in Direction:
            for name in self.used(direction):
                for rule in self.policies[name].rules[direction]:
                    some = rule_needs(rule)
                    selectors |= some.selectors
                    ports |= some.ports
        return Needs(frozenset(selectors), frozenset(ports))

    def used(self, *directions: Direction) -> set[str]:
        """The policies that are for somebody here, in any of these directions."""
        return {
            name
            for direction in directions
            for signature in self.signatures(direction)
            for step in signature
            for name in step.policies
        }

    def enforced(self, step: Step) -> bool:
        """Whether the tier decides at all there: one of its policies is not staged."""
        return any(not self.policies[name].staged for name in step.policies)


def rule_needs(rule: Rule) -> Needs:
    """What a rule has to know of members."""
    selectors: set[str] = set()
    ports: set[PortKey] = set()
    for end in (rule.source, rule.destination):
        selectors |= {text for text in (end.selector, end.not_selector) if text is not None}
        named = port_names([*end.ports, *end.not_ports])
        ports |= {(name, end.selector or "") for name in named}
    return Needs(frozenset(selectors), frozenset(ports))


def port_names(ports: Iterable[int | str]) -> Iterator[str]:
    """Those of them that are names, and neither numbers nor FIRST:LAST."""
    for port in ports:
        if isinstance(port, str) and ":" not in port:
            yield port
