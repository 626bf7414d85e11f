"""Routes by the hundred thousand: read and compared as bytes, not as objects.

Pure. Almost all of a route message is the same for all routes over the same next hops, so what is
not the address is decoded once for each distinct text (`Shape`), and a table is a dict from level
(family, length, metric: `routed.state.level`) and address to shape. Nothing here costs an object or
a Python statement for each route where all of a buffer are alike, which is what makes the figures
of benchmarks/routes.py.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from itertools import chain

from api.resources.net import IPNetwork
from routed.kernel import messages as m
from routed.kernel.netlink import attributes, walk
from routed.state import LearnedRoute, NextHop

Hop = tuple[bytes, int]  # gateway (empty: none), interface index

_U32 = struct.Struct("=I")
_NEXTHOP = struct.Struct("=HBBi")
_TABLE = struct.pack("=HH", 8, m.RTA_TABLE)
_ADDRESS_AT = 16 + 12 + 8 + 4  # behind the headers of netlink and route, the table, the attribute


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything of a route but its destination; `hops` are sorted, `group` is the id of its next
    hop object, 0 if it has none."""

    kind: int
    protocol: int
    metric: int
    group: int
    hops: tuple[Hop, ...]

    @property
    def device(self) -> int | None:
        """The interface of a route without a gateway, None for any other route."""
        if self.kind == m.RTN_UNICAST and not self.learned and len(self.hops) == 1:
            return self.hops[0][1]
        return None

    @property
    def learned(self) -> bool:
        """Whether it leads over gateways, which of our routes the learned ones do."""
        return bool(self.group or (self.hops and self.hops[0][0]))


Key = tuple[bytes, bytes]  # level, address
Table = dict[bytes, dict[bytes, Shape]]  # by level, by address


@dataclass(slots=True)
class Routes:
    """The routes of a table: those over gateways by level and address, the others by both.

    Of two with one key the first counts: it is the one that the kernel uses, and the one that a
    replacing request would hit.
    """

    learned: Table = field(default_factory=dict)
    local: dict[Key, Shape] = field(default_factory=dict)

    def destinations(self) -> set[bytes]:
        learned = ((level, one) for level, some in self.learned.items() for one in some)
        return {destination(key) for key in chain(self.local, learned)}


@dataclass(slots=True, eq=False)
class Cell:
    """Desired routes of one level over the same next hops, which the kernel has in the same shape
    (None: which it has not), by their addresses."""

    level: bytes
    hops: tuple[NextHop, ...]
    shape: Shape | None
    addresses: list[bytes] = field(default_factory=list)


def destination(key: Key) -> bytes:
    """As `routed.state.destination`."""
    return key[0][:2] + key[1]


def network(level: bytes, address: bytes) -> IPNetwork:
    if level[0] == m.AF_INET:
        return IPv4Network((address or bytes(4), level[1]))
    return IPv6Network((address or bytes(16), level[1]))


def metric(level: bytes) -> int:
    return int.from_bytes(level[2:], "big")


# -- reading ---------------------------------------------------------------------------------------


def table(buffers: Iterable[bytes]) -> Routes:
    """The routes of a dump, which comes as buffers of whole messages."""
    found = Routes()
    shapes: dict[bytes, Shape] = {}
    for data in buffers:
        if _alike(data, found, shapes):
            continue
        for _, _, _, start, end in walk(data):
            level, address, shape = _one(data[start:end], shapes)
            if shape.learned:
                found.learned.setdefault(level, {}).setdefault(address, shape)
            else:
                found.local.setdefault((level, address), shape)
    return found


def _alike(data: bytes, found: Routes, shapes: dict[bytes, Shape]) -> bool:
    """Take a buffer whose messages differ in nothing but their address; False: they do not.

    Then what is between two addresses is the same all along, and splitting there leaves the
    addresses. It is right if each is as long as an address: the text between them has the length
    of the first message in it, so the messages are framed where they were split.
    """
    family = data[16]
    size = m.ADDRESS_BYTES.get(family)
    if size is None or data[28:32] != _TABLE or data[36:_ADDRESS_AT] != m.DESTINATION[family]:
        return False
    (length,) = _U32.unpack_from(data)
    before, after = data[:_ADDRESS_AT], data[_ADDRESS_AT + size : length]
    if not data.endswith(after):
        return False
    addresses = data[_ADDRESS_AT : len(data) - len(after)].split(after + before)
    if set(map(len, addresses)) != {size}:
        return False
    shape = _shape_of(before[16:-4] + after, shapes)
    if not shape.learned:
        return False
    level = before[16:18] + shape.metric.to_bytes(4, "big")
    known = found.learned.setdefault(level, {})
    if known.keys().isdisjoint(addresses):
        known.update(dict.fromkeys(addresses, shape))
    else:
        for address in addresses:
            known.setdefault(address, shape)
    return True


