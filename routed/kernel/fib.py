"""Learned routes by the hundred thousand: read and compared as bytes, not as objects.

Pure. Almost all of a route message is the same for all routes over the same next hops, so what is
not the destination is decoded once for each distinct text (`Shape`), and a table is a dict from
(destination, metric) to shape. A destination is family, length and address, as in the message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from api.resources.net import IPAddress, IPNetwork
from routed.kernel import messages as m
from routed.kernel.netlink import attributes
from routed.state import LearnedRoute, NextHop

Key = tuple[bytes, int]  # destination, metric
Hop = tuple[bytes, int]  # gateway (empty: none), interface index

_U32 = struct.Struct("=I")
_NEXTHOP = struct.Struct("=HBBi")
_TABLE_FIRST = struct.pack("=HH", 8, m.RTA_TABLE)
_DST = {m.AF_INET: struct.pack("=HH", 8, m.RTA_DST), m.AF_INET6: struct.pack("=HH", 20, m.RTA_DST)}
_HEADERS = 16 + 12 + 4  # of netlink, of the route, of its first attribute, the destination
_DST_END = {m.AF_INET: 28, m.AF_INET6: 40}


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything of a route but its destination; `hops` are sorted."""

    kind: int
    protocol: int
    metric: int
    hops: tuple[Hop, ...]

    @property
    def device(self) -> int | None:
        """The interface of a route without a gateway, None for any other route."""
        if self.kind == m.RTN_UNICAST and len(self.hops) == 1 and not self.hops[0][0]:
            return self.hops[0][1]
        return None


@dataclass(slots=True)
class Changes:
    """What a table lacks, has otherwise, and has too much."""

    add: list[LearnedRoute] = field(default_factory=list)
    replace: list[LearnedRoute] = field(default_factory=list)
    remove: list[Key] = field(default_factory=list)


def destination(prefix: IPNetwork) -> bytes:
    family = m.AF_INET if prefix.version == 4 else m.AF_INET6
    raw = prefix.network_address.packed if prefix.prefixlen else b""
    return bytes((family, prefix.prefixlen)) + raw


def network(key: bytes) -> IPNetwork:
    if key[0] == m.AF_INET:
        return IPv4Network((key[2:] or bytes(4), key[1]))
    return IPv6Network((key[2:] or bytes(16), key[1]))


def gateway(raw: bytes) -> IPAddress | None:
    if not raw:
        return None
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)


def table(dumped: Iterable[bytes]) -> dict[Key, Shape]:
    """The routes of a dump. Of two with one destination and metric the first counts: it is the
    one that the kernel uses, and the one that a replacing request would hit."""
    shapes: dict[bytes, Shape] = {}
    found: dict[Key, Shape] = {}
    for data in dumped:
        family = data[0]
        end = _DST_END.get(family, 0)
        if not data[1]:
            key, rest = data[:2], data
        elif data[12:16] == _TABLE_FIRST and data[20:24] == _DST.get(family):
            key, rest = data[:2] + data[24:end], data[:20] + data[end:]
        else:
            key, rest = data[:2] + attributes(data, 12).get(m.RTA_DST, b""), data
        shape = shapes.get(rest)
        if shape is None:
            shape = shapes[rest] = _shape(rest)
        found.setdefault((key, shape.metric), shape)
    return found


def diff(
    desired: Mapping[IPNetwork, LearnedRoute],
    held: Mapping[Key, Shape],
    indexes: Mapping[str, int],
) -> Changes:
    """What makes the gateway routes among `held`, all of them ours, those of `desired`.

    `indexes` are of the interfaces that next hops name.
    """
    changes = Changes()
    same: dict[tuple[int, int], bool] = {}
    wanted: set[Key] = set()
    for prefix, route in desired.items():
        key = (destination(prefix), route.metric)
        wanted.add(key)
        shape = held.get(key)
        if shape is None:
            changes.add.append(route)
            continue
        pair = (id(shape), id(route.next_hops))
        answer = same.get(pair)
        if answer is None:
            answer = same[pair] = _same(shape, route.next_hops, indexes)
        if not answer:
            changes.replace.append(route)
    changes.remove = [
        key for key, shape in held.items() if key not in wanted and shape.hops and shape.hops[0][0]
    ]
    return changes


def _same(shape: Shape, hops: tuple[NextHop, ...], indexes: Mapping[str, int]) -> bool:
    wanted = sorted((hop.gateway.packed, _index(hop, indexes)) for hop in hops)
    return (
        shape.kind == m.RTN_UNICAST
        and len(wanted) == len(shape.hops)
        and all(
            mine[0] == theirs[0] and mine[1] in (0, theirs[1])
            for mine, theirs in zip(wanted, shape.hops, strict=True)
        )
    )


def _index(hop: NextHop, indexes: Mapping[str, int]) -> int:
    return 0 if hop.interface is None else indexes.get(hop.interface, -1)


def messages(
    routes: Iterable[LearnedRoute], indexes: Mapping[str, int], *, replace: bool
) -> list[bytearray]:
    """A request for each route. Those over the same next hops differ in their destination only,
    so one is packed for each kind and the destination is put in."""
    packed: dict[tuple[bytes, int, int], tuple[bytes, bytes]] = {}
    found = []
    for route in routes:
        key = destination(route.prefix)
        kind = (key[:2], id(route.next_hops), route.metric)
        parts = packed.get(kind)
        if parts is None:
            hops = [(hop, _index(hop, indexes)) for hop in route.next_hops]
            whole = bytes(m.learned_route(route.prefix, hops, route.metric, replace=replace))
            end = _HEADERS + len(key) - 2
            parts = packed[kind] = (whole[:_HEADERS], whole[end:])
        found.append(bytearray(parts[0] + key[2:] + parts[1]))
    return found


def _shape(data: bytes) -> Shape:
    parts = attributes(data, 12)
    kind = data[7]
    metric = _U32.unpack(parts[m.RTA_PRIORITY])[0] if m.RTA_PRIORITY in parts else 0
    hops: list[Hop] = []
    if m.RTA_MULTIPATH in parts:
        hops = _hops(parts[m.RTA_MULTIPATH])
    elif kind == m.RTN_UNICAST:
        index = _U32.unpack(parts[m.RTA_OIF])[0] if m.RTA_OIF in parts else 0
        hops = [(parts.get(m.RTA_GATEWAY, b""), index)]
    return Shape(kind, data[5], metric, tuple(sorted(hops)))


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
