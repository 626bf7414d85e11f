"""Which policies every endpoint passes, and in which order.

Tiers go by order, then name; those without an order come last. So do the policies of a tier. A
policy that names a tier which is not there is of a tier with the defaults (no order, Deny): what
cannot be judged is not let through. A policy is for the directions in `types`, or for those that it
has rules for, or for ingress. Staged policies keep their place, for what they count. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import groupby

from api.resources import policy as kinds
from api.resources.net import IPAddress
from api.resources.selectors import parse
from policies.failsafe import NO_FAILSAFE, Failsafe
from policies.model import (
    EVERY,
    NO_IPVLAN,
    Default,
    Direction,
    Endpoint,
    HostInterface,
    Ipvlan,
    Placed,
    PlacedHost,
    Plan,
    Policy,
    Signature,
    Step,
    Tier,
    kept,
)

PLACED_MOST = 20_000  # labels that are remembered with what selects them

Labels = frozenset[tuple[str, str]]


class Order:
    """Tiers and policies in the order in which they are tried."""

    def __init__(
        self, tiers: Iterable[kinds.Tier], policies: Iterable[kinds.NetworkPolicy]
    ) -> None:
        specs = {tier.metadata.name: tier.spec for tier in tiers}

        unknown = kinds.TierSpec()

        def place(one: kinds.NetworkPolicy) -> tuple[tuple[float, str], tuple[float, str]]:
            tier, name = one.spec.tier, one.metadata.name
            outer = specs.get(tier, unknown).order
            return (_order(outer), tier), (_order(one.spec.order), name)

        ordered = sorted(policies, key=place)
        self.policies = {one.metadata.name: _policy(one) for one in ordered}
        self.tiers = {
            name: Tier(name, specs.get(name, unknown).default_action)
            for name in {policy.tier for policy in self.policies.values()}
        }
        self._selecting = [(parse(one.spec.selector), one.metadata.name) for one in ordered]
        self._placed: dict[Labels, tuple[Signature, Signature]] = {}

    def place(self, endpoint: Endpoint) -> Placed:
        """The endpoint with its signatures, which only depend on its labels."""
        key = frozenset(endpoint.labels.items())
        found = self._placed.get(key)
        if found is None:
            if len(self._placed) >= PLACED_MOST:  # of workloads that were here once
                self._placed.clear()
            ingress, egress = (self._signature(endpoint.labels, one) for one in Direction)
            found = self._placed[key] = ingress, egress
        addresses = frozenset[IPAddress]() if endpoint.link else endpoint.addresses
        return Placed(endpoint.link, *found, addresses)

    def plan(
        self,
        endpoints: Iterable[Endpoint],
        default: Default = "Allow",
        hosts: Iterable[HostInterface] = (),
        failsafe: Failsafe = NO_FAILSAFE,
        ipvlan: Ipvlan = NO_IPVLAN,
    ) -> Plan:
        placed = {endpoint.name: self.place(endpoint) for endpoint in endpoints}
        found = Plan(placed, {}, {}, default, self._hosts(hosts), failsafe, ipvlan)
        used = found.used(*Direction)
        policies = {name: one for name, one in self.policies.items() if name in used}
        tiers = {one.tier: self.tiers[one.tier] for one in policies.values()}
        return replace(found, policies=policies, tiers=tiers)

    def _hosts(self, hosts: Iterable[HostInterface]) -> tuple[PlacedHost, ...]:
        """Of several of one interface the first by name; nothing where no policy selects any."""
        first: dict[str, HostInterface] = {}
        for one in sorted(hosts, key=lambda one: one.name):
            first.setdefault(one.interface, one)
        ordered = sorted(first, key=lambda name: (name == EVERY, name))
        found = tuple(self._host(first[name]) for name in ordered)
        return found if any(one.own.ingress or one.own.egress for one in found) else ()

    def _host(self, one: HostInterface) -> PlacedHost:
        own = self.place(Endpoint(one.name, one.labels, link=one.interface))
        return PlacedHost(
            one.interface,
            own,
            Placed(one.interface, self._forwarded(own.ingress), self._forwarded(own.egress)),
        )

    def _forwarded(self, signature: Signature) -> Signature:
        """What of it is also for what the host forwards."""
        return kept(signature, lambda name: self.policies[name].forward)

    def _signature(self, labels: Mapping[str, str], direction: Direction) -> Signature:
        selected = [
            self.policies[name]
            for selector, name in self._selecting
            if direction in self.policies[name].rules and selector.matches(labels)
        ]
        return tuple(
            Step(tier, tuple(policy.name for policy in some))
            for tier, some in groupby(selected, key=lambda policy: policy.tier)
        )


def plan(
    tiers: Iterable[kinds.Tier],
    policies: Iterable[kinds.NetworkPolicy],
    endpoints: Iterable[Endpoint],
    default: Default = "Allow",
    hosts: Iterable[HostInterface] = (),
    failsafe: Failsafe = NO_FAILSAFE,
    ipvlan: Ipvlan = NO_IPVLAN,
) -> Plan:
    """Who passes which policies. SelectorError, of a selector that cannot be read."""
    return Order(tiers, policies).plan(endpoints, default, hosts, failsafe, ipvlan)


def without(
    plan: Plan, names: Collection[str], before: Mapping[str, Policy], *, closed: bool
) -> Plan:
    """The plan with these policies as they were `before`, in the directions that they were for
    then. Those that were not there are left out; where `closed`, because nobody knows what was
    before, they deny all to workloads, and are left out of what hosts pass."""
    deny = (kinds.Rule(action=kinds.Action.DENY),)
    changed = {}
    for name in names:
        rules, old = plan.policies[name].rules, before.get(name)
        if old is not None:
            rules = {direction: old.rules.get(direction, ()) for direction in rules}
        elif closed:
            rules = dict.fromkeys(rules, deny)
        changed[name] = replace(plan.policies[name], rules=rules)

    left = {
        direction: {n for n in names if n not in before or direction not in before[n].rules}
        for direction in Direction
    }
    placed = plan.endpoints
    if not closed:
        placed = {name: _less(one, left) for name, one in placed.items()}
    hosts = tuple(
        replace(one, own=_less(one.own, left), forwarded=_less(one.forwarded, left))
        for one in plan.hosts
    )
    policies = {**plan.policies, **changed}
    return replace(plan, endpoints=placed, policies=policies, hosts=hosts)


def _less(placed: Placed, left: Mapping[Direction, set[str]]) -> Placed:
    """Without those that are left out."""
    return replace(
        placed,
        ingress=kept(placed.ingress, lambda name: name not in left[Direction.INGRESS]),
        egress=kept(placed.egress, lambda name: name not in left[Direction.EGRESS]),
    )


def types(spec: kinds.NetworkPolicySpec) -> list[Direction]:
    """The directions that a policy is for."""
    if spec.types:
        return [direction for direction in Direction if direction.value in spec.types]
    ruled = {Direction.INGRESS: spec.ingress, Direction.EGRESS: spec.egress}
    return [direction for direction, rules in ruled.items() if rules] or [Direction.INGRESS]


def _policy(one: kinds.NetworkPolicy) -> Policy:
    rules = {Direction.INGRESS: tuple(one.spec.ingress), Direction.EGRESS: tuple(one.spec.egress)}
    spec = one.spec
    told = {direction: rules[direction] for direction in types(spec)}
    return Policy(one.metadata.name, spec.tier, told, spec.staged, spec.apply_on_forward)


def _order(order: float | None) -> float:
    return math.inf if order is None else order