def _one(data: bytes, shapes: dict[bytes, Shape]) -> tuple[bytes, bytes, Shape]:
    """Level, address and shape of one route."""
    family = data[0]
    end = 24 + m.ADDRESS_BYTES.get(family, 0)
    if not data[1]:
        address, rest = b"", data
    elif data[12:16] == _TABLE and data[20:24] == m.DESTINATION.get(family):
        address, rest = data[24:end], data[:20] + data[end:]
    else:
        address, rest = attributes(data, 12).get(m.RTA_DST, b""), data
    shape = _shape_of(rest, shapes)
    return data[:2] + shape.metric.to_bytes(4, "big"), address, shape


def one(data: bytes) -> tuple[Key, Shape]:
    """One route message."""
    level, address, shape = _one(data, {})
    return (level, address), shape


def key_of(data: bytes) -> Key:
    """The key of one route message."""
    level, address, _ = _one(data, {})
    return level, address


def _shape_of(rest: bytes, shapes: dict[bytes, Shape]) -> Shape:
    """The shape of a message, from which the destination was taken out if it is where we know."""
    shape = shapes.get(rest)
    if shape is None:
        shape = shapes[rest] = _shape(rest)
    return shape


def _shape(data: bytes) -> Shape:
    parts = attributes(data, 12)
    kind = data[7]
    preference = _U32.unpack(parts[m.RTA_PRIORITY])[0] if m.RTA_PRIORITY in parts else 0
    group = _U32.unpack(parts[m.RTA_NH_ID])[0] if m.RTA_NH_ID in parts else 0
    hops: list[Hop] = []
    if m.RTA_MULTIPATH in parts:
        hops = _hops(parts[m.RTA_MULTIPATH])
    elif kind == m.RTN_UNICAST:
        index = _U32.unpack(parts[m.RTA_OIF])[0] if m.RTA_OIF in parts else 0
        hops = [(parts.get(m.RTA_GATEWAY, b""), index)]
    return Shape(kind, data[5], preference, group, tuple(sorted(hops)))


def _hops(data: bytes) -> list[Hop]:
    found: list[Hop] = []
    offset = 0
    while offset + 8 <= len(data):
        length, _, _, index = _NEXTHOP.unpack_from(data, offset)
        if length < 8:
            break
        parts = attributes(data[offset : offset + length], 8)
        found.append((parts.get(m.RTA_GATEWAY, b""), index))
        offset += (length + 3) & ~3
    return found


# -- comparing -------------------------------------------------------------------------------------


def cells(desired: Iterable[LearnedRoute], held: Table) -> list[Cell]:
    """The desired routes beside what is held: everything else is decided by the cell."""
    found: dict[tuple[bytes, tuple[NextHop, ...], int], Cell] = {}
    known: dict[tuple[int, int, int], list[bytes]] = {}  # by identity: cheaper than equality
    level = b""  # of the last route, and so on: the next one is often of the same cell
    hops: tuple[NextHop, ...] = ()
    shape: Shape | None = None
    there: Mapping[bytes, Shape] = {}
    addresses: list[bytes] = []
    for route in desired:
        address = route.address
        if route.level is not level:
            level, hops = route.level, ()
            there = held.get(level, {})
        found_shape = there.get(address)
        if route.next_hops is not hops or found_shape is not shape:
            hops, shape = route.next_hops, found_shape
            identity = id(level), id(hops), id(shape)
            seen = known.get(identity)
            if seen is None:
                cell = found.get((level, hops, identity[2]))
                if cell is None:
                    cell = found[level, hops, identity[2]] = Cell(level, hops, shape)
                    known[identity] = cell.addresses
                seen = cell.addresses
            addresses = seen
        addresses.append(address)
    return list(found.values())


def surplus(compared: Iterable[Cell], held: Table) -> dict[bytes, list[bytes]]:
    """What is held and not desired, by level."""
    desired: dict[bytes, list[list[bytes]]] = defaultdict(list)
    for cell in compared:
        if cell.shape is not None:
            desired[cell.level].append(cell.addresses)
    found = {}
    for level, some in held.items():
        wanted = desired[level]
        if sum(map(len, wanted)) != len(some):
            found[level] = list(some.keys() - set(chain.from_iterable(wanted)))
    return found
