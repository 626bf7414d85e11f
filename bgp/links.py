"""Hearing that a link or a namespace is gone, without the agent: what was announced for it is dead.

RTNLGRP_LINK and RTNLGRP_NSID of rtnetlink(7); links by name, namespaces by the id that this one has
for them. If events were lost (ENOBUFS), every one is looked at. Each attach makes several messages
about its link; a filter on the socket (socket(7), classic BPF) lets only deletions through, so that
the speaker sleeps through all others.

Race: a name or an id may be somebody's again when its deletion is read. Of a name it is looked
whether a link has it. Of an id that would not do, for the kernel gives the lowest that is free: a
prefix of the next holder, if already announced, is withdrawn, and its agent, told so, announces it
again.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Callable, Collection

RTM_DELLINK = 17
RTM_DELNSID, RTM_GETNSID = 89, 90
GROUPS = 1 << 0 | 1 << 27  # RTNLGRP_LINK (1), RTNLGRP_NSID (28), as a mask
IFLA_IFNAME = 3
NETNSA_NSID = 1
NLM_F_REQUEST = 1
NLMSG_ERROR = 2
SO_ATTACH_FILTER = 26
BPF_LDH_ABS, BPF_JEQ, BPF_RET = 0x28, 0x15, 0x06  # linux/bpf_common.h
TYPE_OFFSET = 4  # of nlmsg_type; BPF loads are in network byte order


End = str | int  # a link by its name, a namespace by its id


class Links:
    """Calls `gone` with the links and namespaces that went away, inside the loop; with None, where
    it is not known which."""

    def __init__(self, gone: Callable[[Collection[End] | None], None]) -> None:
        self._gone = gone
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.setblocking(False)
        _only_deletions(self._socket)
        self._socket.bind((0, GROUPS))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        ends: set[End] = set()
        while True:
            try:
                ends.update(_deleted(self._socket.recv(1 << 16)))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._gone(None)
        missing = {end for end in ends if isinstance(end, int) or not exists(end)}
        if missing:
            self._gone(missing)


def _only_deletions(link: socket.socket) -> None:
    kinds = [int.from_bytes(struct.pack("=H", one), "big") for one in (RTM_DELLINK, RTM_DELNSID)]
    instructions = ((BPF_LDH_ABS, 0, 0, TYPE_OFFSET), (BPF_JEQ, 1, 0, kinds[0]),
                    (BPF_JEQ, 0, 1, kinds[1]),
                    (BPF_RET, 0, 0, 0xFFFF_FFFF), (BPF_RET, 0, 0, 0))  # fmt: skip
    program = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    held = ctypes.create_string_buffer(program)
    described = struct.pack("@HP", len(instructions), ctypes.addressof(held))
    link.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)


def exists(end: End) -> bool:
    """Whether it is there now; a name may be that of another link already, an id that of another
    namespace."""
    if isinstance(end, int):
        return _numbered(end)
    try:
        socket.if_nametoindex(end)
    except OSError:
        return False
    return True


def _numbered(number: int) -> bool:
    """Whether a namespace has that id here."""
    asked = struct.pack("=HHi", 8, NETNSA_NSID, number)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.settimeout(2)
        head = struct.pack("=IHHII", 20 + len(asked), RTM_GETNSID, NLM_F_REQUEST, 1, 0)
        link.send(head + bytes(4) + asked)
        (kind,) = struct.unpack_from("=H", link.recv(1 << 12), TYPE_OFFSET)
    return bool(kind != NLMSG_ERROR)


def _deleted(data: bytes) -> list[End]:
    found: list[End] = []
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            break
        end = offset + length
        if kind == RTM_DELLINK:  # behind struct ifinfomsg
            name = _attribute(data, offset + 32, end, IFLA_IFNAME)
            found += [name.rstrip(b"\0").decode(errors="replace")] if name else []
        elif kind == RTM_DELNSID:  # behind struct rtgenmsg
            number = _attribute(data, offset + 20, end, NETNSA_NSID)
            found += [int.from_bytes(number, sys.byteorder, signed=True)] if number else []
        offset += (length + 3) & ~3
    return found


def _attribute(data: bytes, at: int, end: int, wanted: int) -> bytes:
    """What the first attribute of that type has; empty: there is none."""
    while at + 4 <= end:
        size, attribute = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        if attribute == wanted:
            return data[at + 4 : at + size]
        at += (size + 3) & ~3
    return b""
