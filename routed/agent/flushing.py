"""Whose established flows are judged anew, with `flushConntrack`, after policies have changed.

Connection tracking lets established flows pass without a look at policies, so a change leaves them
alone (docs/policy.md, "Flows"). What is taken out of it is judged as a first packet is, whichever
way that goes: a flow that its server speaks in may halt. So it is done where a change may have
closed something, and not whenever an address comes to what is allowed, as with every workload that
is attached anywhere. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from functools import cache

from api.client.selections import Subject
from api.resources.net import IPAddress, IPNetwork
from api.resources.policy import Action, Entity, Rule
from policies.model import (
    Direction,
    Members,
    Placed,
    Plan,
    Policy,
    Signature,
    Tier,
    port_names,
)
from routed.agent.attachment import Attachment
from routed.agent.enforcing import Wanted
from routed.agent.told import address_of

Content = tuple[tuple[Tier | None, tuple[Policy, ...]], ...]
NOBODY = Placed("")  # where nothing is filtered, nobody is placed


def concerned(
    before: Wanted, after: Wanted, records: Mapping[str, Attachment], known: Set[str]
) -> set[IPAddress]:
    """Addresses whose flows might not be allowed any more: of endpoints whose policies have
    changed, or name network sets that have; and those that have come to or left what selectors and
    ports' names stand for, where that may close something. One that is not `known` from before has
    no flows from before."""

    @cache
    def differs(direction: Direction, old: Signature, new: Signature) -> bool:
        now = _content(after.plan, new)
        if _content(before.plan, old) != now:
            return True
        subjects = {subject for subject, _ in _closing(now, direction)}
        return any(_nets(before, one) != _nets(after, one) for one in subjects)

    closing: set[tuple[Subject, bool]] = set()
    found: set[IPAddress] = set()
    for name, placed in after.plan.endpoints.items():
        earlier = before.plan.endpoints.get(name, NOBODY)
        if name in records and any(differs(d, earlier.of(d), placed.of(d)) for d in Direction):
            found.update(records[name].addresses)
    for direction in Direction:
        for signature in after.plan.links(direction):
            closing.update(_closing(_content(after.plan, signature), direction))
    for subject, coming in closing:
        old, new = _addresses(before, subject), _addresses(after, subject)
        if old is not None and new is not None and old is not new:
            found.update(address_of(one) for one in (new - old if coming else old - new))
    for name in records.keys() - known:
        found.difference_update(records[name].addresses)
    return found


def _content(plan: Plan, signature: Signature) -> Content:
    """What decides in it: staged policies do not."""
    return tuple(
        (
            plan.tiers.get(step.tier),
            tuple(one for name in step.policies if not (one := plan.policies[name]).staged),
        )
        for step in signature
        if plan.enforced(step)
    )


def _closing(content: Content, direction: Direction) -> Iterator[tuple[Subject, bool]]:
    """What members may close something by coming (True), or by going (False)."""
    for _, policies in content:
        for policy in policies:
            for rule in policy.rules.get(direction, ()):
                for end in (rule.source, rule.destination):
                    for subject, negated in _subjects(end):
                        yield from _ways(subject, rule, negated=negated)


def _subjects(end: Entity) -> Iterator[tuple[Subject, bool]]:
    for text, negated in ((end.selector, False), (end.not_selector, True)):
        if text is not None:
            yield text, negated
    for ports, negated in ((end.ports, False), (end.not_ports, True)):
        for name in port_names(ports):
            yield (name, end.selector or ""), negated


def _ways(subject: Subject, rule: Rule, *, negated: bool) -> Iterator[tuple[Subject, bool]]:
    if rule.action in (Action.DENY, Action.PASS):
        yield subject, not negated
    if rule.action in (Action.ALLOW, Action.PASS):
        yield subject, negated


def _nets(wanted: Wanted, subject: Subject) -> frozenset[IPNetwork]:
    held = wanted.membership.selectors.get(subject) if isinstance(subject, str) else None
    return held.nets if isinstance(held, Members) else frozenset()


def _addresses(
    wanted: Wanted, subject: Subject
) -> frozenset[IPAddress] | frozenset[tuple[IPAddress, int, int]] | None:
    """None: it was not needed, or never told."""
    if isinstance(subject, str):
        held = wanted.membership.selectors.get(subject)
        return None if held is None else held.addresses
    return wanted.membership.ports.get(subject)
