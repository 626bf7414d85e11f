"""The inside of a workload's namespace: what it should hold, checked and put right.

One visit is one uninterrupted stretch: enter, make a socket, leave, use the socket, close it (an
open socket would pin the namespace). What is checked: the link is there and up, `lo` is up, the
MTU, the /32s and /128s, the gateway routes, the permanent neighbour. Whatever else a workload
configures in its own namespace is its own: it may rename the link, and have another default route.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

from api.resources.errors import ApplyError, Cause, Conflict
from api.resources.net import IPAddress, host_prefix
from routed.kernel import beside, observe
from routed.kernel import messages as m
from routed.kernel.netlink import Netlink, attributes
from routed.kernel.netns import entered, opened
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
        if endpoint.default_route:
            found += [step for _, step in _gateway(index, gateway)]
        else:
            found += beside.steps(index, endpoint, gateway)
        found.append((f"add the neighbour {gateway} in", m.neighbour(index, gateway, HOST_MAC)))
    return found


def refused(endpoint: Endpoint, step: str, number: int) -> ApplyError | Conflict:
    """What a failed one of `steps` means."""
    if number == errno.EEXIST and not endpoint.default_route:
        said = f"cannot {step} the namespace: there is one already"
        return Conflict(
            f"cannot attach {endpoint.workload}: {said}", causes=[Cause("routes", said)]
        )
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


def was_so(step: str, number: int) -> bool:
    """Whether a failed one of `steps` was done by an earlier attach of this workload."""
    return number == errno.EEXIST and step == beside.RULE


def leave(home: int, endpoint: Endpoint | None) -> None:
    """Remove what does not go with the link: the rules of an interface without the default route.
    A namespace that has gone has none."""
    if endpoint is None or endpoint.default_route or endpoint.netns is None:
        return
    rules = [beside.rule(endpoint.workload, value, add=False) for value in endpoint.addresses]
    with (
        suppress(OSError),
        opened(endpoint.netns, endpoint.netns_id) as inner,
        socket_inside(home, inner) as inside,
    ):
        inside.transact(rules)


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
        anywhere = ANYWHERE[gateway.version]
        over = partial(route, m.RTN_UNICAST, gateway=gateway.packed)
        if endpoint.default_route:
            if gateway.version == 4:
                found.append((partial(m.lookup, gateway), route(m.RTN_UNICAST, 32)))
            found.append((partial(m.lookup, anywhere), over(0)))
        else:
            own = [value for value in endpoint.addresses if value.version == gateway.version]
            found += [(partial(beside.lookup, anywhere, value), over(0)) for value in own]
            for prefix in beside.routes(endpoint, gateway):
                to_prefix = partial(m.lookup, prefix.network_address)
                found.append((to_prefix, over(prefix.prefixlen)))
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
        if endpoint.default_route:
            steps += [step for key, step in _gateway(index, gateway) if key not in known]
        else:
            steps += _beside(inside, index, endpoint, gateway, known)
        if permanent.get((index, gateway)) != HOST_MAC:
            steps.append((f"add the neighbour {gateway} in", m.neighbour(index, gateway, HOST_MAC)))
    return steps


def _beside(
    inside: Netlink, index: int, endpoint: Endpoint, gateway: IPAddress, known: Container[bytes]
) -> list[Step]:
    """What is missing of rules and routes of an interface without the default route."""
    wrong = {
        f"add the route to {prefix} in"
        for prefix in beside.routes(endpoint, gateway)
        if destination(prefix) not in known
    }
    for value in endpoint.addresses:
        if value.version == gateway.version:
            asked = beside.lookup(ANYWHERE[gateway.version], value)
            if not leads_over(inside, asked, index, gateway):
                wrong |= {"add its own default route in", beside.RULE}
    return [step for step in beside.steps(index, endpoint, gateway) if step[0] in wrong]


def leads_over(inside: Netlink, asked: bytearray, index: int, gateway: IPAddress) -> bool:
    """Whether the answer to a look-up is a route over `gateway` on link `index`."""
    try:
        found = attributes(inside.get(asked) or b"", 12)
    except OSError:
        return False
    out = found.get(m.RTA_OIF, b"")
    return out == _INDEX.pack(index) and found.get(m.RTA_GATEWAY) == gateway.packed


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
