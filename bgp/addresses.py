"""Which address of ours a session's prefixes have as their next hop, for each version of IP.

Of the session's own version it is our end of the session. For the other one it is another address
of the same link, or, of IPv4 in a session over IPv6 whose peer takes it, our IPv6 end (RFC 8950).
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from api.resources.net import IPAddress, parse_address

log = logging.getLogger("routed.speaker")

RTM_NEWADDR, RTM_GETADDR = 20, 22
NLM_F_REQUEST, NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE = 0x1, 0x300, 2, 3
NLM_F_DUMP_INTR = 0x10
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
UNUSABLE = 0x08 | 0x20 | 0x40  # IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE
TEMPORARY = 0x01  # IFA_F_TEMPORARY (RFC 8981); of an IPv4 address it means "secondary"
SCOPE_UNIVERSE = 0


class Held(NamedTuple):
    """A usable address of ours; `wide`: of global scope."""

    link: int
    address: IPAddress
    wide: bool


def next_hops(
    local: IPAddress | None,
    carried: Collection[int],
    on_link: Iterable[IPAddress],
    *,
    extended: bool,
    before: Mapping[int, IPAddress] | None = None,
) -> dict[int, IPAddress]:
    """By version of IP; what is missing cannot be announced. `local` is our end of the session,
    `on_link` the addresses of its link; those used `before` stay in use while they are there."""
    if local is None:
        return {}
    found = {}
    for version in carried:
        if version == local.version or (version == 4 and extended):
            found[version] = local
            continue
        beside = [one for one in on_link if one.version == version]
        if beside:
            last = before.get(version) if before else None
            found[version] = last if last in beside else beside[0]
    return found


def not_carried(
    wanted: Iterable[int], carried: Collection[int], hops: Mapping[int, IPAddress]
) -> str:
    """What of `wanted` a session lacks, for people: what the peer did not offer, and what has no
    next hop; "": nothing."""
    reasons = []
    for version in sorted(wanted):
        if version not in carried:
            reasons.append(f"IPv{version} is not carried: the peer does not offer it")
        elif version not in hops:
            why = f"our link to the peer has no IPv{version} address to be the next hop"
            extended = ", and the peer takes no IPv6 one (RFC 8950)" if version == 4 else ""
            reasons.append(f"IPv{version} is not announced: {why}{extended}")
    return "; ".join(reasons)


def towards(peer: IPAddress, interface: str | None = None) -> IPAddress | None:
    """Our address towards `peer` (over a link): ExaBGP leaves it out of `up` when it reloads
    meanwhile."""
    family = socket.AF_INET if peer.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            to: tuple[str | int, ...] = (str(peer), 179)
            if peer.version == 6 and interface is not None:
                to += (0, socket.if_nametoindex(interface))
            probe.connect(to)  # a datagram socket: nothing is sent
            return parse_address(probe.getsockname()[0].partition("%")[0])
    except (OSError, ValueError):
        return None


def on_link_of(
    address: IPAddress, held: Collection[Held], interface: str | None = None
) -> list[IPAddress]:
    """Those of global scope on the link that has `address`, in the kernel's order; none if there is
    no such link. Many links can have one link-local address, VLANs for example: of those it is
    `interface`."""
    links = {one.link for one in held if one.address == address}
    if interface is not None and address.is_link_local:
        try:
            links &= {socket.if_nametoindex(interface)}
        except OSError:
            return []
    return [one.address for one in held if one.link in links and one.wide]


def has_link_local(interface: str, held: Iterable[Held]) -> bool:
    """Whether a link has such an address among those `held`."""
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        return False
    return any(one.link == index and one.address.is_link_local for one in held)


def usable() -> list[Held] | None:
    """Every address of ours that can be a next hop, in the kernel's order; None if that cannot be
    found out now."""
    problem: OSError | None = None
    for _ in range(3):  # a list is not whole if something has changed meanwhile
        try:
            return _dumped()
        except OSError as error:
            problem = error
    log.warning("our addresses cannot be read: %s", problem)
    return None


def _dumped() -> list[Held]:
    found: list[Held] = []
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as link:
        link.settimeout(2)
        link.send(struct.pack("=IHHII4xI", 24, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, 0))
        while True:
            data = link.recv(1 << 17)
            offset = 0
            while offset + 16 <= len(data):
                length, kind, flags = struct.unpack_from("=IHH", data, offset)
                if length < 16 or kind == NLMSG_ERROR or flags & NLM_F_DUMP_INTR:
                    raise OSError(f"the kernel's list is not whole (message {kind})")
                if kind == NLMSG_DONE:
                    return found
                if kind == RTM_NEWADDR and (one := _one(data[offset + 16 : offset + length])):
                    found.append(one)
                offset += (length + 3) & ~3


def _one(data: bytes) -> Held | None:
    _, _, flags, scope, index = struct.unpack_from("=BBBBI", data)
    parts, at = {}, 8
    while at + 4 <= len(data):
        size, attribute = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        parts[attribute] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    if IFA_FLAGS in parts:
        (flags,) = struct.unpack("=I", parts[IFA_FLAGS])
    raw = parts.get(IFA_LOCAL, parts.get(IFA_ADDRESS))
    if raw is None or flags & UNUSABLE or (len(raw) == 16 and flags & TEMPORARY):
        return None
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    address = parse_address(socket.inet_ntop(family, raw))
    return Held(index, address, scope == SCOPE_UNIVERSE)
