"""Slaves of an ipvlan parent, as messages and as what a link message says of them. Pure.

A slave of a workload is made directly in its namespace. The index is given in the request: without
one the kernel would look for the name in the host's namespace, which has an eth0 of its own
(rtnl_newlink, net/core/rtnetlink.c).

Mode and flags belong to the parent: whoever makes or changes a slave decides on them for all
(ipvlan_set_port_mode, drivers/net/ipvlan/ipvlan_main.c).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from api.resources.workload import Mode
from routed.kernel import messages as m
from routed.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    attr,
    attr_text,
    attr_u32,
    attributes,
    message,
    nested,
)
from routed.state import LINK_GROUP, SLAVE_GROUP, Endpoint, slave_name

IFLA_TARGET_NETNSID = 46
IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS = 1, 2
IPVLAN_MODES = {Mode.IPVLAN_L3: 1, Mode.IPVLAN_L3S: 2}
MODE_NAMES = {0: "l2", 1: "l3", 2: "l3s"}

_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Shown:
    """A link of whatever kind: its master, what it is stacked on, and of ipvlan mode and flags."""

    index: int
    name: str
    group: int
    alias: str
    kind: str
    master: int
    lower: int
    mode: int = 0
    flags: int = 0


def kind_of(info: bytes) -> tuple[str, int, int]:
    """Kind, and of ipvlan mode and flags, in the content of an IFLA_LINKINFO."""
    found = attributes(info, 0)
    kind = found.get(m.IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace")
    if kind != "ipvlan":
        return kind, 0, 0
    data = attributes(found.get(m.IFLA_INFO_DATA, b""), 0)
    mode, flags = (data.get(one, b"\0\0") for one in (IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS))
    return kind, _U16.unpack_from(mode)[0], _U16.unpack_from(flags)[0]


def shown(data: bytes) -> Shown:
    """What a link message says."""
    found = attributes(data, 16)
    numbers = [
        int(_U32.unpack(found[kind])[0]) if kind in found else 0
        for kind in (m.IFLA_GROUP, m.IFLA_MASTER, m.IFLA_LINK)
    ]
    kind, mode, flags = kind_of(found.get(m.IFLA_LINKINFO, b""))
    return Shown(
        index=m.IFINFO.unpack_from(data)[2],
        name=found[m.IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"),
        group=numbers[0],
        alias=found.get(m.IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
        kind=kind,
        master=numbers[1],
        lower=numbers[2],
        mode=mode,
        flags=flags,
    )


def _slave(name: str, parent: int, index: int, group: int, mode: Mode, *more: bytes) -> bytearray:
    body = [
        m.IFINFO.pack(0, 0, index, 0, 0),
        attr_text(m.IFLA_IFNAME, name),
        attr_u32(m.IFLA_LINK, parent),
        attr_u32(m.IFLA_GROUP, group),
        _info(mode),
        *more,
    ]
    return message(m.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, b"".join(body))


def _info(mode: Mode) -> bytes:
    said = attr(IFLA_IPVLAN_MODE, _U16.pack(IPVLAN_MODES[mode]))
    said += attr(IFLA_IPVLAN_FLAGS, _U16.pack(0))
    kind = attr(m.IFLA_INFO_KIND, b"ipvlan")
    return nested(m.IFLA_LINKINFO, kind, nested(m.IFLA_INFO_DATA, said))


def make_inner(endpoint: Endpoint, parent: int, index: int, netns: int) -> bytearray:
    """A workload's slave, down, in namespace descriptor `netns`."""
    where = attr_u32(m.IFLA_NET_NS_FD, netns) + attr_u32(m.IFLA_MTU, endpoint.mtu)
    return _slave(endpoint.if_name, parent, index, LINK_GROUP, endpoint.mode, where)


def make_own(parent_name: str, parent: int, index: int, mode: Mode) -> bytearray:
    """The host's own slave, down."""
    return _slave(slave_name(parent_name), parent, index, SLAVE_GROUP, mode)


def set_mode(index: int, mode: Mode) -> bytearray:
    """Mode and flags of the parent of the slave `index`."""
    return message(m.RTM_NEWLINK, 0, m.IFINFO.pack(0, 0, index, 0, 0) + _info(mode))


def up(index: int, alias: str) -> bytearray:
    """Up, with its alias: what makes a slave of ours complete."""
    header = m.IFINFO.pack(0, 0, index, m.IFF_UP, m.IFF_UP)
    return message(m.RTM_SETLINK, 0, header + attr(m.IFLA_IFALIAS, alias.encode()))


def get_far(space: int, index: int) -> bytearray:
    """Ask for a link of the namespace that has the id `space` here."""
    where = attr_u32(IFLA_TARGET_NETNSID, space)
    return message(m.RTM_GETLINK, 0, m.IFINFO.pack(0, 0, index, 0, 0) + where)


def delete_far(space: int, index: int) -> bytearray:
    """Delete a link of the namespace that has the id `space` here."""
    where = attr_u32(IFLA_TARGET_NETNSID, space)
    return message(m.RTM_DELLINK, 0, m.IFINFO.pack(0, 0, index, 0, 0) + where)


def why_not(parent: Shown, mode: Mode, number: int, links: Iterable[Shown]) -> tuple[str, str]:
    """Why a slave of `parent` was refused with `number`, or may not be made (0), and what would
    help; ("", ""): it may be made. `links` are all that this host shows."""
    on_it = [link for link in links if link.lower == parent.index and link.index != parent.index]
    vlan = f"a VLAN sub-interface of {parent.name} as ipvlanParent, or mode veth"
    if number == errno.EOPNOTSUPP:
        return "this kernel has no ipvlan", "mode veth, or a kernel with CONFIG_IPVLAN"
    for link in links:
        if link.index == parent.master and link.kind in ("bridge", "bond", "team", "openvswitch"):
            said = f"{parent.name} is a member of the {link.kind} {link.name}"
            return said, f"{link.name} as ipvlanParent, or mode veth"
    for link in on_it:
        if link.kind in ("macvlan", "macvtap"):
            said = f"{parent.name} carries {link.name}, a {link.kind}: it never shares with ipvlan"
            return said, vlan
        wanted = IPVLAN_MODES[mode]
        if link.kind == "ipvlan" and link.group != SLAVE_GROUP and link.mode != wanted:
            has = MODE_NAMES.get(link.mode, str(link.mode))
            said = f"{parent.name} carries {link.name}, an ipvlan of mode {has}: all have one mode"
            return said, vlan
    if number == errno.EBUSY:
        said = f"{parent.name} is taken by somebody who shares it with nobody (macvlan, a bridge)"
        return said, vlan
    return "", ""
