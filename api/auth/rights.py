"""Who may do what: a pure function, deny by default.

What somebody may do with a kind is a `Grant`: which of its objects it is for. Reads show those
alone; a write must leave an object that is covered, and find one. So whoever is allowed a part of
the objects moves nothing into it or out of it. A node's name comes from its credential, never from
the request's body.

    admin      everything
    operator   every kind but Role, which it only reads; bootstrap tokens; metrics
    viewer     reads every kind; metrics
    node       its own Node, blocks and workloads, as `_node` has it; what every node works from
    bootstrap  asks for the certificate of its node, once
    others     the rules of the Role of that name

Beside the kinds there are ``certificates``, ``bootstraps``, ``heartbeats``, ``ways`` (which way a
node has to an address: its agent is asked) and ``answers`` to such questions of nodes,
``credentials`` (of nodes and of people), ``renewals`` (the next certificate of a user: his own),
``metrics``, and ``selections``: the addresses that a selector stands for. Every node may follow any
of these, as any may be in a rule of a policy of its workloads; a Role gives no part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from api.auth.identity import ADMINISTRATOR, BOOTSTRAP, NODE, OPERATOR, VIEWER, Identity
from api.resources.questions import ANSWERS, WAYS
from api.resources.registry import KINDS

Document = dict[str, Any]
READS = frozenset(("get", "list", "watch"))
VERBS = READS | {"create", "update", "patch", "delete"}
# What decides for every node; there is no secret in it.
FOR_EVERY_NODE = (
    "ippools",
    "ipreservations",
    "addressleases",
    "bgppeers",
    "bgpconfigurations",
    "tiers",
    "networkpolicies",
)


@dataclass(frozen=True, slots=True)
class Grant:
    """Of one verb on one kind: for objects called `name`, with this `spec.node` ("": any), that
    pass `test`."""

    name: str = ""
    node: str = ""
    test: Callable[[Document], bool] | None = None

    @property
    def whole(self) -> bool:
        """For every object: none has to be looked at."""
        return not self.name and not self.node and self.test is None

    def covers(self, document: Document) -> bool:
        return (
            self.name in ("", _at(document, "metadata", "name"))
            and self.node in ("", _at(document, "spec", "node"))
            and (self.test is None or self.test(document))
        )


ALL = Grant()


def grant(who: Identity, verb: str, plural: str, *, status: bool = False) -> Grant | None:
    """What `who` may do `verb` with; None: with nothing. `status`: of the status subresource."""
    if who.role == ADMINISTRATOR:
        return ALL
    if (verb, plural) == ("create", "renewals") and who.role not in (NODE, BOOTSTRAP):
        return Grant(name=who.user) if who.role in (OPERATOR, VIEWER) or who.rules else None
    if (verb, plural) == ("get", WAYS):
        return ALL if who.role in (OPERATOR, VIEWER) else None
    if (verb, plural) == ("watch", "selections"):
        return ALL if who.role in (OPERATOR, VIEWER, NODE) else None
    if who.role in (OPERATOR, VIEWER):
        return ALL if _of_people(who.role, verb, plural) else None
    if who.role == NODE:
        return _node(who.node, verb, plural, status)
    if who.role == BOOTSTRAP:
        return Grant(name=who.node) if (verb, plural) == ("create", "certificates") else None
    return _ruled(who, verb, plural, status)


def _of_people(role: str, verb: str, plural: str) -> bool:
    if plural in KINDS:
        return verb in READS or (role == OPERATOR and plural != "roles")
    return (verb, plural) == ("get", "metrics") or (
        role == OPERATOR and (verb, plural) == ("create", "bootstraps")
    )


def _node(node: str, verb: str, plural: str, status: bool) -> Grant | None:
    """Its status is a node's to say, its spec, labels and ASN are an operator's: they decide which
    pools and peers it gets. So it registers itself with addresses alone, and changes nothing but
    status then."""
    changes = verb in ("update", "patch")
    if plural == "nodes":
        if verb == "create":
            return Grant(name=node, test=_registers)
        return Grant(name=node) if verb in READS or (status and changes) else None
    if plural == "ipblocks":
        mine = verb in READS or verb in ("create", "delete") or (status and changes)
        return Grant(node=node) if mine else None
    if plural == "hostendpoints":
        return Grant(node=node) if verb in READS else None
    if plural == "workloads":
        if verb in READS or (status and changes):
            return Grant(node=node)
        reports = verb in VERBS and not status
        return Grant(node=node, test=_node_born) if reports else None
    if plural in FOR_EVERY_NODE:
        return ALL if verb in READS else None
    asks = verb == "create" and plural in ("certificates", "heartbeats", ANSWERS)
    return Grant(name=node) if asks else None


def _ruled(who: Identity, verb: str, plural: str, status: bool) -> Grant | None:
    """Statuses are said by those who carry things out, and roles are given by administrators: no
    rule is for either."""
    writes = verb not in READS
    if plural not in KINDS or (writes and (status or plural == "roles")):
        return None
    found = [
        rule.matches
        for rule in who.rules
        if verb in rule.verbs and (rule.plurals is None or plural in rule.plurals)
    ]
    if not found:
        return None
    return Grant(test=lambda document: any(matches(_labels(document)) for matches in found))


def _registers(document: Document) -> bool:
    spec = document.get("spec") or {}
    return not (_labels(document) or spec.get("asNumber") or spec.get("unschedulable"))


def _node_born(document: Document) -> bool:
    return bool(_at(document, "spec", "origin") == "Node")


def _labels(document: Document) -> dict[str, str]:
    return _at(document, "metadata", "labels") or {}


def _at(document: Document, *path: str) -> Any:
    value: Any = document
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value
