"""The rtnetlink messages of the data plane, as bytes.

Pure: each function is one request (rtnetlink(7)), whole but for its sequence number. The link
message carries group, queues and indexes, so nothing about the link has to be looked up, and a
link of ours is recognisable from its first moment on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache

from api.resources.net import IPAddress, IPNetwork
from routed.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attr,
    attr_text,
    attr_u32,
    message,
    nested,
)
from routed.state import (
    BLACKHOLE_METRIC,
    HOST_MAC,
    LINK_GROUP,
    REAP_GROUP,
    REAPING_GROUP,
    ROUTE_PROTOCOL,
    Endpoint,
)

AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 10
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE = 32, 33
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWNETCONF = 80
NETCONFA_IFINDEX = 1
RTM_NEWNEXTHOP, RTM_DELNEXTHOP, RTM_GETNEXTHOP = 104, 105, 106
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_OPERSTATE, IF_OPER_DORMANT = 16, 5
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK = 20, 26, 27, 28, 29
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES, IFLA_LINK_NETNSID = 31, 32, 37
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INET_CONF, IFLA_INET6_CONF, IFLA_INET6_ADDR_GEN_MODE = 1, 2, 8
IN6_ADDR_GEN_MODE_NONE = 1
DEVCONF_FORWARDING, DEVCONF_ACCEPT_REDIRECTS, DEVCONF_RP_FILTER = 1, 4, 8
HOST_SETTINGS = ((DEVCONF_FORWARDING, 1), (DEVCONF_ACCEPT_REDIRECTS, 0), (DEVCONF_RP_FILTER, 1))
DEVCONF_DISABLE_IPV6 = 26
RTEXT_FILTER_SKIP_STATS = 1 << 3
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD = 0x02
NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT = 0x80
RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 2, 3, 4, 5, 6
RTA_MULTIPATH, RTA_TABLE = 9, 15
RTA_VIA, RTA_NH_ID = 18, 30
NHA_ID, NHA_GROUP, NHA_OIF, NHA_GATEWAY = 1, 2, 5, 6
NHA_BLACKHOLE, NHA_ENCAP_TYPE, NHA_FDB = 4, 7, 11
RT_TABLE_MAIN = 254
RTN_UNICAST, RTN_LOCAL, RTN_BLACKHOLE = 1, 2, 6
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RTPROT_KERNEL, RTPROT_BOOT = 2, 3
IFF_UP, IFF_LOWER_UP = 1, 1 << 16
RTM_F_FIB_MATCH = 0x2000

# the fixed parts of messages: ifinfomsg, ifaddrmsg, rtmsg, ndmsg, nhmsg, nexthop_grp
IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=BBBBBBBBI")
NDMSG = struct.Struct("=BxxxiHBB")
_NHMSG = struct.Struct("=BBBBI")
_GROUP_ENTRY = struct.Struct("=IBxxx")

ADDRESS_BYTES = {AF_INET: 4, AF_INET6: 16}
# what is before the destination in a route message
DESTINATION = {of: struct.pack("=HH", 4 + size, RTA_DST) for of, size in ADDRESS_BYTES.items()}

GROUP = attr_u32(IFLA_GROUP, LINK_GROUP)
ONE_QUEUE = attr_u32(IFLA_NUM_TX_QUEUES, 1) + attr_u32(IFLA_NUM_RX_QUEUES, 1)


def family(address: IPAddress | IPNetwork) -> int:
    return AF_INET if address.version == 4 else AF_INET6


@lru_cache(maxsize=2)
def _host_settings(also: bytes = b"") -> bytes:
    """IPv4 settings of the host side, in the message (IFLA_INET_CONF), not through /proc; and
    `also` of another family."""
    conf = nested(IFLA_INET_CONF, *(attr_u32(setting, value) for setting, value in HOST_SETTINGS))
    return nested(IFLA_AF_SPEC, nested(AF_INET, conf), also)


def create_veth(
    endpoint: Endpoint, host_name: str, host_index: int, peer_index: int, netns: int | None
) -> bytearray:
    """Both ends, down; the inner one made directly in namespace descriptor `netns`. A link just
    made counts as ready until the kernel has looked at its carrier, some time later (linkwatch):
    brought up before, IPv6 goes through all its routes then and at the carrier again. So with
    IPv6 the host's end begins as not ready."""
    six = any(value.version == 6 for value in endpoint.addresses)
    peer = [
        IFINFO.pack(0, 0, peer_index, 0, 0),
        attr_text(IFLA_IFNAME, endpoint.if_name),
        attr_u32(IFLA_MTU, endpoint.mtu),
        attr(IFLA_ADDRESS, endpoint.mac),
        ONE_QUEUE,
    ]
    if netns is not None:
        peer.append(attr_u32(IFLA_NET_NS_FD, netns))
    data = nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, *peer))
    return message(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        b"".join(
            (
                IFINFO.pack(0, 0, host_index, 0, 0),
                attr_text(IFLA_IFNAME, host_name),
                attr_u32(IFLA_MTU, endpoint.mtu),
                attr(IFLA_ADDRESS, HOST_MAC),
                GROUP,
                ONE_QUEUE,
                attr(IFLA_OPERSTATE, bytes([IF_OPER_DORMANT])) if six else b"",
                nested(IFLA_LINKINFO, attr(IFLA_INFO_KIND, b"veth"), data),
            )
        ),
    )


