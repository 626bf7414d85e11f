"""The chains of policies, tiers and endpoints.

An endpoint's chain jumps to the chain of each of its tiers, and that to the chain of each policy
in it. Allow is `accept`, which ends the base chain of one direction alone. What a policy or a tier
leaves undecided returns. So does Pass, which has to leave the tier's chain and not only the
policy's: the rules of a policy that has Pass stand in the tier's chain itself. All others are there
once a policy and direction, whoever passes them.

What a rule denies goes to a chain of this rule, where it is logged, within a limit, and dropped or
answered.

Trial: the same walk once more, as if what is staged were in effect, in base chains of its own.
There every verdict is `accept`, which ends the trial and decides nothing; only what is staged
counts. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from api.resources.policy import Action, Rule
from policies.compile import names
from policies.compile.matches import matches, unknown
from policies.compile.ruleset import Chain, chain
from policies.model import Default, Direction, Membership, Policy, Signature, Step, Tier

LOG_GROUP = 82  # of nflog
LOG_LIMIT = "limit rate 10/second burst 20 packets"

Line = tuple[str, str]  # a rule's text, and what its comment says


class Walk(StrEnum):
    REAL = ""
    TRIAL = "trial-"


@dataclass(frozen=True, slots=True)
class Place:
    """One direction of one walk."""

    direction: Direction
    walk: Walk

    @property
    def real(self) -> bool:
        return self.walk is Walk.REAL

    def name(self, *parts: str) -> str:
        """Of a chain."""
        return f"{self.walk}{'-'.join((self.direction.short, *parts))}"

    def label(self, tier: str, policy: str, what: int | str, *, counts: bool) -> str:
        """Of a rule; the label that counts is the rule's own, in whichever walk."""
        said = names.label(tier, policy, self.direction, what)
        return said if self.real or counts else f"{said} trial"


def has_pass(policy: Policy, direction: Direction, known: Membership) -> bool:
    """Whether its rules have to be in the tier's own chain."""
    rules = policy.rules[direction]
    return any(rule.action is Action.PASS and not unknown(rule, known) for rule in rules)


def policy_lines(policy: Policy, place: Place, known: Membership) -> list[Line]:
    """Its rules in one direction."""
    counts = place.real or policy.staged
    found = []
    for index, rule in enumerate(policy.rules[place.direction]):
        action = _action(rule, known)
        if action is None or (action is Action.LOG and not place.real):
            continue
        verdict = _verdict(policy, action, rule, place, index)
        label = place.label(policy.tier, policy.name, index, counts=counts)
        for match in matches(rule, known, exclusive=action is Action.LOG):
            parts = (match, "counter" if counts else "", verdict)
            found.append((" ".join(part for part in parts if part), label))
    return found


def _action(rule: Rule, known: Membership) -> Action | None:
    """What the rule does, also without members that were never told: then it allows nothing, and
    leads nowhere else; None: nothing at all."""
    if not unknown(rule, known):
        return rule.action
    return Action.DENY if rule.action in (Action.DENY, Action.PASS) else None


def _verdict(policy: Policy, action: Action, rule: Rule, place: Place, index: int) -> str:
    if action is Action.PASS:
        return "return"
    if action is Action.LOG:
        said = names.prefix("log", place.direction, policy.tier, policy.name)
        return f'{LOG_LIMIT} log prefix "{said} {index} " group {LOG_GROUP}'
    if action is Action.ALLOW or not place.real:
        return "accept"
    return f"goto {_denying(policy, place, rule, index)}"


def _denying(policy: Policy, place: Place, rule: Rule, index: int) -> str:
    return place.name("reject" if rule.reject else "deny", names.short(policy.name), str(index))


def denying_chains(policy: Policy, place: Place, known: Membership) -> Iterator[tuple[str, Chain]]:
    """Where what each of its rules denies goes, by name."""
    for index, rule in enumerate(policy.rules[place.direction]):
        if _action(rule, known) is Action.DENY and place.real:
            whose = names.prefix("deny", place.direction, policy.tier, policy.name)
            label = place.label(policy.tier, policy.name, f"{index} deny", counts=True)
            lines = _denied(f"{whose} {index}", label, reject=rule.reject)
            yield _denying(policy, place, rule, index), chain(lines)


def _denied(said: str, label: str, *, reject: bool = False, count: bool = False) -> list[Line]:
    lines = [(f'{LOG_LIMIT} log prefix "{said} " group {LOG_GROUP}', f"{label} log")]
    if not reject:
        return [*lines, ("counter drop" if count else "drop", label)]
    return [
        *lines,
        ("meta l4proto 6 reject with tcp reset", label),
        ("reject with icmpx admin-prohibited", label),
    ]


def policy_chain(policy: Policy, place: Place) -> str:
    """Its name."""
    return place.name("policy", names.short(policy.name))


def tier_chain(step: Step, place: Place) -> str:
    """Its name."""
    return place.name("tier", names.short(step.tier), names.signature((step,)))


def endpoint_chain(signature: Signature, place: Place) -> str:
    """Its name."""
    return place.name("of", names.signature(signature))


def tier_lines(
    step: Step, tier: Tier, policies: Iterable[tuple[Policy, list[Line] | None]], place: Place
) -> list[Line]:
    """`policies` of the step, each with its rules where these have to be here."""
    lines: list[Line] = []
    staged = True
    for policy, here in policies:
        staged = staged and policy.staged
        label = place.label(step.tier, policy.name, "", counts=False)
        lines += here if here is not None else [(f"jump {policy_chain(policy, place)}", label)]
    counts = place.real or staged
    label = place.label(step.tier, "", names.DEFAULT, counts=counts)
    if tier.default == "Pass":
        return [*lines, ("counter return", label)] if place.real else lines
    if place.real:
        said = names.prefix("deny", place.direction, step.tier)
        return [*lines, *_denied(said, label, count=True)]
    return [*lines, ("counter accept" if counts else "accept", label)]


def endpoint_lines(signature: Signature, default: Default, place: Place) -> list[Line]:
    """One tier after the other; then the node's default."""
    lines = [
        (f"jump {tier_chain(step, place)}", place.label(step.tier, "", "", counts=False))
        for step in signature
    ]
    if not place.real:
        return lines
    label = place.label("", "", names.DEFAULT, counts=True)
    if default == "Deny":
        said = names.prefix("deny", place.direction)
        return [*lines, *_denied(said, label, count=True)]
    return [*lines, ("counter accept", label)]
