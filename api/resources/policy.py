"""Tier, NetworkPolicy and NetworkSet: who may talk to whom. Field names are Calico's."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from api.resources.errors import Cause
from api.resources.meta import DNSSubdomain, Model, Resource, Status
from api.resources.net import Cidr
from api.resources.registry import Column, resource
from api.resources.selectors import SelectorText

PORTED = ("TCP", "UDP", "SCTP", "UDPLite")
PINGED = ("ICMP", "ICMPv6")
NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132, "UDPLite": 136, "ICMP": 1, "ICMPv6": 58}  # the IANA's
NAMES = {number: name for name, number in NUMBERS.items()}
_RANGE = re.compile(r"(\d{1,5}):(\d{1,5})\Z")
_PORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


def port(value: int | str) -> int | str:
    """A number, FIRST:LAST, or the name of a workload's port. A number in a string is one."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value) if len(value) <= 5 else 65_536
    if isinstance(value, bool) or (isinstance(value, int) and not 1 <= value <= 65_535):
        raise ValueError(f"{value!r} is no port: 1 to 65535")
    if isinstance(value, str):
        match = _RANGE.match(value)
        if match and not 1 <= int(match[1]) <= int(match[2]) <= 65_535:
            raise ValueError(f"{value!r} is no range of ports: FIRST:LAST within 1:65535")
        if not match and not _PORT_NAME.match(value):
            raise ValueError(f"{value!r} is neither a port, nor FIRST:LAST, nor a port's name")
    return value


def protocol(value: int | str) -> int | str:
    """A name, or a number of the IANA's."""
    if isinstance(value, bool) or (isinstance(value, int) and not 1 <= value <= 255):
        raise ValueError(f"{value!r} is no protocol: 1 to 255")
    if isinstance(value, str) and value not in (*PORTED, *PINGED):
        raise ValueError(f"{value!r} is no protocol: {', '.join((*PORTED, *PINGED))}, or a number")
    return value


def not_empty(value: str) -> str:
    """In a rule an empty selector could mean everybody that is known, or nothing said."""
    if not value.strip():
        raise ValueError("must not be empty: all() is all that is known here; else leave it out")
    return value


EntitySelector = Annotated[SelectorText, AfterValidator(not_empty)]
Order = Annotated[float, Field(allow_inf_nan=False)]
Port = Annotated[int | str, AfterValidator(port)]
Protocol = Annotated[int | str, AfterValidator(protocol)]


class Action(StrEnum):
    ALLOW = "Allow"
    DENY = "Deny"
    LOG = "Log"
    PASS = "Pass"  # noqa: S105 - on to the next tier


class ICMP(Model):
    """Of ICMP (RFC 792) or ICMPv6 (RFC 4443)."""

    type: int | None = Field(default=None, ge=0, le=254)
    """The type."""
    code: int | None = Field(default=None, ge=0, le=255)
    """The code; needs a type."""


class Entity(Model):
    """One end of what a rule is about: everything, or what all of these are true of."""

    nets: list[Cidr] = Field(default_factory=list, max_length=1000)
    """Inside one of these; of one family, they make the rule one of that family."""
    not_nets: list[Cidr] = Field(default_factory=list, max_length=1000)
    """Inside none of these."""
    selector: EntitySelector | None = None
    """An address of a workload, network set or host endpoint with such labels."""
    not_selector: EntitySelector | None = None
    """An address of none with such labels."""
    ports: list[Port] = Field(default_factory=list, max_length=100)
    """One of these: numbers, FIRST:LAST, or names of ports, where `selector` is of those that it
    selects."""
    not_ports: list[Port] = Field(default_factory=list, max_length=100)
    """None of these."""

    def causes(self, path: str, version: int | None) -> list[Cause]:
        found = []
        for name, nets in (("nets", self.nets), ("notNets", self.not_nets)):
            for place, net in enumerate(nets):
                if version is not None and net.version != version:
                    said = f"{net} is not IPv{version}, which the rule is for"
                    found.append(Cause(f"{path}.{name}[{place}]", said))
        return found


