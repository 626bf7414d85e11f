"""The reference evaluator: what has to become of one packet, and which rule says so.

Written from docs/policy.md alone, to be read beside it, and to judge what is compiled to nftables:
it shares no code with the compiler but the language of selectors. It is asked about the first
packet of a flow (answers and what is related pass), which the host has seen and whose source is
not forged, and walks tiers, policies and rules as they are written. Pure, and slow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Literal

from api.resources import selectors
from api.resources.meta import ObjectMeta
from api.resources.net import IPAddress
from api.resources.policy import Action, NetworkPolicy, Rule, Tier
from api.resources.workload import IPVLAN, Mode, Workload
from policies.reference_rules import NUMBERS, fits, incomplete
from policies.reference_world import Packet, World, counts, gathered

__all__ = ["By", "Decision", "Judgement", "Packet", "Verdict", "World", "gathered", "judge", "walk"]

Direction = Literal["Ingress", "Egress"]
ENFORCED = frozenset({Mode.VETH, Mode.TAP})
GATEWAY = IPv4Address("169.254.1.1")
BROADCAST = IPv4Address("255.255.255.255")
DISCOVERY = frozenset({133, 135, 136})  # RFC 4861: solicitations and neighbour advertisements
ECHO = {4: (NUMBERS["ICMP"], 8), 6: (NUMBERS["ICMPv6"], 128)}


class Verdict(StrEnum):
    ALLOW = "Allow"
    DENY = "Deny"
    REJECT = "Reject"


class By(StrEnum):
    """What decided."""

    RULE = "rule"  # `tier`, `policy` and `rule` say which
    TIER = "tier"  # the default of `tier`
    NODE = "node"  # the node's default: nothing selects, or all passed
    HOST = "host"  # the host to its own workload: always allowed
    OWN_HOST = "own host"  # a workload to its own host: the allow-list
    DISCOVERY = "neighbour discovery"
    MODE = "mode"  # cannot be enforced


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, and what decided it. `rule` counts from 0. `logged`: policies and rules with the
    action Log that the packet passed on its way."""

    verdict: Verdict
    by: By
    tier: str = ""
    policy: str = ""
    rule: int | None = None
    logged: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What each end says; None: that end has no say. `own_host` is the allow-list of the sender's
    host, where the packet is for that host. `staged_egress`, `staged_ingress`: what would deny it
    if staged policies were in effect; None: they would not."""

    egress: Decision | None = None
    own_host: Decision | None = None
    ingress: Decision | None = None
    staged_egress: Decision | None = None
    staged_ingress: Decision | None = None

    @property
    def decision(self) -> Decision | None:
        """The first that does not allow it; else the last; None if nobody has a say."""
        asked = [d for d in (self.egress, self.own_host, self.ingress) if d is not None]
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
    if to_host and _discovery(packet):
        return Judgement(egress=Decision(Verdict.ALLOW, By.DISCOVERY))
    if from_host:
        return Judgement(ingress=Decision(Verdict.ALLOW, By.HOST))
    return Judgement(
        egress=_end(world, sender, "Egress", packet),
        own_host=_allow_list(sender, packet) if to_host else None,
        ingress=_end(world, receiver, "Ingress", packet),
        staged_egress=_would_deny(world, sender, "Egress", packet),
        staged_ingress=_would_deny(world, receiver, "Ingress", packet),
    )


def walk(
    world: World,
    labels: Mapping[str, str],
    direction: Direction,
    packet: Packet,
    *,
    staged: bool = False,
) -> Decision:
    """The walk of an endpoint with `labels`. `staged`: as if staged policies were not staged."""
    logged: list[tuple[str, int]] = []
    for tier, policies in _tiers(world, labels, direction, staged=staged):
        passed = False
        for policy, index, rule in _rules(policies, direction):
            action = _action(world, rule, packet)
            if action is Action.LOG:
                logged.append((policy.metadata.name, index))
            elif action is Action.PASS:
                passed = True
                break
            elif action is not None:
                verdict = Verdict.ALLOW
                if action is Action.DENY:
                    verdict = Verdict.REJECT if rule.reject else Verdict.DENY
                where = tier.metadata.name, policy.metadata.name, index
                return Decision(verdict, By.RULE, *where, tuple(logged))
        if not passed and tier.spec.default_action == "Deny":
            name = tier.metadata.name
            return Decision(Verdict.DENY, By.TIER, name, logged=tuple(logged))
    return Decision(Verdict(world.default), By.NODE, logged=tuple(logged))


def _tiers(
    world: World, labels: Mapping[str, str], direction: Direction, *, staged: bool
) -> Iterator[tuple[Tier, list[NetworkPolicy]]]:
    """The tiers that select the endpoint, in order, each with its policies that do, in order."""
    chosen = [
        policy
        for policy in world.policies
        if direction in _types(policy)
        and (staged or not policy.spec.staged)
        and selectors.parse(policy.spec.selector).matches(labels)
    ]
    written = {tier.metadata.name: tier for tier in world.tiers}
    names = {policy.spec.tier for policy in chosen}
    tiers = [written.get(name) or Tier(metadata=ObjectMeta(name=name)) for name in names]
    for tier in sorted(tiers, key=_order):
        inside = [policy for policy in chosen if policy.spec.tier == tier.metadata.name]
        yield tier, sorted(inside, key=_order)


def _order(held: Tier | NetworkPolicy) -> tuple[float, str]:
    order = held.spec.order
    return (math.inf if order is None else order, held.metadata.name)


def _types(policy: NetworkPolicy) -> list[str]:
    if policy.spec.types:
        return [*policy.spec.types]
    has = [("Ingress", policy.spec.ingress), ("Egress", policy.spec.egress)]
    return [name for name, rules in has if rules] or ["Ingress"]


def _rules(
    policies: list[NetworkPolicy], direction: Direction
) -> Iterator[tuple[NetworkPolicy, int, Rule]]:
    for policy in policies:
        rules = policy.spec.ingress if direction == "Ingress" else policy.spec.egress
        for index, rule in enumerate(rules):
            yield policy, index, rule


def _action(world: World, rule: Rule, packet: Packet) -> Action | None:
    """What the rule does with the packet; None: it does not fit."""
    if not fits(world, rule, packet):
        return None
    if not incomplete(world, rule):
        return rule.action
    return Action.DENY if rule.action in (Action.DENY, Action.PASS) else None


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
    labels = workload.metadata.labels
    second = walk(world, labels, direction, packet, staged=True)
    staged = {policy.metadata.name for policy in world.policies if policy.spec.staged}
    of_itself = {tier.metadata.name for tier, _ in _tiers(world, labels, direction, staged=False)}
    theirs = second.policy in staged if second.by is By.RULE else second.tier not in of_itself
    if second.verdict is Verdict.ALLOW or second.by is By.NODE or not theirs:
        return None
    return replace(second, logged=())


def _workload(world: World, name: str, address: IPAddress) -> Workload | None:
    """The workload that sends or receives as an endpoint of its own."""
    for workload in world.workloads:
        if (counts(workload) and workload.spec.mode in ENFORCED | IPVLAN) and (
            workload.metadata.name == name if name else address in workload.status.addresses
        ):
            return workload
    return None


def _is_host(world: World, node: str, address: IPAddress) -> bool:
    """Whether a host takes `address`, or what is sent to it, as its own."""
    return (
        address in world.nodes.get(node, frozenset())
        or address in (GATEWAY, BROADCAST)
        or address.is_multicast
        or (address.version == 6 and address.is_link_local)
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
    if sender is None or sender.spec.mode not in ENFORCED:
        return None
    echo = (packet.protocol, packet.icmp_type) == ECHO[packet.source.version]
    return Decision(Verdict.ALLOW if echo else Verdict.DENY, By.OWN_HOST)
