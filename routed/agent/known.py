"""What the service has shown this node: every object, by kind and name. No I/O.

A watch begins with the full set, which grows aside and replaces what was held only when its end is
there, so a half-read service never looks like deletions. What we have written ourselves is merged
at once, by resourceVersion, so that a block just claimed can be used before the watch shows it.

Answers and events come over several connections, so an older one may come later: the revision of
every deletion is remembered for a while, and nothing older brings the object back.

An object that a newer service shows in a way that this release cannot read stays as it was last
understood, if need be by an earlier agent, whose copy is on disk; one that never was is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from api.client import Unread, WatchEvent
from api.resources import (
    AddressLease,
    BGPConfiguration,
    BGPPeer,
    HostEndpoint,
    IPBlock,
    IPPool,
    IPReservation,
    NetworkPolicy,
    Node,
    Tier,
    Workload,
)
from api.resources.meta import Resource
from api.resources.registry import by_kind
from routed.agent.intent import WATCHED, Intent, apart, decides

GRAVES = 4096  # deletions remembered


@dataclass(slots=True)
class Change:
    """What an event changed: `names` of workloads, and whether anything that decides did."""

    names: set[str]
    decides: bool = False
    anything: bool = False


class Known:
    """`whole` are the kinds whose set is whole on their present connection, `seen` those that
    were once since this process began; `told` counts the objects that each has shown. `unread` says
    why objects could not be read, by kind and name; `stored` are those of the copy on disk."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.objects: dict[str, dict[str, Resource]] = {plural: {} for plural in WATCHED}
        self.declared: dict[str, Workload] = {}
        self.reports: dict[str, Workload] = {}
        self.whole: set[str] = set()
        self.seen: set[str] = set()
        self.told = dict.fromkeys(WATCHED, 0)
        self.unread: dict[tuple[str, str], str] = {}
        self.stored: Mapping[str, Mapping[str, Resource]] = {}
        self._growing: dict[str, dict[str, Resource]] = {}
        self._merged: set[tuple[str, str]] = set()
        self._gone: dict[tuple[str, str], int] = {}

    @property
    def complete(self) -> bool:
        """Every kind was whole once: what is known is what there is, however old."""
        return len(self.seen) == len(WATCHED)

    @property
    def in_sync(self) -> bool:
        return len(self.whole) == len(WATCHED)

    def lost(self, plural: str) -> None:
        """The watch of `plural` has ended; what it showed last stays."""
        self.whole.discard(plural)
        self._growing.pop(plural, None)

    def keep(self, plural: str) -> Change:
        """This service does not show `plural`: what was known of it last, if need be by an earlier
        agent, is what there is."""
        held = self.objects[plural] if plural in self.seen else self.stored.get(plural, {})
        self._growing[plural] = dict(held)
        return self.take(plural, WatchEvent("END"))

    def take(self, plural: str, event: WatchEvent) -> Change:
        """One event of a watch."""
        change = Change(set())
        self.told[plural] += event.object is not None
        if event.type == "BEGIN":
            self._growing[plural] = {}
            self.unread = {key: why for key, why in self.unread.items() if key[0] != plural}
        elif event.type == "END":
            self._finish_set(plural, change)
        elif isinstance(event.object, Unread):
            self._one_unread(plural, event.type, event.object, change)
        elif event.object is not None:
            self._one(plural, event.type, event.object, change)
        return change

    def merge(self, held: Resource) -> Change:
        """Take in an object that the service has just answered with."""
        change, plural = Change(set()), plural_of(held)
        known = self.objects[plural].get(held.metadata.name)
        if not self._is_gone(held) and (known is None or revision(held) > revision(known)):
            self._put(plural, held.metadata.name, held, change)
            self._merged.add((plural, held.metadata.name))
        return change

    def drop(self, plural: str, name: str) -> Change:
        """Forget an object that we have just deleted."""
        change, held = Change(set()), self.objects[plural].get(name)
        if held is not None:
            self._bury(held)
            self._put(plural, name, None, change)
        return change

    def intent(self) -> Intent:
        """What decides, as of now: later changes do not change it."""
        held = self.objects
        nodes = cast("dict[str, Node]", held["nodes"])
        configurations = cast("dict[str, BGPConfiguration]", held["bgpconfigurations"])
        return Intent(
            node_name=self.node,
            node=nodes.get(self.node),
            pools=dict(cast("dict[str, IPPool]", held["ippools"])),
            blocks=dict(self.blocks),
            declared=dict(self.declared),
            peers=dict(cast("dict[str, BGPPeer]", held["bgppeers"])),
            bgp=configurations.get("default"),
            leases=dict(cast("dict[str, AddressLease]", held["addressleases"])),
            reservations=dict(cast("dict[str, IPReservation]", held["ipreservations"])),
            tiers=dict(cast("dict[str, Tier]", held["tiers"])),
            policies=dict(cast("dict[str, NetworkPolicy]", held["networkpolicies"])),
            host_endpoints=dict(cast("dict[str, HostEndpoint]", held["hostendpoints"])),
        )

    @property
    def blocks(self) -> dict[str, IPBlock]:
        """Our blocks with their newest status; to be read only."""
        return cast("dict[str, IPBlock]", self.objects["ipblocks"])

    @property
    def own_node(self) -> Node | None:
        return cast("dict[str, Node]", self.objects["nodes"]).get(self.node)

    def _one_unread(self, plural: str, kind: str, held: Unread, change: Change) -> None:
        """As it was last understood; what is deleted is so without being understood."""
        known = self.objects[plural].get(held.name) or self.stored.get(plural, {}).get(held.name)
        last = known if known is not None and known.metadata.uid == held.uid else None
        if kind == "DELETED":
            self.unread.pop((plural, held.name), None)
            if last is not None:
                version = {"resource_version": held.revision}
                metadata = last.metadata.model_copy(update=version)
                last = last.model_copy(update={"metadata": metadata})
        else:
            self.unread[plural, held.name] = held.why
            change.anything = True
        if last is not None:
            self._one(plural, kind, last, change, understood=False)

    def _one(
        self, plural: str, kind: str, held: Resource, change: Change, *, understood: bool = True
    ) -> None:
        name = held.metadata.name
        if understood:
            self.unread.pop((plural, name), None)
        growing = self._growing.get(plural)
        if kind == "DELETED":
            self._bury(held)
        if growing is not None:
            if kind == "DELETED":
                growing.pop(name, None)
            else:
                growing[name] = held
            return
        known = self.objects[plural].get(name)
        if kind == "DELETED":
            if known is not None:
                self._put(plural, name, None, change)
        elif not self._is_gone(held) and (known is None or revision(held) > revision(known)):
            self._put(plural, name, held, change)

    def _finish_set(self, plural: str, change: Change) -> None:
        """The whole set is here: it replaces what was held, except what we merged since."""
        growing, before = self._growing.pop(plural, {}), self.objects[plural]
        newest = max((revision(held) for held in growing.values()), default=0)
        for name, held in before.items():
            if (plural, name) in self._merged and revision(held) > newest and name not in growing:
                growing[name] = held
        self._merged = {entry for entry in self._merged if entry[0] != plural}
        for name in before.keys() | growing.keys():
            old, new = before.get(name), growing.get(name)
            if old is None or new is None or revision(old) != revision(new):
                self._note(name, old, new, change)
        self.objects[plural] = growing
        if plural == "workloads":
            self.declared, self.reports = apart(cast("dict[str, Workload]", growing))
        self.whole.add(plural)
        self.seen.add(plural)

    def _put(self, plural: str, name: str, held: Resource | None, change: Change) -> None:
        objects = self.objects[plural]
        self._note(name, objects.get(name), held, change)
        for place in (self.declared, self.reports) if plural == "workloads" else ():
            place.pop(name, None)
        if held is None:
            objects.pop(name, None)
            return
        objects[name] = held
        if isinstance(held, Workload):
            declared, reports = apart({name: held})
            self.declared |= declared
            self.reports |= reports

    @staticmethod
    def _note(name: str, old: Resource | None, new: Resource | None, change: Change) -> None:
        change.anything = True
        if isinstance(old or new, Workload):
            change.names.add(name)
        change.decides = change.decides or decides(old, new)

    def _bury(self, held: Resource) -> None:
        self._gone[(plural_of(held), held.metadata.name)] = revision(held)
        while len(self._gone) > GRAVES:
            del self._gone[next(iter(self._gone))]

    def _is_gone(self, held: Resource) -> bool:
        return revision(held) <= self._gone.get((plural_of(held), held.metadata.name), -1)


def revision(held: Resource) -> int:
    return int(held.metadata.resource_version or 0)


def plural_of(held: Resource) -> str:
    kind = by_kind(held.KIND)
    assert kind is not None
    return kind.plural
