"""Reading back: kernel dumps as values, only of what is ours.

Ours are links of our groups, permanent neighbours and addresses on them, and routes of protocol 82
in the main table (see routed.state for the marks).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from api.resources.net import IPAddress, IPNetwork
from routed.kernel import messages as m
from routed.kernel.netlink import Netlink, attributes
from routed.state import ALIAS_PREFIX, LINK_GROUP, REAP_GROUP, ROUTE_PROTOCOL

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_NEXTHOP = struct.Struct("=HBBi")
_U32 = struct.Struct("=I")
_INT = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    group: int
    alias: str
    mtu: int
    up: bool
    mac: bytes
    peer_nsid: int | None

    @property
    def workload(self) -> str | None:
        """The workload whose link this is; None for a link that was never completed."""
        return (
            self.alias.removeprefix(ALIAS_PREFIX) if self.alias.startswith(ALIAS_PREFIX) else None
        )


@dataclass(frozen=True, slots=True)
class Route:
    """`hops` are (gateway or None, interface index), sorted."""

    prefix: IPNetwork
    kind: int
    metric: int
    hops: tuple[tuple[IPAddress | None, int], ...]


@dataclass(slots=True)
class Observed:
    links: dict[str, Link] = field(default_factory=dict)  # of LINK_GROUP, by name
    reaping: dict[str, Link] = field(default_factory=dict)
    foreign: dict[str, int] = field(default_factory=dict)  # other links: name -> MTU
    addresses: set[tuple[int, IPAddress]] = field(default_factory=set)
    neighbours: dict[tuple[int, IPAddress], bytes] = field(default_factory=dict)
    routes: dict[tuple[IPNetwork, int], Route] = field(default_factory=dict)  # (prefix, metric)


def read(netlink: Netlink) -> Observed:
    """Everything of ours in the namespace of `netlink`."""
    found = Observed()
    for link in links(netlink):
        if link.group == LINK_GROUP:
            found.links[link.name] = link
        elif link.group == REAP_GROUP:
            found.reaping[link.name] = link
        else:
            found.foreign[link.name] = link.mtu
    indexes = {link.index for link in found.links.values()}
    if indexes:
        found.addresses = {pair for pair in addresses(netlink) if pair[0] in indexes}
        found.neighbours = {
            key: mac for key, mac in neighbours(netlink).items() if key[0] in indexes
        }
    for family in (m.AF_INET, m.AF_INET6):
        for route in routes(netlink, family):
            found.routes[(route.prefix, route.metric)] = route
    return found


def links(netlink: Netlink) -> list[Link]:
    return [_link(data) for data in netlink.dump(m.dump_links())]


def one_link(netlink: Netlink, name: str) -> Link | None:
    """The link called `name`, or None."""
    try:
        data = netlink.get(m.get_link(name))
    except OSError:
        return None
    return _link(data) if data else None


def _link(data: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(data)
    found = attributes(data, 16)
    nsid = found.get(m.IFLA_LINK_NETNSID)
    return Link(
        index=index,
        name=found[m.IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"),
        group=_U32.unpack(found[m.IFLA_GROUP])[0] if m.IFLA_GROUP in found else 0,
        alias=found.get(m.IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
        mtu=_U32.unpack(found[m.IFLA_MTU])[0] if m.IFLA_MTU in found else 0,
        up=bool(flags & m.IFF_UP),
        mac=found.get(m.IFLA_ADDRESS, b""),
        peer_nsid=_INT.unpack(nsid)[0] if nsid else None,
    )


def addresses(netlink: Netlink) -> list[tuple[int, IPAddress]]:
    found = []
    for data in netlink.dump(m.dump_addresses()):
        _, _, _, _, index = _IFADDR.unpack_from(data)
        parts = attributes(data, 8)
        raw = parts.get(m.IFA_LOCAL) or parts.get(m.IFA_ADDRESS)
        if raw:
            found.append((index, _address(raw)))
    return found


def neighbours(netlink: Netlink) -> dict[tuple[int, IPAddress], bytes]:
    """Permanent neighbours only: the others are the kernel's own business."""
    found = {}
    for data in netlink.dump(m.dump_neighbours()):
        _, index, state, _, _ = _NDMSG.unpack_from(data)
        parts = attributes(data, 12)
        if state & m.NUD_PERMANENT and m.NDA_DST in parts and m.NDA_LLADDR in parts:
            found[(index, _address(parts[m.NDA_DST]))] = parts[m.NDA_LLADDR]
    return found


def routes(netlink: Netlink, family: int, protocol: int = ROUTE_PROTOCOL) -> list[Route]:
    return [
        route
        for data in netlink.dump(m.dump_routes(family, protocol))
        if (route := _route(data)) is not None
    ]


def _route(data: bytes) -> Route | None:
    family, length, _, _, _, _, _, kind, _ = _RTMSG.unpack_from(data)
    parts = attributes(data, 12)
    raw = parts.get(m.RTA_DST) or bytes(4 if family == m.AF_INET else 16)
    prefix = _network(raw, length)
    metric = _U32.unpack(parts[m.RTA_PRIORITY])[0] if m.RTA_PRIORITY in parts else 0
    hops: list[tuple[IPAddress | None, int]] = []
    if m.RTA_MULTIPATH in parts:
        hops = _hops(parts[m.RTA_MULTIPATH])
    elif kind == m.RTN_UNICAST:
        gateway = _address(parts[m.RTA_GATEWAY]) if m.RTA_GATEWAY in parts else None
        index = _U32.unpack(parts[m.RTA_OIF])[0] if m.RTA_OIF in parts else 0
        hops = [(gateway, index)]
    hops.sort(key=lambda hop: (int(hop[0]) if hop[0] else 0, hop[1]))
    return Route(prefix, kind, metric, tuple(hops))


def _hops(data: bytes) -> list[tuple[IPAddress | None, int]]:
    found: list[tuple[IPAddress | None, int]] = []
    offset = 0
    while offset + 8 <= len(data):
        length, _, _, index = _NEXTHOP.unpack_from(data, offset)
        if length < 8:
            break
        parts = attributes(data[offset : offset + length], 8)
        gateway = _address(parts[m.RTA_GATEWAY]) if m.RTA_GATEWAY in parts else None
        found.append((gateway, index))
        offset += (length + 3) & ~3
    return found


def route_index(netlink: Netlink, address: IPAddress) -> int:
    """The interface index that the kernel would send `address` out of, 0 if nowhere."""
    try:
        data = netlink.get(m.lookup(address))
    except OSError:
        return 0
    if data is None:
        return 0
    parts = attributes(data, 12)
    return int(_U32.unpack(parts[m.RTA_OIF])[0]) if m.RTA_OIF in parts else 0


def _address(raw: bytes) -> IPAddress:
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)


@lru_cache(maxsize=65_536)
def _network(raw: bytes, length: int) -> IPNetwork:
    return IPv4Network((raw, length)) if len(raw) == 4 else IPv6Network((raw, length))
