"""What the store holds, at one revision, in memory: the objects' bytes and what is decided from.

A pure value but for `apply`, which takes it one change further. Objects stay bytes; of the few
facts that decisions rest on (who owns which block, which workload has which address, which ASN
is used) there are indexes, so that no request looks at every object.

`World.put` returns what was there before, so that a turn can decide each request on what the ones
before it would leave, and take all of that back (api.service.turns).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from sys import intern
from typing import Any, TypeVar

from api.auth import bootstrap, credentials
from api.auth.credentials import Credentials
from api.auth.identity import Identity, of_document
from api.ipam.space import Held, Space
from api.resources.ippool import IPPool
from api.resources.net import IPAddress, IPNetwork, parse_address, parse_cidr
from api.resources.reading import Unreadable, read
from api.resources.registry import KINDS
from api.service.collection import Table
from api.store import Event, Item


@dataclass(frozen=True, slots=True)
class NodeFact:
    labels: dict[str, str]
    as_number: int | None


@dataclass(frozen=True, slots=True)
class Reservation:
    cidrs: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    address: IPAddress


@dataclass(frozen=True, slots=True)
class Use:
    """The addresses, as text, that a workload asks for or has."""

    node: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hosted:
    """Of what nothing is decided about; its node selects it."""

    node: str


Fact = IPPool | Held | NodeFact | Reservation | Lease | Use | Hosted | credentials.Fact
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Change:
    """One object's change; `node_before` and `node_after` are its spec.node, where it has one."""

    plural: str
    name: str
    revision: int
    before: Item | None
    after: Item | None
    node_before: str
    node_after: str


class World:
    """The facts."""

    def __init__(self) -> None:
        self.space = Space()
        self.credentials = Credentials()
        self.nodes: dict[str, NodeFact] = {}
        self.leases: dict[str, Lease] = {}
        self.asns: dict[int, tuple[str, ...]] = {}  # mostly of one: a set takes more room
        self.workloads: dict[str, Use] = {}
        self.users: dict[str, tuple[str, ...]] = {}  # by address, the workloads that name it

    def put(self, plural: str, name: str, fact: Fact | None) -> Fact | None:
        """Have `fact` in place (None: nothing); what was there."""
        before: Fact | None = None
        if plural == "ipblocks":
            before = self.space.blocks.get(name)
            self.space.set_block(name, fact if isinstance(fact, Held) else None)
        elif plural == "ippools":
            before = self.space.pools.get(name)
            self.space.set_pool(name, fact if isinstance(fact, IPPool) else None)
        elif plural == "ipreservations":
            held = self.space.reserved.by_name.get(name)
            before = None if held is None else Reservation(held)
            self.space.set_reservation(name, fact.cidrs if isinstance(fact, Reservation) else None)
        elif plural == "addressleases":
            before = self.leases.pop(name, None)
            if isinstance(before, Lease):
                self.space.set_lease(before.address, None)
            if isinstance(fact, Lease):
                self.leases[name] = fact
                self.space.set_lease(fact.address, name)
        elif plural == "nodes":
            before = self.nodes.pop(name, None)
            _move(self.asns, name, _asns(before), _asns(fact))
            if isinstance(fact, NodeFact):
                self.nodes[name] = fact
        elif plural == "workloads":
            before = self.workloads.pop(name, None)
            _move(self.users, name, _addresses(before), _addresses(fact))
            if isinstance(fact, Use):
                self.workloads[name] = fact
        elif plural in credentials.PLURALS:
            before = self.credentials.put(plural, name, fact)
        return before


