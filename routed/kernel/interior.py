"""The inside of a workload's namespace: what it should hold, checked and put right.

One visit is one uninterrupted stretch: enter, make a socket, leave, use the socket, close it (an
open socket would pin the namespace). What is checked: the link is there and up, `lo` is up, the
MTU, the /32s and /128s, the gateway routes, the permanent neighbour. Whatever else a workload
configures in its own namespace is its own: it may rename the link, and have another default route.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

from api.resources.errors import ApplyError, Cause, Conflict
from api.resources.net import IPAddress, host_prefix
from routed.kernel import messages as m
from routed.kernel import observe
from routed.kernel.netlink import Netlink, attributes
from routed.kernel.netns import entered
from routed.state import GATEWAY_V4, GATEWAY_V6, HOST_MAC, Endpoint, destination

V4, V6 = IPv4Address(GATEWAY_V4), IPv6Address(GATEWAY_V6)
ANYWHERE: dict[int, IPAddress] = {  # RFC 5737, RFC 3849: nobody's
    4: IPv4Address("192.0.2.1"),
    6: IPv6Address("2001:db8::1"),
}
LOOPBACK = 1  # the index of `lo` in every namespace

_INDEX = struct.Struct("=I")

Step = tuple[str, bytearray]  # what it does, and the message that does it
# what packs the question, which most have packed already, and whether an answer is right
Expectation = tuple[Callable[[], bytearray], Callable[[bytes], bool]]


def gateways(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    """The gateways that a workload with `addresses` has, one a family."""
    versions = {address.version for address in addresses}
    return [gateway for gateway in (V4, V6) if gateway.version in versions]


def socket_inside(
    home: int, descriptor: int, *, v6_name: str | None = None, brief: bool = False
) -> Netlink:
    """A socket of the namespace of `descriptor`. With `v6_name`, that link is told not to listen
    to router advertisements: /proc/sys/net is that of the namespace one is in."""
    with entered(home, descriptor):
        if v6_name is not None:
            conf = Path("/proc/sys/net/ipv6/conf") / v6_name
            (conf / "accept_ra").write_text("0", encoding="ascii")
        return Netlink(brief=brief)


def steps(index: int, endpoint: Endpoint) -> list[Step]:
    """Everything inside, for a link just made."""
    found: list[Step] = [
        ("set up lo in", m.link_up(LOOPBACK)),
        ("set up the link in", m.link_up(index)),
    ]
    found += [_address(index, value) for value in endpoint.addresses]
    for gateway in gateways(endpoint.addresses):
        found += [step for _, step in _gateway(index, gateway)]
        found.append((f"add the neighbour {gateway} in", m.neighbour(index, gateway, HOST_MAC)))
    return found


def refused(endpoint: Endpoint, step: str, number: int) -> ApplyError | Conflict:
    """What a failed one of `steps` means."""
    if number == errno.EEXIST:
        said = "the namespace has a default route, or one to our gateway, already"
        return Conflict(
            f"cannot attach {endpoint.workload}: {said}; a namespace holds one interface with "
            "the default route: detach the other first",
            causes=[Cause("netns", said)],
        )
    return ApplyError(f"{endpoint.workload} ({endpoint.netns})", step, number)


def repair(
    home: int, descriptor: int, index: int, endpoint: Endpoint, asks: bytes | bytearray
) -> int:
    """Check the inside of the link `index` and put right what differs; the number of changes.

    `asks` are the questions of `expectations`, packed. ApplyError if the link is not in that
    namespace, or if something stays wrong.
    """
    with socket_inside(home, descriptor) as inside:
        if looks_right(inside.ask_numbered(asks), index, endpoint):
            return 0
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


def looks_right(answers: Mapping[int, bytes], index: int, endpoint: Endpoint) -> bool:
    """Whether everything is as an attach left it, by look-ups that are answered at once. What is
    not just so may be right nevertheless: `differences` tells."""
    expected = expectations(index, endpoint)
    return len(answers) == len(expected) and all(
        right(answers[place]) for place, (_, right) in enumerate(expected)
    )


def expectations(index: int, endpoint: Endpoint) -> list[Expectation]:
    """What to ask inside, and whether an answer is the right one."""

    def link(data: bytes) -> bool:
        held = observe.link_of(data)
        return (held.up, held.mac, held.mtu) == (True, endpoint.mac, endpoint.mtu)

    def route(kind: int, length: int, gateway: bytes = b"") -> Callable[[bytes], bool]:
        def right(data: bytes) -> bool:
            found = attributes(data, 12)
            via = found.get(m.RTA_GATEWAY, b"")
            out = _INDEX.unpack(found[m.RTA_OIF])[0] if m.RTA_OIF in found else 0
            return (data[1], data[7], out, via) == (length, kind, index, gateway)

        return right

    def permanent(data: bytes) -> bool:
        _, _, state, _, _ = m.NDMSG.unpack_from(data)
        mac = attributes(data, 12).get(m.NDA_LLADDR)
        return bool(state & m.NUD_PERMANENT) and mac == HOST_MAC

    found: list[Expectation] = [
        (
            partial(m.get_link, LOOPBACK),
            lambda data: bool(m.IFINFO.unpack_from(data)[3] & m.IFF_UP),
        ),
        (partial(m.get_link, index), link),
    ]
    for value in endpoint.addresses:
        found.append((partial(m.lookup, value), route(m.RTN_LOCAL, value.max_prefixlen)))
    for gateway in gateways(endpoint.addresses):
        if gateway.version == 4:
            found.append((partial(m.lookup, gateway), route(m.RTN_UNICAST, 32)))
        anywhere = ANYWHERE[gateway.version]
        to_anywhere = partial(m.lookup, anywhere)
        found.append((to_anywhere, route(m.RTN_UNICAST, 0, gateway.packed)))
        found.append((partial(m.get_neighbour, index, gateway), permanent))
    return found


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
    return "add an address in", message


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
