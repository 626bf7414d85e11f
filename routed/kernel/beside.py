"""An interface beside the one that has its namespace's default route: what is other inside.

What comes to its address is answered out of it, or the host would drop the answer as that of a
stranger: a rule sends what has its address as the source to a table of its own, in which there is a
default route over it. What has no source yet follows the main table as before, in which it has only
the routes that are listed for it. Its gateway is 169.254.1.1 as everybody's, so no route leads to
it: the routes over it say that it is on the link (`onlink`).

The table's number is made from the workload's name, so an agent without memory finds it. Its routes
go with the link, the rules do not: they are removed at the detach, or by the next attach.

Sources: ip-rule(8), include/uapi/linux/fib_rules.h. Pure.
"""

from __future__ import annotations

import hashlib
import struct

from api.resources.net import IPAddress, IPNetwork
from routed.kernel import messages as m
from routed.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, attr, attr_u32, message
from routed.state import ROUTE_PROTOCOL, Endpoint

FRA_SRC, FRA_PRIORITY, FRA_TABLE, FRA_PROTOCOL = 2, 6, 15, 21
FR_ACT_TO_TBL = 1
RTNH_F_ONLINK = 4
PRIORITY = 8282  # before the main table, behind local
TABLES = 0x5264_0000  # and the 65 535 numbers behind it
RULE = "add the rule for its source in"

_RULE = struct.Struct("=BBBBBxxBI")  # family, lengths, tos, table, action, flags

Step = tuple[str, bytearray]


def table(workload: str) -> int:
    digest = hashlib.blake2s(workload.encode(), digest_size=2, person=b"table").digest()
    return TABLES + int.from_bytes(digest, "big")


def rule(workload: str, source: IPAddress, *, add: bool = True) -> bytearray:
    """What has `source` as its own looks into the workload's table first."""
    kind, flags = (m.RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL) if add else (m.RTM_DELRULE, 0)
    body = _RULE.pack(m.family(source), 0, source.max_prefixlen, 0, 0, FR_ACT_TO_TBL, 0)
    body += attr(FRA_SRC, source.packed) + attr_u32(FRA_PRIORITY, PRIORITY)
    body += attr_u32(FRA_TABLE, table(workload)) + attr(FRA_PROTOCOL, bytes([ROUTE_PROTOCOL]))
    return message(kind, flags, body)


def steps(index: int, endpoint: Endpoint, gateway: IPAddress) -> list[Step]:
    """The rules and routes over `gateway`, of its family."""
    number = table(endpoint.workload)
    found = [("add its own default route in", _route(index, None, gateway, number))]
    for value in endpoint.addresses:
        if value.version == gateway.version:
            found.append((RULE, rule(endpoint.workload, value)))
    for prefix in routes(endpoint, gateway):
        found.append((f"add the route to {prefix} in", _route(index, prefix, gateway, 0)))
    return found


def routes(endpoint: Endpoint, gateway: IPAddress) -> list[IPNetwork]:
    """Those listed for it, of the family of `gateway`."""
    return [prefix for prefix in endpoint.routes if prefix.version == gateway.version]


def lookup(value: IPAddress, source: IPAddress) -> bytearray:
    """Which route what has `source` would take to `value`."""
    bits = value.max_prefixlen
    body = m.RTMSG.pack(m.family(value), bits, bits, 0, 0, 0, 0, 0, m.RTM_F_FIB_MATCH)
    return message(m.RTM_GETROUTE, 0, body + attr(m.RTA_DST, value.packed)
                   + attr(m.RTA_SRC, source.packed))  # fmt: skip


def _route(index: int, prefix: IPNetwork | None, gateway: IPAddress, number: int) -> bytearray:
    """Of the main table where `number` is 0: there never instead of another's."""
    flags = NLM_F_CREATE | (NLM_F_REPLACE if number else NLM_F_EXCL)
    length, where = prefix.prefixlen if prefix else 0, 0 if number else m.RT_TABLE_MAIN
    body = m.RTMSG.pack(
        m.family(gateway), length, 0, 0, where, m.RTPROT_BOOT,
        m.RT_SCOPE_UNIVERSE, m.RTN_UNICAST, RTNH_F_ONLINK,
    )  # fmt: skip
    if prefix is not None:
        body += attr(m.RTA_DST, prefix.network_address.packed)
    body += attr(m.RTA_GATEWAY, gateway.packed) + attr_u32(m.RTA_OIF, index)
    return message(m.RTM_NEWROUTE, flags, body + (attr_u32(m.RTA_TABLE, number) if number else b""))
