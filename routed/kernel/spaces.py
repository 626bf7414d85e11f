"""The ids that this namespace has for others (rtnetlink(7), RTM_NEWNSID): by one the end of a
namespace without a link of ours here is heard of.

Sources: include/uapi/linux/net_namespace.h, net/core/net_namespace.c.
"""

from __future__ import annotations

import struct

from routed.kernel.netlink import Netlink, attr, attr_u32, attributes, message

RTM_NEWNSID, RTM_DELNSID, RTM_GETNSID = 88, 89, 90
NETNSA_NSID, NETNSA_FD = 1, 3

_INT = struct.Struct("=i")
_RTGENMSG = bytes(4)


def numbered(netlink: Netlink, netns: int) -> int | None:
    """The id of the namespace of a descriptor, which is given one if it has none. OSError."""
    given = attr(NETNSA_NSID, _INT.pack(-1)) + attr_u32(NETNSA_FD, netns)
    netlink.transact([message(RTM_NEWNSID, 0, _RTGENMSG + given)])  # EEXIST: it has one
    data = netlink.get(message(RTM_GETNSID, 0, _RTGENMSG + attr_u32(NETNSA_FD, netns)))
    return space_of(data) if data else None


def space_of(data: bytes) -> int | None:
    """The id that a namespace message says; None: it has none."""
    found = attributes(data, 4).get(NETNSA_NSID)
    number = int(_INT.unpack(found)[0]) if found else -1
    return number if number >= 0 else None
