"""Reading back: kernel dumps as values, only of what is ours.

Ours are links of our groups, permanent neighbours and addresses on them, routes of protocol 82 in
the main table, and next hop objects (see routed.state for the marks).
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from api.resources.errors import ApplyError
from api.resources.net import IPAddress
from routed.kernel import fib, nexthops
from routed.kernel import messages as m
from routed.kernel.netlink import Netlink, attributes
from routed.state import (
    ALIAS_PREFIX,
    GATEWAY_V4,
    GATEWAY_V6,
    LINK_GROUP,
    REAP_GROUP,
    REAPING_GROUP,
    ROUTE_PROTOCOL,
    SLAVE_GROUP,
)

GATEWAYS = {IPv4Address(GATEWAY_V4), IPv6Address(GATEWAY_V6)}
OUR_GROUPS = (LINK_GROUP, REAP_GROUP, REAPING_GROUP)

_ATTR = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_INT = struct.Struct("=i")
RTNEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, interface index


@dataclass(frozen=True, slots=True)
class Settings:
    """The per-link settings that we set; None where the kernel does not tell."""

    inet: tuple[int, ...] | None  # in the order of m.HOST_SETTINGS
    v6_off: bool | None


@dataclass(frozen=True, slots=True)
class Link:
    """`peer` and `peer_nsid` are the other end's index and its namespace's id here; of a slave
    `peer` is its parent."""

    index: int
    name: str
    group: int
    alias: str
    mtu: int
    up: bool
    mac: bytes
    peer: int
    peer_nsid: int | None
    settings: Settings | None = None  # of links of ours
    carrier: bool = True
    info: bytes = b""  # of the host's own slaves: what their kind says (IFLA_LINKINFO)

    @property
    def workload(self) -> str | None:
        """The workload whose link this is; None for a link that was never completed."""
        return (
            self.alias.removeprefix(ALIAS_PREFIX) if self.alias.startswith(ALIAS_PREFIX) else None
        )


@dataclass(slots=True)
class Observed:
    links: dict[str, Link] = field(default_factory=dict)  # of LINK_GROUP, by name
    reaping: dict[str, Link] = field(default_factory=dict)
    slaves: dict[str, Link] = field(default_factory=dict)  # of SLAVE_GROUP
    foreign: dict[str, Link] = field(default_factory=dict)
    addresses: set[tuple[int, IPAddress]] = field(default_factory=set)
    neighbours: dict[tuple[int, IPAddress], bytes] = field(default_factory=dict)
    routes: dict[fib.Key, fib.Shape] = field(default_factory=dict)  # to workloads, blackholes
    learned: fib.Table = field(default_factory=dict)
    objects: nexthops.Objects = field(default_factory=nexthops.Objects)

    def links_by_index(self) -> dict[int, Link]:
        every = (self.links, self.reaping, self.slaves, self.foreign)
        return {link.index: link for some in every for link in some.values()}


def read(netlink: Netlink, known: dict[bytes, Link] | None = None) -> Observed:
    """Everything of ours in the namespace of `netlink`. `known` is of the last time, by what each
    link's message was, and of this one afterwards."""
    found = Observed()
    for link in links(netlink, known):
        if link.group == LINK_GROUP:
            found.links[link.name] = link
        elif link.group in OUR_GROUPS:
            found.reaping[link.name] = link
        elif link.group == SLAVE_GROUP:
            found.slaves[link.name] = link
        else:
            found.foreign[link.name] = link
    indexes = {link.index for link in found.links.values()}
    if indexes:
        found.addresses = addresses(netlink, indexes)
        found.neighbours = neighbours(netlink, indexes)
    found.objects = next_hops(netlink)
    for family in (m.AF_INET, m.AF_INET6):
        held = routes(netlink, family)
        found.routes |= held.local
        found.learned |= held.learned  # their levels name the family
    return found


def links(netlink: Netlink, known: dict[bytes, Link] | None = None) -> list[Link]:
    """Nearly all links are as they were, and taking a message apart is most of the work: one that
    is byte for byte `known` is not."""
    before, now = known or {}, {}
    for data in netlink.dump(m.dump_links()):
        link = before.get(data)
        now[data] = link_of(data) if link is None else link
    if known is not None:
        known.clear()
        known.update(now)
    return list(now.values())


def one_link(netlink: Netlink, name_or_index: str | int) -> Link | None:
    """The link of that name or index, or None."""
    try:
        data = netlink.get(m.get_link(name_or_index))
    except OSError:
        return None
    return link_of(data) if data else None


