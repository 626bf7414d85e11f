"""Policies in effect on this host: what is to be in the filter, worked out of intent, of what is
attached here and of what was told of members; and what is said of it. No I/O.

Policies and tiers are intent, so they hold while the service is away, from the first round of a new
agent on. A rule whose members were never told fails closed (docs/policy.md), and the Node says
which policy waits for what. A policy that selects a workload of mode ipvlan-l3 cannot be enforced:
such a workload is refused, unless the settings allow it, and one that is attached already says so.
One of ipvlan-l3s says so of its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

from api.client.selections import Subject
from api.resources import Condition
from api.resources.errors import Cause, Conflict
from api.resources.net import IPAddress
from api.resources.selectors import parse
from api.resources.workload import IPVLAN, Mode
from policies.failsafe import NO_FAILSAFE, Failsafe
from policies.model import (
    NOTHING_TOLD,
    Direction,
    Endpoint,
    Ipvlan,
    Membership,
    Needs,
    Placed,
    Plan,
    Step,
    rule_needs,
)
from policies.plan import Order
from routed.agent import hosts
from routed.agent.attachment import Attachment
from routed.agent.intent import Intent
from routed.agent.members import Own, endpoint_of, enforced, held_of, ipvlan, unknown
from routed.agent.modes import GATEWAYS
from routed.agent.told import Delta, Known, Member, address_of

MOST = 5  # policies named in a message


@dataclass(frozen=True, slots=True)
class Wanted:
    """Who passes which policies, and whom these are about."""

    plan: Plan = field(default_factory=Plan)
    membership: Membership = NOTHING_TOLD

    def __bool__(self) -> bool:
        """Whether there is anything to filter."""
        return bool(self.plan.hosts or self.plan.ipvlan) or self.of_workloads

    @property
    def of_workloads(self) -> bool:
        """Whether any workload's link is filtered."""
        plan = self.plan
        placed = any(one.ingress or one.egress for one in plan.endpoints.values())
        return placed or (plan.default == "Deny" and bool(plan.endpoints))

    def each(self) -> Iterator[tuple[str, Wanted]]:
        """Each policy that is for somebody here, as if it were the only one."""
        for name in sorted(self.plan.used(*Direction)):
            policy = self.plan.policies[name]
            step = (Step(policy.tier, (name,)),)
            ingress, egress = (step if one in policy.rules else () for one in Direction)
            alone = {name: Placed("rt", ingress, egress)}
            yield name, replace(self, plan=replace(self.plan, endpoints=alone, hosts=()))


