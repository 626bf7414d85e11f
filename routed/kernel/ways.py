"""Which way the kernel sends a packet: the route that it finds, with all of its next hops.

Asked once in a while by a person (`routectl trace`), by a socket of its own. Of what a workload
sends it is asked as for a packet that comes by the workload's link, so that rules of policy
routing count (`ip route get DESTINATION from SOURCE iif LINK fibmatch`).
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from api.resources.errors import ApplyError
from api.resources.net import IPAddress, IPNetwork
from routed.kernel import fib, observe
from routed.kernel import messages as m
from routed.kernel.netlink import Netlink
from routed.state import ROUTE_PROTOCOL

# include/uapi/linux/rtnetlink.h; those that somebody may meet
KINDS = {1: "unicast", 2: "local", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
PROTOCOLS = {
    2: "kernel", 3: "boot", 4: "static", 9: "ra", 11: "zebra", 12: "bird", 16: "dhcp",
    ROUTE_PROTOCOL: "routed",
}  # fmt: skip


NONE = "none"
# a route that leads nowhere, by what the kernel answers
REFUSALS = {
    errno.ENETUNREACH: NONE,
    errno.EINVAL: "blackhole",
    errno.EHOSTUNREACH: "unreachable",
    errno.EACCES: "prohibit",
}


@dataclass(frozen=True, slots=True)
class Way:
    """`prefix` None: no route is found, or the kernel does not show it. `kind` as iproute2 has it;
    `hops`: (gateway or None: on the link, interface)."""

    prefix: IPNetwork | None = None
    kind: str = NONE
    protocol: str = ""
    metric: int = 0
    hops: tuple[tuple[IPAddress | None, str], ...] = ()


def way(destination: IPAddress, source: IPAddress | None = None, interface: str = "") -> Way:
    """As of now, in the namespace of the calling thread. `source` and `interface`: of a packet that
    comes by that link. ApplyError."""
    try:
        return _way(destination, source, interface)
    except OSError as error:
        raise ApplyError("routes", "read", error.errno or errno.EIO) from error


def _way(destination: IPAddress, source: IPAddress | None, interface: str) -> Way:
    """OSError."""
    with Netlink() as netlink:
        found: bytes | str = ""
        if source is not None and (index := _index(interface)):
            found = _asked(netlink, m.lookup(destination, source=source, index=index))
        if isinstance(found, str):  # that the kernel takes no such packet says nothing of routes
            found = _asked(netlink, m.lookup(destination))
        if isinstance(found, str):
            return Way(kind=found)
        key, shape = fib.one(found)
        hops = tuple((_gateway(raw), _name(index)) for raw, index in shape.hops)
        return Way(
            fib.network(*key),
            KINDS.get(shape.kind, str(shape.kind)),
            PROTOCOLS.get(shape.protocol, str(shape.protocol)),
            shape.metric,
            hops,
        )


def _asked(netlink: Netlink, request: bytearray) -> bytes | str:
    """The route, or of which kind it is where the kernel shows it by an error alone. OSError."""
    try:
        return netlink.get(request) or NONE
    except OSError as error:
        if error.errno in REFUSALS:
            return REFUSALS[error.errno]
        raise


def _gateway(raw: bytes) -> IPAddress | None:
    return observe.address_of(raw) if raw else None


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)