def link_of(data: bytes) -> Link:
    """What a link message says."""
    _, _, index, flags, _ = m.IFINFO.unpack_from(data)
    found = attributes(data, 16)
    nsid = found.get(m.IFLA_LINK_NETNSID)
    group = _number(found, m.IFLA_GROUP)
    return Link(
        index=index,
        name=found[m.IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"),
        group=group,
        alias=found.get(m.IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
        mtu=_number(found, m.IFLA_MTU),
        up=bool(flags & m.IFF_UP),
        carrier=bool(flags & m.IFF_LOWER_UP),
        mac=found.get(m.IFLA_ADDRESS, b""),
        peer=_number(found, m.IFLA_LINK),
        peer_nsid=_INT.unpack(nsid)[0] if nsid else None,
        settings=_settings(found) if group in OUR_GROUPS else None,
        info=found.get(m.IFLA_LINKINFO, b"") if group == SLAVE_GROUP else b"",
    )


def readback(data: bytes) -> tuple[bool, bytes, int | None]:
    """Of the link that an attach has just made, what it cannot know: whether it is up, its alias
    as it is, the id of the other end's namespace. The rest of the message is not taken apart."""
    alias, nsid = b"", None
    offset, end = 16, len(data)
    while offset + 4 <= end:
        length, kind = _ATTR.unpack_from(data, offset)
        if kind == m.IFLA_IFALIAS:
            alias = data[offset + 4 : offset + length - 1]
        elif kind == m.IFLA_LINK_NETNSID:
            nsid = _INT.unpack_from(data, offset + 4)[0]
        if length < 4:
            break
        offset += (length + 3) & ~3
    return bool(m.IFINFO.unpack_from(data)[3] & m.IFF_UP), alias, nsid


def link_group(data: bytes) -> int:
    """The group that a link message says."""
    return _number(attributes(data, 16), m.IFLA_GROUP)


def _number(found: dict[int, bytes], kind: int) -> int:
    return int(_U32.unpack(found[kind])[0]) if kind in found else 0


def _settings(found: dict[int, bytes]) -> Settings:
    families = attributes(found.get(m.IFLA_AF_SPEC, b""), 0)
    four = attributes(families.get(m.AF_INET, b""), 0).get(m.IFLA_INET_CONF, b"")
    six = attributes(families.get(m.AF_INET6, b""), 0).get(m.IFLA_INET6_CONF, b"")
    last = max(setting for setting, _ in m.HOST_SETTINGS)
    inet = None
    if len(four) >= 4 * last:  # an array, whose first element is setting 1
        inet = tuple(_U32.unpack_from(four, 4 * (at - 1))[0] for at, _ in m.HOST_SETTINGS)
    v6_off = None
    if len(six) >= 4 * (m.DEVCONF_DISABLE_IPV6 + 1):
        v6_off = bool(_INT.unpack_from(six, 4 * m.DEVCONF_DISABLE_IPV6)[0])
    return Settings(inet, v6_off)


def addresses(netlink: Netlink, indexes: set[int] | None = None) -> set[tuple[int, IPAddress]]:
    """(interface index, address) on the interfaces `indexes`; None: on all."""
    found = set()
    for data in netlink.dump(m.dump_addresses()):
        _, _, _, _, index = m.IFADDR.unpack_from(data)
        if indexes is None or index in indexes:
            parts = attributes(data, 8)
            raw = parts.get(m.IFA_LOCAL) or parts.get(m.IFA_ADDRESS)
            if raw:
                found.add((index, address_of(raw)))
    return found


def neighbours(netlink: Netlink, indexes: set[int]) -> dict[tuple[int, IPAddress], bytes]:
    """Permanent neighbours only: the others are the kernel's own business."""
    found = {}
    for data in netlink.dump(m.dump_neighbours()):
        _, index, state, _, _ = m.NDMSG.unpack_from(data)
        if not state & m.NUD_PERMANENT or index not in indexes:
            continue
        parts = attributes(data, 12)
        if m.NDA_DST in parts and m.NDA_LLADDR in parts:
            found[(index, address_of(parts[m.NDA_DST]))] = parts[m.NDA_LLADDR]
    return found


def routes(netlink: Netlink, family: int, protocol: int = ROUTE_PROTOCOL) -> fib.Routes:
    """The main table's routes of one protocol, 0 for all."""
    return netlink.read(m.dump_routes(family, protocol), fib.table)


def host_routes(netlink: Netlink) -> set[IPAddress]:
    """The addresses that a host route of ours leads to over a link of its own, and those that are
    on such a link (mode host)."""
    ours = {link.index for link in links(netlink) if link.group == LINK_GROUP}
    held = {address for _, address in addresses(netlink, ours)} - GATEWAYS
    return held | {
        address_of(address)
        for kind in (m.AF_INET, m.AF_INET6)
        for (level, address), shape in routes(netlink, kind).local.items()
        if shape.device is not None and level[1] == 8 * len(address)
    }


def foreign_host_routes(netlink: Netlink) -> set[IPAddress]:
    """The addresses that a host route of somebody else leads to."""
    found: set[IPAddress] = set()
    for kind in (m.AF_INET, m.AF_INET6):
        held = routes(netlink, kind, 0)
        keyed = [*held.local.items()]
        for of, some in held.learned.items():
            keyed += [((of, address), shape) for address, shape in some.items()]
        for (level, address), shape in keyed:
            if shape.protocol != ROUTE_PROTOCOL and level[1] == 8 * m.ADDRESS_BYTES[kind]:
                found.add(address_of(address))
    return found


def next_hops(netlink: Netlink) -> nexthops.Objects:
    """The next hop objects; none where the kernel does not know of such (before 5.3)."""
    try:
        return nexthops.objects(netlink.dump(m.dump_next_hops()))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return nexthops.Objects()


def route_index(netlink: Netlink, address: IPAddress) -> int:
    """The interface index that the kernel sends `address` out of by a host route of ours, else
    0."""
    return host_route_index(lookup(netlink, address), address)


def host_route_index(data: bytes | None, address: IPAddress) -> int:
    """The same of the answer to such a look-up."""
    if data is None or data[1] != address.max_prefixlen or data[5] != ROUTE_PROTOCOL:
        return 0
    return _number(attributes(data, 12), m.RTA_OIF)


def leaving(netlink: Netlink, address: IPAddress) -> int:
    """The interface index that the kernel sends `address` out of, by whatever route, else 0."""
    try:
        data = netlink.get(m.lookup(address, path=True))
    except OSError:
        return 0  # nowhere
    return 0 if data is None else _number(attributes(data, 12), m.RTA_OIF)


def ways(netlink: Netlink, address: IPAddress) -> set[int]:
    """The interface indexes of all next hops of the route that the kernel has for `address`."""
    parts = attributes(lookup(netlink, address) or b"", 12)
    several, found, at = parts.get(m.RTA_MULTIPATH, b""), set(), 0
    while at + RTNEXTHOP.size <= len(several):
        length, _, _, index = RTNEXTHOP.unpack_from(several, at)
        found.add(index)
        at += max(RTNEXTHOP.size, (length + 3) & ~3)
    return found or {_number(parts, m.RTA_OIF)} - {0}


def on_link(netlink: Netlink, gateway: IPAddress) -> int:
    """The interface index behind which `gateway` is a neighbour. OSError if it is none."""
    data = netlink.get(m.lookup(gateway, path=True))
    parts = attributes(data or b"", 12)
    if data is not None and data[7] == m.RTN_UNICAST:
        if not {m.RTA_GATEWAY, m.RTA_VIA} & parts.keys():
            return _number(parts, m.RTA_OIF)
        connected = _connected(netlink, gateway)
        if connected:
            return connected
    raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


def _connected(netlink: Netlink, gateway: IPAddress) -> int:
    """The interface whose own prefix holds `gateway`, else 0: a route learned to the gateway may
    lead elsewhere, but as a next hop it is a neighbour, as it would be for the kernel."""
    held = routes(netlink, m.family(gateway), m.RTPROT_KERNEL).local
    found = [
        (level[1], shape.device)
        for (level, address), shape in held.items()
        if shape.device is not None and gateway in fib.network(level, address)
    ]
    return max(found, default=(0, 0))[1]


def lookup(netlink: Netlink, address: IPAddress) -> bytes | None:
    try:
        return netlink.get(m.lookup(address))
    except OSError:
        return None  # nowhere


def not_ours(workload: str, name: str) -> ApplyError:
    """Somebody else has a link of the name that the workload's is to have."""
    return ApplyError(workload, f"make {name}, which is not ours, of", errno.EEXIST)


def address_of(raw: bytes) -> IPAddress:
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
