"""The walk of one endpoint: docs/policy.md, "The walk", sentence by sentence.

Part of the reference evaluator (`policies/reference.py`). Pure, and slow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from api.resources import selectors
from api.resources.meta import ObjectMeta
from api.resources.policy import Action, NetworkPolicy, Rule, Tier
from policies.reference_rules import fits, incomplete
from policies.reference_world import Packet, World

Direction = Literal["Ingress", "Egress"]


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
    FAILSAFE = "failsafe"  # a port of the host that no policy closes
    NEEDED = "needed"  # ICMP that a host cannot do without
    UNSELECTED = "unselected"  # an interface of the host that only staged policies select


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
    for tier, policies in tiers(world, labels, direction, staged=staged):
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


def tiers(
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
    chosen_tiers = [written.get(name) or Tier(metadata=ObjectMeta(name=name)) for name in names]
    for tier in sorted(chosen_tiers, key=_order):
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


def would_deny(
    world: World, labels: Mapping[str, str], direction: Direction, packet: Packet
) -> Decision | None:
    """What denies it in the second walk, if that is a staged policy's doing."""
    second = walk(world, labels, direction, packet, staged=True)
    staged = {policy.metadata.name for policy in world.policies if policy.spec.staged}
    of_itself = {tier.metadata.name for tier, _ in tiers(world, labels, direction, staged=False)}
    theirs = second.policy in staged if second.by is By.RULE else second.tier not in of_itself
    if second.verdict is Verdict.ALLOW or second.by is By.NODE or not theirs:
        return None
    return replace(second, logged=())