def host_link_up(index: int, alias: str) -> bytearray:
    """Up, with its alias and IPv4 settings: what makes a link of ours complete."""
    return message(
        RTM_SETLINK,
        0,
        IFINFO.pack(0, 0, index, IFF_UP, IFF_UP)
        + attr(IFLA_IFALIAS, alias.encode())
        + _host_settings(),
    )


def host_link_v6(index: int, alias: str) -> bytearray:
    """The same of an endpoint with IPv6, but for up, and no address generated by the kernel:
    fe80::1 is the only link-local one. The kernel tells of a new alias as of a change of the link
    (do_setlink in net/core/rtnetlink.c), for which IPv6 goes through all its routes (rt6_sync_up,
    rt6_sync_down_dev in net/ipv6/route.c), unless the link is down."""
    body = IFINFO.pack(0, 0, index, 0, 0) + attr(IFLA_IFALIAS, alias.encode())
    return message(RTM_SETLINK, 0, body + _host_settings(nested(AF_INET6, _no_link_local())))


def no_link_local(index: int) -> bytearray:
    """No address generated by the kernel."""
    spec = nested(IFLA_AF_SPEC, nested(AF_INET6, _no_link_local()))
    return message(RTM_SETLINK, 0, IFINFO.pack(0, 0, index, 0, 0) + spec)


def _no_link_local() -> bytes:
    return attr(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))


def link_up(index: int) -> bytearray:
    return message(RTM_SETLINK, 0, IFINFO.pack(0, 0, index, IFF_UP, IFF_UP))


def set_mtu(index: int, mtu: int) -> bytearray:
    return message(RTM_SETLINK, 0, IFINFO.pack(0, 0, index, 0, 0) + attr_u32(IFLA_MTU, mtu))


def to_reap(index: int) -> bytearray:
    return _to_group(index, REAP_GROUP)


def to_reaping(index: int) -> bytearray:
    return _to_group(index, REAPING_GROUP)


def _to_group(index: int, group: int) -> bytearray:
    return message(RTM_SETLINK, 0, IFINFO.pack(0, 0, index, 0, 0) + attr_u32(IFLA_GROUP, group))


def delete_group(group: int) -> bytearray:
    return message(RTM_DELLINK, 0, IFINFO.pack(0, 0, 0, 0, 0) + attr_u32(IFLA_GROUP, group))


def delete_link(index: int) -> bytearray:
    return message(RTM_DELLINK, 0, IFINFO.pack(0, 0, index, 0, 0))


def get_link(name_or_index: str | int) -> bytearray:
    index = name_or_index if isinstance(name_or_index, int) else 0
    body = IFINFO.pack(0, 0, index, 0, 0)
    body += attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    if isinstance(name_or_index, str):
        body += attr_text(IFLA_IFNAME, name_or_index)
    return message(RTM_GETLINK, 0, body)


def address(index: int, value: IPAddress, *, add: bool, length: int, scope: int) -> bytearray:
    kind, flags = (RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE) if add else (RTM_DELADDR, 0)
    raw = value.packed
    body = IFADDR.pack(family(value), length, 0, scope, index)
    body += attr(IFA_LOCAL, raw) + attr(IFA_ADDRESS, raw)
    if value.version == 6:
        body += attr_u32(IFA_FLAGS, IFA_F_NODAD)
    return message(kind, flags, body)


def neighbour(index: int, value: IPAddress, mac: bytes) -> bytearray:
    """A permanent entry; replaces what is there."""
    body = NDMSG.pack(family(value), index, NUD_PERMANENT, 0, 0)
    return message(
        RTM_NEWNEIGH,
        NLM_F_CREATE | NLM_F_REPLACE,
        body + attr(NDA_DST, value.packed) + attr(NDA_LLADDR, mac),
    )


def get_neighbour(index: int, value: IPAddress) -> bytearray:
    body = NDMSG.pack(family(value), index, 0, 0, 0)
    return message(RTM_GETNEIGH, 0, body + attr(NDA_DST, value.packed))


def delete_neighbour(index: int, value: IPAddress) -> bytearray:
    body = NDMSG.pack(family(value), index, 0, 0, 0)
    return message(RTM_DELNEIGH, 0, body + attr(NDA_DST, value.packed))


def device_route(
    index: int, prefix: IPNetwork, *, add: bool = True, protocol: int = ROUTE_PROTOCOL
) -> bytearray:
    """`PREFIX dev INDEX scope link`; never replaces another's route."""
    kind, flags = (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL) if add else (RTM_DELROUTE, 0)
    body = RTMSG.pack(
        family(prefix),
        prefix.prefixlen,
        0,
        0,
        RT_TABLE_MAIN,
        protocol,
        RT_SCOPE_LINK,
        RTN_UNICAST,
        0,
    )
    body += attr(RTA_DST, prefix.network_address.packed) + attr_u32(RTA_OIF, index)
    return message(kind, flags, body)


