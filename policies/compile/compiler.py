"""A plan and members → what the table has to hold. Depends on nothing else, in particular not on
what was compiled before: `Compiler` only remembers the chains of policies that are the same, as
long as these are there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from api.resources.net import IPAddress
from policies.compile import dispatch, ipvlan, members, names
from policies.compile.chains import (
    Line,
    Place,
    Walk,
    denying_chains,
    endpoint_chain,
    endpoint_lines,
    has_pass,
    policy_chain,
    policy_lines,
    tier_chain,
    tier_lines,
)
from policies.compile.hooks import KEYS, base_chains, failsafe_lines, host_base
from policies.compile.matches import has_nets
from policies.compile.ruleset import ADDRESSES, LINKS, NO_POLICIES, Chain, Ruleset, Set, chain
from policies.model import (
    Direction,
    Membership,
    Placed,
    Plan,
    Policy,
    Signature,
    Step,
    kept,
)

_SET = re.compile(r"@([-\w.]+)")


@dataclass(frozen=True, slots=True)
class _Of:
    """A policy's part of one walk in one direction: its lines, and the chains they go to."""

    policy: Policy
    known: tuple[object, ...]
    lines: list[Line]
    inlined: bool
    chains: dict[str, Chain]


_Pair = tuple[Signature, Signature]  # ingress, egress


@dataclass(frozen=True, slots=True)
class _Groups:
    """The links, and of what has none the addresses, that have the same signatures."""

    links: Mapping[_Pair, frozenset[str]]
    addresses: Mapping[_Pair, frozenset[IPAddress]]


class Compiler:
    def __init__(self) -> None:
        self._made: dict[tuple[str, Place], _Of] = {}

    def compile(self, plan: Plan, known: Membership) -> Ruleset:
        """What the table has to hold of policies; nothing where nobody passes any."""
        self._made = {key: one for key, one in self._made.items() if key[0] in plan.policies}
        groups = _groups(plan)
        pairs = {*groups.links, *groups.addresses}
        free = plan.default == "Allow" and not any(one or other for one, other in pairs)
        if free and not plan.hosts and not plan.ipvlan:
            return NO_POLICIES
        found = ipvlan.own_chains() if plan.ipvlan else {}
        groups = _Groups({}, {}) if free else groups
        for direction in Direction:
            for walk in Walk:
                place = Place(direction, walk)
                if not free:
                    found.update(self._walk(plan, known, groups, place))
                for forwarded in (False, True):
                    found.update(self._host(plan, known, place, forwarded=forwarded))
        whose = ipvlan.sets(plan.ipvlan) if plan.ipvlan else {}
        asked = {
            name for one in found.values() for text in one.rules for name in _SET.findall(text)
        }
        return Ruleset(found, {**whose, **_group_sets(groups), **members.sets(asked, known)})

    def _walk(
        self,
        plan: Plan,
        known: Membership,
        groups: _Groups,
        place: Place,
    ) -> Iterator[tuple[str, Chain]]:
        targets: dict[str, str] = {}
        signatures: set[Signature] = set()
        for ingress, egress in {*groups.links, *groups.addresses}:
            whole = ingress if place.direction is Direction.INGRESS else egress
            signature = _walked(plan, whole, place)
            if signature or (place.real and plan.default == "Deny"):
                signatures.add(signature)
                targets[names.group(ingress, egress)] = f"goto {endpoint_chain(signature, place)}"
            elif place.real:
                targets[names.group(ingress, egress)] = "accept"
        if not targets and (not place.real or plan.default == "Allow"):
            return
        yield from self._endpoints(plan, known, signatures, place)
        by_link, by_address = _among(targets, groups.links), _among(targets, groups.addresses)
        links = bool(by_link) or (place.real and plan.default == "Deny")
        # what these send to links, on trial too, and what is of no group here
        slaves = bool(by_address) or (bool(plan.ipvlan) and (place.real or links))
        yield from _dispatching(place, groups, by_link, links=links, slaves=slaves)
        if slaves:
            yield from _dispatching_slaves(place, groups, by_address)
            yield from ipvlan.base_chains(place, links=links)

    def _host(
        self, plan: Plan, known: Membership, place: Place, *, forwarded: bool
    ) -> Iterator[tuple[str, Chain]]:
        """Of interfaces of the host. Where no policy selects one, all passes, whatever the node's
        default is: nobody is locked out by naming an interface."""
        targets: list[tuple[str, str]] = []
        signatures: set[Signature] = set()
        for host in plan.hosts:
            placed = host.forwarded if forwarded else host.own
            signature = _walked(plan, placed.of(place.direction), place)
            signatures |= {signature} if signature else set()
            target = f"goto {endpoint_chain(signature, place)}" if signature else "accept"
            targets.append((host.interface, target))
        if signatures:
            yield from self._endpoints(plan, known, signatures, place)
            first = failsafe_lines(place, plan.failsafe) if not forwarded else []
            if plan.ipvlan and not forwarded:
                first = [*ipvlan.not_of_host(place.direction), *first]
            yield host_base(place, forwarded=forwarded, first=first, targets=targets)
            if plan.ipvlan and forwarded:
                yield ipvlan.forwarded(place, targets)

    def _endpoints(
        self, plan: Plan, known: Membership, signatures: set[Signature], place: Place
    ) -> Iterator[tuple[str, Chain]]:
        for signature in signatures:
            yield (
                endpoint_chain(signature, place),
                chain(endpoint_lines(signature, plan.default, place)),
            )
        for step in {step for signature in signatures for step in signature}:
            yield from self._tier(plan, known, step, place)

    def _tier(
        self, plan: Plan, known: Membership, step: Step, place: Place
    ) -> Iterator[tuple[str, Chain]]:
        parts = [self._policy(plan.policies[name], known, place) for name in step.policies]
        for part in parts:
            yield from part.chains.items()
        some = [(part.policy, part.lines if part.inlined else None) for part in parts]
        yield tier_chain(step, place), chain(tier_lines(step, plan.tiers[step.tier], some, place))

    def _policy(self, policy: Policy, known: Membership, place: Place) -> _Of:
        state = _state(policy, known, place.direction)
        before = self._made.get((policy.name, place))
        if before is not None and before.policy == policy and before.known == state:
            return before
        lines = policy_lines(policy, place, known)
        chains = dict(denying_chains(policy, place, known))
        inlined = has_pass(policy, place.direction, known)
        if not inlined:
            chains[policy_chain(policy, place)] = chain(lines)
        made = self._made[policy.name, place] = _Of(policy, state, lines, inlined, chains)
        return made


