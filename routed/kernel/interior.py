"""The inside of a workload's namespace: what it should hold, checked and put right.

One visit is one uninterrupted stretch: enter, make a socket, leave, use the socket, close it (an
open socket would pin the namespace). What is checked: the link is there and up, `lo` is up, the
MTU, the /32s and /128s, the gateway routes, the permanent neighbour. Whatever else a workload
configures in its own namespace is its own: it may rename the link, and have another default route.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

from api.resources.errors import ApplyError, Cause, Conflict
from api.resources.net import IPAddress, host_prefix
from routed.kernel import messages as m
from routed.kernel import observe
from routed.kernel.netlink import Netlink
from routed.kernel.netns import entered
from routed.state import GATEWAY_V4, GATEWAY_V6, HOST_MAC, Endpoint, destination

V4, V6 = IPv4Address(GATEWAY_V4), IPv6Address(GATEWAY_V6)
LOOPBACK = 1  # the index of `lo` in every namespace

Step = tuple[str, bytearray]  # what it does, and the message that does it


def gateways(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    """The gateways that a workload with `addresses` has, one a family."""
    versions = {address.version for address in addresses}
    return [gateway for gateway in (V4, V6) if gateway.version in versions]


def socket_inside(home: int, descriptor: int, *, v6_name: str | None = None) -> Netlink:
    """A socket of the namespace of `descriptor`. With `v6_name`, that link is told not to listen
    to router advertisements: /proc/sys/net is that of the namespace one is in."""
    with entered(home, descriptor):
        if v6_name is not None:
            conf = Path("/proc/sys/net/ipv6/conf") / v6_name
            (conf / "accept_ra").write_text("0", encoding="ascii")
        return Netlink()


def configure(inside: Netlink, index: int, endpoint: Endpoint) -> None:
    """Everything inside, for a link just made. ApplyError names what the kernel refused."""
    steps: list[Step] = [
        ("set up lo in", m.link_up(LOOPBACK)),
        ("set up the link in", m.link_up(index)),
    ]
    for value in endpoint.addresses:
        steps.append(_address(index, value))
    for gateway in gateways(endpoint.addresses):
        steps += [step for _, step in _gateway(index, gateway)]
        steps.append((f"add the neighbour {gateway} in", m.neighbour(index, gateway, HOST_MAC)))
    failed = inside.transact([message for _, message in steps])
    for place, number in failed.items():
        if number == errno.EEXIST:
            said = "the namespace has a default route, or one to our gateway, already"
            raise Conflict(
                f"cannot attach {endpoint.workload}: {said}; a namespace holds one interface with "
                "the default route: detach the other first",
                causes=[Cause("netns", said)],
            )
        raise ApplyError(f"{endpoint.workload} ({endpoint.netns})", steps[place][0], number)


def repair(home: int, descriptor: int, index: int, endpoint: Endpoint) -> int:
    """Check the inside of the link `index` and put right what differs; the number of changes.

    ApplyError if the link is not in that namespace, or if something stays wrong.
    """
    with socket_inside(home, descriptor) as inside:
        steps = differences(inside, index, endpoint)
        if not steps:
            return 0
        failed = inside.transact([message for _, message in steps])
        left = differences(inside, index, endpoint)
        if left:
            place = next(iter(failed), None)
            what = left[0][0] if place is None else steps[place][0]
            number = errno.EAGAIN if place is None else failed[place]
            raise ApplyError(f"{endpoint.workload} ({endpoint.netns})", what, number)
        return len(steps)


def differences(inside: Netlink, index: int, endpoint: Endpoint) -> list[Step]:
    """What has to be done to make the inside right, in order."""
    held = observe.one_link(inside, index)
    if held is None or held.mac != endpoint.mac:
        raise ApplyError(endpoint.workload, f"find {endpoint.if_name} of", errno.ENODEV)
    steps: list[Step] = []
    loopback = observe.one_link(inside, LOOPBACK)
    if loopback is not None and not loopback.up:
        steps.append(("set up lo in", m.link_up(LOOPBACK)))
    if held.mtu != endpoint.mtu:
        steps.append(("set the MTU in", m.set_mtu(index, endpoint.mtu)))
    if not held.up:
        steps.append(("set up the link in", m.link_up(index)))
    present = observe.addresses(inside, {index})
    for value in endpoint.addresses:
        if (index, value) not in present:
            steps.append(_address(index, value))
    permanent = observe.neighbours(inside, {index})
    for gateway in gateways(endpoint.addresses):
        known = observe.routes(inside, m.family(gateway), 0).destinations()
        steps += [step for key, step in _gateway(index, gateway) if key not in known]
        if permanent.get((index, gateway)) != HOST_MAC:
            steps.append((f"add the neighbour {gateway} in", m.neighbour(index, gateway, HOST_MAC)))
    return steps


def _address(index: int, value: IPAddress) -> Step:
    message = m.address(index, value, add=True, length=value.max_prefixlen, scope=0)
    return f"add {value} in", message


def _gateway(index: int, gateway: IPAddress) -> list[tuple[bytes, Step]]:
    """The routes to and over `gateway`, each with its destination."""
    found: list[tuple[bytes, Step]] = []
    if gateway.version == 4:  # fe80::1 is on the link by itself
        host = host_prefix(gateway)
        route = m.device_route(index, host, protocol=m.RTPROT_BOOT)
        found.append((destination(host), (f"add the route to {gateway} in", route)))
    default = destination(ip_network("0.0.0.0/0" if gateway.version == 4 else "::/0"))
    found.append((default, ("add the default route in", m.default_route(index, gateway))))
    return found
