"""Everything on a host that decides about ipvlan, looked at once for a person (`routed doctor`)."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from api.resources.net import IPAddress
from routed.kernel import interior, netns, observe, slaves
from routed.kernel import messages as m
from routed.kernel.netlink import Netlink
from routed.kernel.slaves import Shown
from routed.kernel.uplinks import Uplinks
from routed.state import LINK_GROUP, SLAVE_GROUP


@dataclass(frozen=True, slots=True)
class Slave:
    """One of somebody else: `where` is its namespace's name, "" the host's own."""

    where: str
    link: Shown
    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """`own` is the host's slave of ours; `uplinks` are the links that lead off; `foreign` other
    people's slaves of `parent`, as far as their namespaces have names under /run/netns."""

    parent: Shown
    links: tuple[Shown, ...]
    uplinks: tuple[str, ...] = ()
    own: Shown | None = None
    foreign: tuple[Slave, ...] = ()


def survey(asked: str) -> Survey:
    """Of the parent that is `asked` for, or the one that would be chosen. Invalid, OSError."""
    with Netlink() as netlink:
        uplinks = Uplinks(netlink)
        name = uplinks.parent(asked)
        links = _shown(netlink)
        parent = next(link for link in links if link.name == name)
        own = [link for link in _on(parent, links) if link.group == SLAVE_GROUP]
        foreign = _foreign(netlink, "", parent)
        names = tuple(uplinks.names())
    home = netns.open_own()
    try:
        for path in sorted(netns.NAMED.glob("*")) if netns.NAMED.is_dir() else []:
            with (
                contextlib.suppress(OSError),  # it went meanwhile, or is no namespace
                netns.opened(str(path), None) as inner,
                interior.socket_inside(home, inner) as inside,
            ):
                foreign += _foreign(inside, path.name, parent)
    finally:
        os.close(home)
    return Survey(parent, tuple(links), names, own[0] if own else None, tuple(foreign))


def _shown(netlink: Netlink) -> list[Shown]:
    return [slaves.shown(data) for data in netlink.dump(m.dump_links())]


def _on(parent: Shown, links: list[Shown]) -> list[Shown]:
    return [link for link in links if link.kind == "ipvlan" and link.lower == parent.index]


def _foreign(netlink: Netlink, where: str, parent: Shown) -> list[Slave]:
    found = []
    for link in _on(parent, _shown(netlink)):
        if link.group not in (LINK_GROUP, SLAVE_GROUP):
            held = observe.addresses(netlink, {link.index})
            addresses = sorted((a for _, a in held if not a.is_link_local), key=str)
            found.append(Slave(where, link, tuple(addresses)))
    return found