def _groups(plan: Plan) -> _Groups:
    """Endpoints that were placed together share their signatures as objects, so that most are told
    apart without being compared."""
    by_id: dict[tuple[int, int], tuple[Placed, list[str], list[IPAddress]]] = {}
    for placed in plan.endpoints.values():
        key = id(placed.ingress), id(placed.egress)
        _, some, others = by_id.setdefault(key, (placed, [], []))
        if placed.link:
            some.append(placed.link)
        else:
            others.extend(placed.addresses)
    links: dict[_Pair, frozenset[str]] = {}
    addresses: dict[_Pair, frozenset[IPAddress]] = {}
    for placed, some, others in by_id.values():
        pair = placed.ingress, placed.egress
        if some:
            links[pair] = links.get(pair, frozenset()) | frozenset(some)
        if others:
            addresses[pair] = addresses.get(pair, frozenset()) | frozenset(others)
    return _Groups(links, addresses)


def _among(targets: Mapping[str, str], groups: Iterable[_Pair]) -> dict[str, str]:
    called = (names.group(*pair) for pair in groups)
    return {group: targets[group] for group in called if group in targets}


def _walked(plan: Plan, signature: Signature, place: Place) -> Signature:
    """What of a signature is walked there: without what is staged, or, on trial, with all of it
    if anything is."""
    staged = any(plan.policies[name].staged for step in signature for name in step.policies)
    if not place.real:
        return signature if staged else ()
    if not staged:
        return signature
    return kept(signature, lambda name: not plan.policies[name].staged)


def _state(policy: Policy, known: Membership, direction: Direction) -> tuple[object, ...]:
    """What of members decides on its rules: whether they were told, and whether there are nets."""
    found: list[object] = []
    for rule in policy.rules[direction]:
        for end in (rule.source, rule.destination):
            for text in (end.selector, end.not_selector):
                if text is not None:
                    one = known.selectors.get(text)
                    found.append(None if one is None else tuple(has_nets(one).values()))
            for port in (*end.ports, *end.not_ports):
                if isinstance(port, str):
                    found.append((port, end.selector or "") in known.ports)
    return tuple(found)


def _group_sets(groups: _Groups) -> dict[str, Set]:
    found = _filled(dispatch.LINKS, LINKS, groups.links)
    for by in dispatch.ADDRESSES:
        some = {
            pair: frozenset(str(one) for one in held if one.version == by.version)
            for pair, held in groups.addresses.items()
        }
        found.update(_filled(by, ADDRESSES[by.version], some))
    return found


def _filled(by: dispatch.By, kind: str, groups: Mapping[_Pair, frozenset[str]]) -> dict[str, Set]:
    bits = dispatch.depth(len(groups))
    found = {by.bit_set(place): Set(kind) for place in range(bits)}
    for pair, elements in groups.items():
        for name in by.sets_of(names.group(*pair), bits):
            before = found.get(name, Set(kind))
            found[name] = replace(before, elements=before.elements | elements)
    return found


def _dispatching(
    place: Place, groups: _Groups, targets: Mapping[str, str], *, links: bool, slaves: bool
) -> Iterator[tuple[str, Chain]]:
    """The base chains, and those from there to the endpoints' by links of ours."""
    root = place.name("links")
    last = [("counter drop", place.label("", "", names.UNKNOWN_LINK, counts=True))]
    key, bits = f"{KEYS[place.direction]}name", dispatch.depth(len(groups.links))
    if links:
        for name, lines in dispatch.LINKS.chains(root, key, targets, bits, last * place.real):
            yield name, chain(lines)
    onward = [(f"goto {root}", "links")] if links else []
    over = ipvlan.over_slaves(place) if slaves and place.direction is Direction.INGRESS else []
    if onward or over:
        yield from base_chains(place, onward, over)


def _dispatching_slaves(
    place: Place, groups: _Groups, targets: Mapping[str, str]
) -> Iterator[tuple[str, Chain]]:
    """Those by addresses of workloads of the ipvlan modes."""
    bits = dispatch.depth(len(groups.addresses))
    for by in dispatch.ADDRESSES:
        root, key = place.name(names.slaves(by.version)), ipvlan.key(by.version, place.direction)
        for name, lines in by.chains(root, key, targets, bits, ipvlan.last(by.version, place)):
            yield name, chain(lines)


def compiled(plan: Plan, known: Membership) -> Ruleset:
    """`Compiler().compile`, for once."""
    return Compiler().compile(plan, known)