class Rule(Model):
    """What becomes of packets that all of this is true of; rules are tried in order."""

    action: Action
    """Allow, Deny, Log (and go on), or Pass on to the next tier."""
    reject: bool = False
    """Deny with an answer: RST for TCP, ICMP for all else."""
    ip_version: Literal[4, 6] | None = None
    """4 or 6; both by default."""
    protocol: Protocol | None = None
    """TCP, UDP, SCTP, UDPLite, ICMP (of IPv4), ICMPv6 (of IPv6), or a number."""
    not_protocol: Protocol | None = None
    """Any but this, in either family."""
    icmp: ICMP | None = None
    """Of ICMP only this."""
    not_icmp: ICMP | None = Field(default=None, alias="notICMP")
    """Of ICMP any but this."""
    source: Entity = Field(default_factory=Entity)
    """Where it comes from."""
    destination: Entity = Field(default_factory=Entity)
    """Where it goes."""

    def causes(self, path: str) -> list[Cause]:
        found = []
        protocol = NAMES.get(self.protocol) if isinstance(self.protocol, int) else self.protocol
        if self.reject and self.action is not Action.DENY:
            found.append(Cause(f"{path}.reject", "is for the action Deny"))
        for name, end in (("source", self.source), ("destination", self.destination)):
            found += end.causes(f"{path}.{name}", self.ip_version)
            if (end.ports or end.not_ports) and protocol not in PORTED:
                found.append(
                    Cause(f"{path}.protocol", f"must be one of {', '.join(PORTED)} where ports are")
                )
        for name, icmp in (("icmp", self.icmp), ("notICMP", self.not_icmp)):
            if icmp is None:
                continue
            if protocol not in PINGED:
                found.append(Cause(f"{path}.protocol", f"must be ICMP or ICMPv6 where {name} is"))
            if icmp.type is None:
                found.append(Cause(f"{path}.{name}.type", "is required", "FieldValueRequired"))
        wrong = {"ICMP": 6, "ICMPv6": 4}.get(str(protocol))
        if self.ip_version is not None and self.ip_version == wrong:
            found.append(Cause(f"{path}.ipVersion", f"{protocol} is not of IPv{wrong}"))
        return found or self._nowhere(path, wrong)

    def _nowhere(self, path: str, wrong: int | None) -> list[Cause]:
        """What can be true of no packet, so that the rule would do nothing without a word."""
        source = {net.version for net in self.source.nets} or {4, 6}
        destination = {net.version for net in self.destination.nets} or {4, 6}
        if not source & destination:
            said = "are of the other family than source.nets: no packet is of both"
            return [Cause(f"{path}.destination.nets", said)]
        if source & destination == {wrong}:
            name = "source" if source == {wrong} else "destination"
            return [Cause(f"{path}.{name}.nets", f"are of IPv{wrong}, which the protocol is not")]
        return []


class TierSpec(Model):
    """Tiers are tried in order; each says what becomes of what its policies do not decide."""

    order: Order | None = None
    """The lowest first; those without come last, by name."""
    default_action: Literal["Deny", "Pass"] = "Deny"
    """What becomes of a packet to or from an endpoint that a policy of the tier selects, when none
    of its rules decides."""


@resource("tiers", columns=(Column("ORDER", "spec.order"), Column("DEFAULT", "spec.defaultAction")))
class Tier(Resource):
    """A group of policies that are tried together."""

    KIND: ClassVar[str] = "Tier"

    kind: str = Field(default="Tier", pattern="^Tier$")
    spec: TierSpec = Field(default_factory=TierSpec)
    """Its place, and what is left."""
    status: Status = Field(default_factory=Status)
    """Nothing yet."""


class NetworkPolicySpec(Model):
    """Rules for the workloads and host endpoints that it selects."""

    tier: DNSSubdomain = "default"
    """The tier that it is of. Immutable."""
    order: Order | None = None
    """The lowest first; those without come last, by name."""
    selector: SelectorText = "all()"
    """Whom it is for."""
    types: list[Literal["Ingress", "Egress"]] = Field(default_factory=list, max_length=2)
    """Ingress, Egress or both: those that it has rules for, or Ingress, by default."""
    ingress: list[Rule] = Field(default_factory=list, max_length=1000)
    """For what comes in."""
    egress: list[Rule] = Field(default_factory=list, max_length=1000)
    """For what goes out."""
    apply_on_forward: bool = False
    """Of host endpoints that it selects: judge also what the host forwards by their interfaces. Of
    workloads it says nothing."""
    staged: bool = False
    """Decide nothing; what it would have denied, were all staged policies in effect, is counted."""

    def causes(self) -> list[Cause]:
        found: list[Cause] = []
        for name, rules in (("ingress", self.ingress), ("egress", self.egress)):
            for place, rule in enumerate(rules):
                found += rule.causes(f"spec.{name}[{place}]")
            if rules and self.types and name.title() not in self.types:
                found.append(Cause(f"spec.{name}", f"has rules, and types lacks {name.title()}"))
        if len(set(self.types)) != len(self.types):
            found.append(Cause("spec.types", "names a type twice", "FieldValueDuplicate"))
        return found


@resource(
    "networkpolicies",
    short=("netpol", "policy"),
    columns=(
        Column("TIER", "spec.tier"),
        Column("ORDER", "spec.order"),
        Column("SELECTOR", "spec.selector"),
        Column("STAGED", "spec.staged", 1),
    ),
    selectable=("spec.tier",),
    immutable=("spec.tier",),
)
class NetworkPolicy(Resource):
    """Who may talk to whom."""

    KIND: ClassVar[str] = "NetworkPolicy"

    kind: str = Field(default="NetworkPolicy", pattern="^NetworkPolicy$")
    spec: NetworkPolicySpec
    """Whom it is for, and its rules."""
    status: Status = Field(default_factory=Status)
    """Nothing yet."""


class NetworkSetSpec(Model):
    """Addresses outside, which policies select by the labels of the set."""

    nets: list[Cidr] = Field(default_factory=list, max_length=10_000)
    """The prefixes."""


@resource("networksets", short=("netset",), columns=(Column("NETS", "spec.nets", 1),))
class NetworkSet(Resource):
    """Prefixes under labels, for rules of policies to select."""

    KIND: ClassVar[str] = "NetworkSet"

    kind: str = Field(default="NetworkSet", pattern="^NetworkSet$")
    spec: NetworkSetSpec = Field(default_factory=NetworkSetSpec)
    """What is in it."""
    status: Status = Field(default_factory=Status)
    """Nothing yet."""