class State:
    """Everything, at `revision`."""

    def __init__(self, revision: int, items: Iterable[Item]) -> None:
        self.revision = revision
        self.world = World()
        self.decided: dict[str, tuple[bytes, Fact | None]] = {}  # by the last turn, by key
        self._tables: dict[str, Table] = {}
        for item in items:
            self.apply(Event(item.key, item.revision, item.created, item.value, None))
        self.revision = revision

    def table(self, plural: str) -> Table:
        table = self._tables.get(plural)
        if table is None:
            table = self._tables[plural] = Table()
        return table

    def item(self, plural: str, name: str) -> Item | None:
        return self.table(plural).items.get(name)

    def revision_of(self, key: str) -> int:
        """0: it is absent."""
        plural, name = split(key)
        item = self.item(plural, name)
        return item.revision if item else 0

    def credentials_of(self, identity: Identity) -> list[str]:
        """The keys of all that it has to show who it is, or, of a node, to become so."""
        known = self.world.credentials
        keys = [identity.key] if identity.user in known.identities else []
        keys += [f"/tokens/{hashed}" for hashed in known.tokens_of(identity.user)]
        if identity.node:
            keys += [bootstrap.PREFIX + hashed for hashed in known.bootstraps_of(identity.node)]
        return keys

    def apply(self, event: Event) -> Change:
        """Take in the next change."""
        plural, name = split(event.key)
        item, fact = None, None
        if event.value is not None:
            item = Item(event.key, event.value, event.revision, event.created)
            value, fact = self.decided.pop(event.key, (b"", None))
            if value != event.value and plural in _FACTS:  # else it is ours, and known
                fact = fact_of(plural, json.loads(event.value))
        node = fact.node if isinstance(fact, Held | Use | Hosted) else ""
        self.world.put(plural, name, fact)
        before, node_before = self.table(plural).put(name, item, node)
        self.revision = event.revision
        return Change(plural, name, event.revision, before, item, node_before, node)


def split(key: str) -> tuple[str, str]:
    """``/ipblocks/a`` is ipblocks, a."""
    plural, _, name = key[1:].partition("/")
    return plural, name


def fact_of(plural: str, document: dict[str, Any]) -> Fact | None:
    """What decisions need of an object of the store."""
    make = _FACTS.get(plural)
    return make(document) if make else None


def _held(document: dict[str, Any]) -> Held:
    spec = document["spec"]
    return Held(parse_cidr(spec["cidr"]), spec["pool"], spec["node"])


def _pool(document: dict[str, Any]) -> IPPool:
    """Without what a newer service may have written into it: claims need the rest of it. Where they
    need what this one cannot read, the pool is one that nobody claims of here."""
    spec = document["spec"]
    metadata = {"name": document["metadata"]["name"]}
    try:
        return read(IPPool, {"metadata": metadata, "spec": spec})
    except Unreadable:
        known = {"cidr": spec["cidr"], "blockSize": spec.get("blockSize"), "disabled": True}
        return read(IPPool, {"metadata": metadata, "spec": known})


def _use(document: dict[str, Any]) -> Use:
    spec, status = document["spec"], document.get("status", {})
    asked, has = spec.get("addresses", ()), status.get("addresses", ())
    return Use(intern(spec["node"]), tuple(dict.fromkeys((*asked, *has))))


def _node(document: dict[str, Any]) -> NodeFact:
    return NodeFact(document["metadata"].get("labels", {}), document["spec"].get("asNumber"))


def _lease(document: dict[str, Any]) -> Lease:
    return Lease(parse_address(document["spec"]["address"]))


def _reservation(document: dict[str, Any]) -> Reservation:
    return Reservation(tuple(parse_cidr(cidr) for cidr in document["spec"]["reservedCIDRs"]))


def _hosted(document: dict[str, Any]) -> Hosted:
    return Hosted(intern(document["spec"]["node"]))


_FACTS: dict[str, Callable[[dict[str, Any]], Fact]] = {
    "addressleases": _lease,
    "bootstraps": bootstrap.of_document,
    "hostendpoints": _hosted,
    "identities": of_document,
    "ipblocks": _held,
    "ippools": _pool,
    "ipreservations": _reservation,
    "nodes": _node,
    "roles": credentials.rules_of,
    "tokens": credentials.token_of,
    "workloads": _use,
}
for _kind in KINDS.values():
    if "spec.node" in _kind.selectable:
        _FACTS.setdefault(_kind.plural, _hosted)


def _addresses(fact: Fact | None) -> tuple[str, ...]:
    return fact.addresses if isinstance(fact, Use) else ()


def _asns(fact: Fact | None) -> tuple[int, ...]:
    return (fact.as_number,) if isinstance(fact, NodeFact) and fact.as_number else ()


def _move(
    index: dict[K, tuple[str, ...]], name: str, before: tuple[K, ...], after: tuple[K, ...]
) -> None:
    """`name` is under each of `after`, and no more under any other of `before`."""
    if before == after:
        return
    for value in before:
        rest = tuple(other for other in index[value] if other != name)
        if rest:
            index[value] = rest
        else:
            del index[value]
    for value in after:
        index[value] = (*index.get(value, ()), name)
