"""Which next hop objects and groups the learned routes need, and how to get there.

Pure. A learned route does not name its gateways but a group (uapi/linux/nexthop.h), so that many
routes change their way together: when a gateway fails, deleting its next hop object takes it out of
every group at once, whatever the number of routes; the kernel itself does that when a link loses
its carrier, also while no agent runs. Adding a gateway again is one replaced group.

What a group means is what it holds, read back each time, not its id: after a gateway has gone, the
same group means the others, and if that is what its routes should use by now, nothing has to be
done. So of the routes of a group the most common wish decides what becomes of it, and only the
others are moved to another group.

Two things the kernel does must never hit routes that are wanted. It deletes a group that has lost
its last member, with all its routes; so a next hop that is the last one of any group is not deleted
before the group has others. A group of one therefore has a next hop object of its own, apart from
the one that groups of several share: otherwise one such group would keep its gateway in all.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from routed.kernel import messages as m
from routed.kernel.fib import Cell, Hop
from routed.kernel.netlink import attributes
from routed.state import (
    GROUP_IDS,
    LONE_NEXT_HOP_IDS,
    NEXT_HOP_IDS,
    ROUTE_PROTOCOL,
    LearnedRoute,
    NextHop,
)

Way = tuple[Hop, ...]  # what a route uses: gateways with their links, sorted
NOWHERE: Way = ()

_U32 = struct.Struct("=I")
_ENTRY = struct.Struct("=I4s")  # id; weight - 1 and what is reserved


@dataclass(slots=True)
class Objects:
    """A kernel's next hop objects: ours by id, and the ids that are taken by anybody.

    What has our marks but is not as we make it has no gateway, or no members.
    """

    hops: dict[int, Hop] = field(default_factory=dict)
    groups: dict[int, tuple[int, ...]] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)

    def way(self, group: int) -> Way:
        members = self.groups[group]
        if not all(member in self.hops for member in members):
            return NOWHERE
        return tuple(sorted(self.hops[member] for member in members))

    def find(self, hop: Hop, ids: range) -> int | None:
        return min((i for i, held in self.hops.items() if held == hop and i in ids), default=None)

    def free(self, ids: range) -> Iterator[int]:
        return (number for number in ids if number not in self.taken)


def objects(dumped: Iterable[bytes]) -> Objects:
    """What a dump of next hop objects says."""
    found = Objects()
    for data in dumped:
        parts = attributes(data, 8)
        (number,) = _U32.unpack(parts[m.NHA_ID])
        found.taken.add(number)
        if data[2] != ROUTE_PROTOCOL:
            continue
        if number in GROUP_IDS:
            entries = list(_ENTRY.iter_unpack(parts.get(m.NHA_GROUP, b"")))
            plain = all(rest == bytes(4) for _, rest in entries)
            found.groups[number] = tuple(member for member, _ in entries) if plain else ()
        elif number in NEXT_HOP_IDS or number in LONE_NEXT_HOP_IDS:
            odd = {m.NHA_GROUP, m.NHA_BLACKHOLE, m.NHA_ENCAP_TYPE, m.NHA_FDB} & parts.keys()
            gateway = b"" if odd else parts.get(m.NHA_GATEWAY, b"")
            index = _U32.unpack(parts[m.NHA_OIF])[0] if m.NHA_OIF in parts else 0
            found.hops[number] = (gateway, index)
    return found


def unwanted(held: Objects, routes: Iterable[LearnedRoute]) -> list[int]:
    """The next hop objects whose gateway none of `routes` uses, but for those that are all that a
    group has left: what its routes should use instead is not known yet."""
    left = {gateway for gateway, _ in held.hops.values()}
    last: tuple[NextHop, ...] = ()
    seen: set[int] = set()
    for route in routes:
        hops = route.next_hops
        if hops is last or id(hops) in seen:
            continue
        last = hops
        seen.add(id(hops))
        left.difference_update(hop.gateway.packed for hop in hops)
        if not left:
            return []
    gone = {number for number, (gateway, _) in held.hops.items() if gateway in left}
    for members in held.groups.values():
        if gone.issuperset(members):
            gone.difference_update(members)
    return sorted(gone)


@dataclass(slots=True)
class Arrangement:
    """What makes every route use what it should, in the order in which it has to be done.

    Nothing in between lets a route use what neither its old nor its new way has: routes that leave
    a group do so before it changes, to one that is as it will stay.
    """

    hops: dict[int, Hop] = field(default_factory=dict)  # to make
    groups: dict[int, tuple[int, ...]] = field(default_factory=dict)  # to make
    move: list[tuple[int, Cell]] = field(default_factory=list)  # to a group
    change: dict[int, tuple[int, ...]] = field(default_factory=dict)  # groups
    add: list[tuple[int, Cell]] = field(default_factory=list)  # to a group
    nowhere: list[Cell] = field(default_factory=list)  # without any usable next hop
    idle_groups: list[int] = field(default_factory=list)
    idle_hops: list[int] = field(default_factory=list)


def way_of(hops: Iterable[NextHop], usable: Mapping[NextHop, Hop]) -> Way:
    return tuple(sorted({usable[hop] for hop in hops if hop in usable}))


def arrange(
    cells: Iterable[Cell],
    held: Objects,
    usable: Mapping[NextHop, Hop],
    kept: Iterable[int],
    *,
    sweep: bool,
) -> Arrangement:
    """What to do for the routes of `cells`, whose next hops are where `usable` says.

    `kept` are groups with other routes, which are to stay just as they are; without `sweep` so are
    the routes that have no usable next hop any more.
    """
    found = Arrangement()
    make = _Make(held, found)
    used = held.groups.keys() & set(kept)
    wishes: list[tuple[Cell, Way]] = []
    for cell in cells:
        way = way_of(cell.hops, usable)
        if way:
            wishes.append((cell, way))
            continue
        found.nowhere.append(cell)
        if cell.shape is not None and not sweep:
            used |= held.groups.keys() & {cell.shape.group}
    now = {group: held.way(group) for group in sorted(held.groups, reverse=True)}
    then = now | _decided(wishes, now.keys() - used)
    staying = {way: group for group, way in now.items() if then[group] == way}
    for cell, way in wishes:
        if cell.shape is None:
            continue
        group = cell.shape.group
        if then.get(group) != way:
            if way not in staying:
                staying[way] = make.group(way)
            group = staying[way]
            found.move.append((group, cell))
        used.add(group)
    found.change = {group: make.members(then[group]) for group in now if then[group] != now[group]}
    homes = {way: group for group, way in then.items()} | staying
    for cell, way in wishes:
        if cell.shape is None:
            if way not in homes:
                homes[way] = make.group(way)
            found.add.append((homes[way], cell))
            used.add(homes[way])
    members = held.groups | found.groups | found.change
    needed = {member for group in used for member in members[group]}
    found.idle_groups = sorted(held.groups.keys() - used)
    found.idle_hops = sorted(held.hops.keys() - needed)
    return found


def _decided(wishes: Iterable[tuple[Cell, Way]], groups: Collection[int]) -> dict[int, Way]:
    """What most routes of each of `groups` should use."""
    votes: dict[int, Counter[Way]] = defaultdict(Counter)
    for cell, way in wishes:
        if cell.shape is not None and cell.shape.group in groups:
            votes[cell.shape.group][way] += len(cell.addresses)
    return {group: max(sorted(found), key=found.__getitem__) for group, found in votes.items()}


class _Make:
    """Ids for what has to be made, noted in an arrangement."""

    def __init__(self, held: Objects, noted: Arrangement) -> None:
        self._held = held
        self._noted = noted
        self._free = {ids: held.free(ids) for ids in (NEXT_HOP_IDS, LONE_NEXT_HOP_IDS, GROUP_IDS)}
        self._made: dict[tuple[Hop, range], int] = {}

    def members(self, way: Way) -> tuple[int, ...]:
        ids = NEXT_HOP_IDS if len(way) > 1 else LONE_NEXT_HOP_IDS
        return tuple(self._member(hop, ids) for hop in way)

    def group(self, way: Way) -> int:
        number = next(self._free[GROUP_IDS])
        self._noted.groups[number] = self.members(way)
        return number

    def _member(self, hop: Hop, ids: range) -> int:
        number = self._made.get((hop, ids))
        if number is None:
            number = self._held.find(hop, ids)
            if number is None:
                number = next(self._free[ids])
                self._noted.hops[number] = hop
            self._made[hop, ids] = number
        return number