def default_on_link(index: int, of: int) -> bytearray:
    """The same of a family where there is no gateway: all is on the link (ipvlan)."""
    scope = RT_SCOPE_LINK if of == AF_INET else RT_SCOPE_UNIVERSE
    body = RTMSG.pack(of, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    return message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body + attr_u32(RTA_OIF, index))


def default_route(index: int, gateway: IPAddress) -> bytearray:
    """The workload's default route, inside its namespace."""
    body = RTMSG.pack(
        family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0
    )
    body += attr(RTA_GATEWAY, gateway.packed) + attr_u32(RTA_OIF, index)
    return message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)


def blackhole(prefix: IPNetwork, *, add: bool = True, metric: int = BLACKHOLE_METRIC) -> bytearray:
    kind, flags = (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL) if add else (RTM_DELROUTE, 0)
    body = RTMSG.pack(
        family(prefix),
        prefix.prefixlen,
        0,
        0,
        RT_TABLE_MAIN,
        ROUTE_PROTOCOL,
        RT_SCOPE_UNIVERSE,
        RTN_BLACKHOLE,
        0,
    )
    body += attr(RTA_DST, prefix.network_address.packed)
    return message(kind, flags, body + attr_u32(RTA_PRIORITY, metric))


def route_header(of: int, length: int, scope: int) -> bytes:
    """The fixed part of a route of ours over gateways, or of a request for its end."""
    return RTMSG.pack(of, length, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, scope, RTN_UNICAST, 0)


def next_hop(number: int, gateway: bytes, index: int) -> bytearray:
    """A next hop object of ours; refused unless the link is up and has a carrier."""
    of = AF_INET if len(gateway) == 4 else AF_INET6
    body = _NHMSG.pack(of, 0, ROUTE_PROTOCOL, 0, 0)
    body += attr_u32(NHA_ID, number) + attr_u32(NHA_OIF, index) + attr(NHA_GATEWAY, gateway)
    return message(RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_EXCL, body)


def next_hop_group(number: int, members: Iterable[int], *, replace: bool = False) -> bytearray:
    """A group of next hop objects, equal among themselves; `replace`: of one that is there."""
    body = _NHMSG.pack(AF_UNSPEC, 0, ROUTE_PROTOCOL, 0, 0) + attr_u32(NHA_ID, number)
    body += attr(NHA_GROUP, b"".join(_GROUP_ENTRY.pack(member, 0) for member in members))
    flags = NLM_F_REPLACE if replace else NLM_F_CREATE | NLM_F_EXCL
    return message(RTM_NEWNEXTHOP, flags, body)


def delete_next_hop(number: int) -> bytearray:
    """Also from every group. A group without members goes, and with it the routes over it."""
    return message(RTM_DELNEXTHOP, 0, _NHMSG.pack(0, 0, 0, 0, 0) + attr_u32(NHA_ID, number))


def dump_next_hops() -> bytearray:
    return message(RTM_GETNEXTHOP, NLM_F_DUMP, _NHMSG.pack(0, 0, 0, 0, 0))


def lookup(
    value: IPAddress, *, path: bool = False, source: IPAddress | None = None, index: int = 0
) -> bytearray:
    """Which route the kernel would take for `value`: the read-back of an attach. `path`: not the
    route as it is in the table, but the one way out of it that a packet would take. `source`,
    `index`: of a packet that comes from there, by that interface."""
    flags = 0 if path else RTM_F_FIB_MATCH
    long = value.max_prefixlen if source is not None else 0
    body = RTMSG.pack(family(value), value.max_prefixlen, long, 0, 0, 0, 0, 0, flags)
    body += attr(RTA_DST, value.packed)
    if source is not None:
        body += attr(RTA_SRC, source.packed) + attr_u32(RTA_IIF, index)
    return message(RTM_GETROUTE, 0, body)


def dump_links() -> bytearray:
    mask = attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    return message(RTM_GETLINK, NLM_F_DUMP, IFINFO.pack(0, 0, 0, 0, 0) + mask)


def dump_addresses() -> bytearray:
    return message(RTM_GETADDR, NLM_F_DUMP, IFADDR.pack(0, 0, 0, 0, 0))


def dump_routes(of: int, protocol: int = ROUTE_PROTOCOL) -> bytearray:
    """Routes of one family; the kernel filters by protocol (strict checking)."""
    return message(
        RTM_GETROUTE, NLM_F_DUMP, RTMSG.pack(of, 0, 0, 0, RT_TABLE_MAIN, protocol, 0, 0, 0)
    )


def dump_neighbours() -> bytearray:
    return message(RTM_GETNEIGH, NLM_F_DUMP, NDMSG.pack(0, 0, 0, 0, 0))
