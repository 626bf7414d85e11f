"""The interfaces and addresses of this host, and from which it reaches others: for the choice of
its own addresses (`routed.addressing`), once in a while."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable

from api.resources.net import IPAddress, parse_address
from routed.addressing import Held, Interface
from routed.kernel import messages as m
from routed.kernel import observe, slaves
from routed.kernel.netlink import Netlink, attributes

VRF = "vrf"
# include/uapi/linux/if_addr.h; of IPv4, secondary is what is temporary of IPv6
IFA_F_SECONDARY, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x01, 0x08, 0x20, 0x40
UNUSABLE = IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE


def read() -> list[Interface]:
    """Those of the namespace of the calling thread that have an address which others may know.
    OSError. Nothing is asked of each link of ours: there may be thousands."""
    held: dict[int, list[Held]] = {}
    with Netlink() as netlink:
        for data in netlink.dump(m.dump_addresses()):
            _, _, flags, scope, index = m.IFADDR.unpack_from(data)
            if scope >= m.RT_SCOPE_LINK:
                continue
            parts = attributes(data, 8)
            raw = parts.get(m.IFA_LOCAL) or parts.get(m.IFA_ADDRESS)
            if m.IFA_FLAGS in parts:
                flags = int.from_bytes(parts[m.IFA_FLAGS], sys.byteorder)
            if raw:
                address = observe.address_of(raw)
                one = Held(address, bool(flags & IFA_F_SECONDARY), not flags & UNUSABLE)
                held.setdefault(index, []).append(one)
        found = [_interface(netlink, index, tuple(some)) for index, some in held.items()]
    return [one for one in found if one is not None]


def missing(names: Iterable[str]) -> dict[str, str]:
    """Which of these nothing is called now, and why: packets are told by an interface's own name,
    not by its alternative ones, which the kernel takes for it everywhere else."""
    found = {}
    for name in names:
        try:
            own = socket.if_indextoname(socket.if_nametoindex(name))
        except OSError:
            found[name] = f"no interface is called {name} now"
            continue
        if own != name:
            found[name] = f"{name} is another name of {own}, which has to be named"
    return found


def sources(host: str, port: int = 9) -> list[IPAddress]:
    """The address that this host reaches another from, by the kernel's routes: one of each family
    that the name has. Nothing is sent; none where there is no way."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    by_family: dict[int, IPAddress] = {}
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(place)
                address = parse_address(str(probe.getsockname()[0]).partition("%")[0])
        except (OSError, ValueError):
            continue
        by_family.setdefault(family, address)
    return list(by_family.values())


def _interface(netlink: Netlink, index: int, held: tuple[Held, ...]) -> Interface | None:
    """None if it has gone meanwhile."""
    data = _link(netlink, index)
    if data is None:
        return None
    link, kind = observe.link_of(data), _kind(data)
    raw = attributes(data, 16).get(m.IFLA_MASTER)
    above = _link(netlink, int.from_bytes(raw, sys.byteorder)) if raw else None
    vrf = VRF in (kind, _kind(above) if above else "")
    return Interface(link.name, link.up, held, kind, link.group in observe.OUR_GROUPS, vrf)


def _link(netlink: Netlink, index: int) -> bytes | None:
    try:
        return netlink.get(m.get_link(index))
    except OSError:
        return None


def _kind(data: bytes) -> str:
    return slaves.kind_of(attributes(data, 16).get(m.IFLA_LINKINFO, b""))[0]
