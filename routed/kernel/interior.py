"""The inside of a workload's namespace: what it should hold, checked and put right.

One visit is one uninterrupted stretch: enter, make a socket, leave, use the socket, close it (an
open socket would pin the namespace). What is checked: the link is there and up, `lo` is up, the
/32s and /128s, the gateway routes, the permanent neighbour. Whatever else a workload configures
in its own namespace is its own.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from api.resources.errors import ApplyError
from api.resources.net import IPAddress, host_prefix
from routed.kernel import messages as m
from routed.kernel import observe
from routed.kernel.netlink import Netlink
from routed.kernel.netns import entered
from routed.state import GATEWAY_V4, GATEWAY_V6, HOST_MAC, Endpoint

V4, V6 = IPv4Address(GATEWAY_V4), IPv6Address(GATEWAY_V6)


def gateways(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    """The gateways that a workload with `addresses` has, one a family."""
    versions = {address.version for address in addresses}
    return [gateway for gateway in (V4, V6) if gateway.version in versions]


def socket_inside(home: int, path: str, *, v6_name: str | None = None) -> Netlink:
    """A socket of the namespace at `path`. With `v6_name`, that link is told not to listen to
    router advertisements: /proc/sys/net is that of the namespace one is in."""
    with entered(home, path):
        if v6_name is not None:
            conf = Path("/proc/sys/net/ipv6/conf") / v6_name
            (conf / "accept_ra").write_text("0")
        return Netlink()


def configure(inside: Netlink, index: int, endpoint: Endpoint) -> None:
    """Everything inside, for a link just made. ApplyError names what the kernel refused."""
    batch = [("set up lo in", m.link_up(1)), *wanted(index, endpoint)]
    failed = inside.transact([message for _, message in batch])
    for place, number in failed.items():
        raise ApplyError(f"{endpoint.workload} ({endpoint.netns})", batch[place][0], number)


def wanted(index: int, endpoint: Endpoint) -> list[tuple[str, bytearray]]:
    """The messages that make the inside right, with what each does, in order."""
    found: list[tuple[str, bytearray]] = [("set up the link in", m.link_up(index))]
    for value in endpoint.addresses:
        length = value.max_prefixlen
        found.append((f"add {value} in", m.address(index, value, add=True, length=length, scope=0)))
    for gateway in gateways(endpoint.addresses):
        if gateway.version == 4:
            route = m.device_route(index, host_prefix(gateway), protocol=m.RTPROT_BOOT)
            found.append((f"add the route to {gateway} in", route))
        found.append((f"add the neighbour {gateway} in", m.neighbour(index, gateway, HOST_MAC)))
        found.append(("add the default route in", m.default_route(index, gateway)))
    return found


def repair(home: int, endpoint: Endpoint) -> int:
    """Check the inside and put right what differs; the number of changes made.

    OSError if the namespace is gone, ApplyError (ENODEV) if the link is not in it.
    """
    assert endpoint.netns is not None
    with socket_inside(home, endpoint.netns) as inside:
        held = observe.one_link(inside, endpoint.if_name)
        if held is None:
            raise ApplyError(endpoint.workload, f"find {endpoint.if_name} of", errno.ENODEV)
        changes: list[bytearray] = []
        if not held.up:
            changes.append(m.link_up(held.index))
        present = set(observe.addresses(inside))
        for value in endpoint.addresses:
            if (held.index, value) not in present:
                length = value.max_prefixlen
                changes.append(m.address(held.index, value, add=True, length=length, scope=0))
        permanent = observe.neighbours(inside)
        for gateway in gateways(endpoint.addresses):
            if permanent.get((held.index, gateway)) != HOST_MAC:
                changes.append(m.neighbour(held.index, gateway, HOST_MAC))
            family = m.family(gateway)
            known = {route.prefix: route for route in observe.routes(inside, family, 0)}
            host = host_prefix(gateway)
            if gateway.version == 4 and host not in known:
                changes.append(m.device_route(held.index, host, protocol=m.RTPROT_BOOT))
            if not any(prefix.prefixlen == 0 for prefix in known):
                changes.append(m.default_route(held.index, gateway))
        if changes:
            failed = inside.transact(changes)
            for number in failed.values():
                if number != errno.EEXIST:
                    raise ApplyError(endpoint.workload, "repair the inside of", number)
        return len(changes)