class Move(NamedTuple):
    """What comes to what a selector, or a port's name, stands for, and what goes."""

    subject: Subject
    add: frozenset[Member]
    gone: frozenset[Member]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A workload that comes or goes: which policies it passes, and what its addresses are to the
    selectors that are needed. `beside`: what of the ipvlan modes comes or goes with it. `free`:
    nothing that it sends or is sent is looked at."""

    placed: Placed
    moves: tuple[Move, ...]
    beside: Ipvlan
    free: bool


class Enforcement:
    """`wanted` is what has to be in effect as of the last look; `missing` what was never told of
    what it needs. `unplaced`: why host endpoints that policies select are of no interface."""

    def __init__(
        self,
        default: Literal["Allow", "Deny"],
        *,
        allow_unenforced: bool,
        failsafe: Failsafe = NO_FAILSAFE,
    ) -> None:
        self.default = default
        self.failsafe = failsafe
        self.allow_unenforced = allow_unenforced
        self.wanted = Wanted()
        self.needs = Needs()
        self.missing = Needs()
        self.unplaced: dict[str, str] = {}
        self._named: frozenset[IPAddress] = frozenset()  # that names of ports stand for
        self._ordered: tuple[Intent | None, Order] = None, Order((), ())

    def order(self, intent: Intent | None) -> Order:
        """Tiers and policies as they are declared now. Asked for in the loop and in the filter's
        thread at a time: an order is kept together with what it is of."""
        before, order = self._ordered
        if intent is not None and intent is not before:
            same = before is not None and (before.tiers, before.policies) == (
                intent.tiers,
                intent.policies,
            )
            if not same:
                order = Order(intent.tiers.values(), intent.policies.values())
            self._ordered = intent, order
        return order

    def anything(self, intent: Intent | None) -> bool:
        """Whether there is anything that could have to be filtered here."""
        return self.default == "Deny" or (intent is not None and bool(intent.policies))

    def look(
        self,
        intent: Intent,
        records: Mapping[str, Attachment],
        told: Mapping[Subject, Known],
        names: Mapping[IPAddress, str] = MappingProxyType({}),
    ) -> None:
        """Work it out anew. `names`: the interface of the host that has an address."""
        beside = ipvlan(records.values())
        held = records.values() if self.anything(intent) else ()
        order = self.order(intent)
        interfaces, without = hosts.placed(intent.host_endpoints, names)
        plan = order.plan(enforced(held), self.default, interfaces, self.failsafe, beside)
        self.unplaced = {
            name: why
            for name, why in without.items()
            if _selected(order, name, intent.host_endpoints[name].metadata.labels)
        }
        self.needs = plan.needs()
        self.missing = unknown(self.needs, told)
        own = Own(held if self.needs.selectors or self.needs.ports else ())
        wanted = Wanted(plan, own.membership(self.needs, told))
        if wanted != self.wanted:  # one that is the same is known by being the same object
            self.wanted = wanted
            named = wanted.membership.ports.values()
            self._named = frozenset(address for some in named for address, _, _ in some)

    def arrival(
        self,
        intent: Intent,
        record: Attachment,
        told: Mapping[Subject, Known],
        *,
        leaving: bool = False,
        neighbours: bool = False,
    ) -> Arrival | None:
        """What its coming, or its leaving, changes; None: more than can be said so. `neighbours`:
        others are on its parent."""
        names = {port.name for port in record.ports} - {""}
        if names & {name for name, _ in self.needs.ports} or record.mode not in GATEWAYS | IPVLAN:
            return None
        addresses, moves = frozenset(record.addresses), []
        if addresses & self._named:  # of who had them before
            return None
        for text in self.needs.selectors & told.keys():
            if leaving:
                after = addresses & told[text].entries.addresses
            else:
                after = addresses if parse(text).matches(record.labels) else frozenset()
            # whatever is there now: what was told last may not be in the table yet
            moves.append(Move(text, after, addresses - after))
        placed = self.order(intent).place(endpoint_of(record))
        beside = ipvlan([record])
        if leaving and neighbours:
            beside = replace(beside, parents=frozenset())
        free = self.default == "Allow" and not (placed.ingress or placed.egress or beside)
        return Arrival(placed, tuple(moves), beside, free)

    def moves(
        self, records: Iterable[Attachment], told: Mapping[Subject, Delta | None]
    ) -> list[Move] | None:
        """What was told of changes, as far as it is not about workloads of this host; None: more
        than can be said so."""
        held, unsure = held_of(records)
        found = []
        for subject, delta in told.items():
            if delta is None or any(address_of(one) in unsure for one in delta.add | delta.gone):
                return None
            if subject in self.needs.selectors or subject in self.needs.ports:
                add, gone = (
                    frozenset(one for one in some if address_of(one) not in held)
                    for some in (delta.add, delta.gone)
                )
                found.append(Move(subject, add, gone))
                if not isinstance(subject, str):
                    self._named |= frozenset(map(address_of, add))
        return found

    def selecting(self, intent: Intent | None, record: Attachment) -> list[str]:
        """The policies, not staged, that select it, by name."""
        order = self.order(intent)
        placed = order.place(endpoint_of(record))
        return sorted(
            {
                name
                for step in (*placed.ingress, *placed.egress)
                for name in step.policies
                if not order.policies[name].staged
            }
        )

    def unenforced(self, intent: Intent | None, record: Attachment) -> list[str]:
        """The policies that select it and that nobody can enforce."""
        return self.selecting(intent, record) if record.mode is Mode.IPVLAN_L3 else []

    def against(self, intent: Intent | None, record: Attachment) -> Conflict | None:
        """Why it is not attached, if policies are why."""
        names = [] if self.allow_unenforced else self.unenforced(intent, record)
        if not names:
            return None
        said = (
            f"mode {record.mode}: {', '.join(names[:MOST])} would not be enforced; use mode veth "
            "or ipvlan-l3s, or set allowUnenforcedPolicies in the agent's settings"
        )
        return Conflict(f"cannot attach {record.name}: {said}", causes=[Cause("mode", said)])

    def absent(self, intent: Intent | None, missing: Mapping[str, str]) -> dict[str, str]:
        """Why host endpoints that policies select have no interface now, of those `missing`."""
        held = intent.host_endpoints if intent is not None else {}
        order = self.order(intent)
        return {
            name: missing[interface]
            for name, one in sorted(held.items())
            if (interface := one.spec.interface_name) in missing and interface is not None
            if name not in self.unplaced and _selected(order, name, one.metadata.labels)
        }

    def waiting(self) -> dict[str, list[str]]:
        """What was never told of what each policy in effect here needs, by its name."""
        if not (self.missing.selectors or self.missing.ports):
            return {}
        found: dict[str, list[str]] = {}
        plan, missing = self.wanted.plan, self.missing  # the filter's thread may bring others
        for name in sorted(plan.used(*Direction)):
            for rules in plan.policies[name].rules.values():
                for needs in map(rule_needs, rules):
                    lacks = [repr(one) for one in needs.selectors & missing.selectors]
                    lacks += [f"port {port!r}" for port, _ in needs.ports & missing.ports]
                    found.setdefault(name, []).extend(lacks)
        return {name: sorted(set(lacks)) for name, lacks in found.items() if lacks}


def _selected(order: Order, name: str, labels: Mapping[str, str]) -> bool:
    placed = order.place(Endpoint(name, labels))
    return bool(placed.ingress or placed.egress)


def condition(
    refused: object,
    blamed: list[str],
    waiting: Mapping[str, list[str]],
    problem: str,
    untold: str,
    unenforced: Mapping[str, list[str]],
    unseen: Mapping[str, list[str]],
    unplaced: Mapping[str, str],
    absent: Mapping[str, str],
    unread: Mapping[tuple[str, str], str],
) -> Condition:
    """Of the Node: what is not in effect as it is declared. `refused`: why the rules stay as they
    were, `blamed`: because of which policies; `problem`: why nothing is told, `untold`: why the
    service will not; `unenforced`: policies by workload, `unseen`: those that do not hold towards
    its neighbours; `unplaced`: why host endpoints are of no interface; `absent`: why theirs is not
    there, which is in effect all the same once it is."""
    because = f" ({problem})" if problem else ""
    waits = [
        f"{name} waits for the members of {', '.join(lacks)}" for name, lacks in waiting.items()
    ]
    kinds = ("tiers", "networkpolicies", "hostendpoints")
    reasons = [
        (
            "RulesRefused",
            [f"{', '.join(blamed)}: {refused}; what was before stays"] if refused else [],
        ),
        (
            "PoliciesUnread",
            [f"{name}: {why}" for (kind, name), why in unread.items() if kind in kinds],
        ),
        ("MembersRefused", [f"members stay as they were told last: {untold}"] if untold else []),
        ("MembersUnknown", [f"{_some(waits)}{because}"] if waits else []),
        (
            "NotEnforceable",
            [
                f"{workload} is selected by {', '.join(names[:MOST])}, which its mode leaves out"
                for workload, names in unenforced.items()
            ],
        ),
        (
            "NeighboursUnseen",
            [
                f"{workload} is selected by {', '.join(names[:MOST])}, which leaves out what it "
                "and others on its parent say to each other"
                for workload, names in unseen.items()
            ],
        ),
        ("InterfaceUnknown", [f"HostEndpoint {name}: {why}" for name, why in unplaced.items()]),
    ]
    found = [(reason, _some(said)) for reason, said in reasons if said]
    notes = [f"HostEndpoint {name}: {why}" for name, why in absent.items()]
    return Condition(
        type="PoliciesEnforced",
        status="False" if found else "True",
        reason=found[0][0] if found else "AllEnforced",
        message="; ".join([said for _, said in found] + ([_some(notes)] if notes else [])),
    )


def _some(said: list[str]) -> str:
    more = [f"and {len(said) - MOST} more"] if len(said) > MOST else []
    return "; ".join([*said[:MOST], *more])
