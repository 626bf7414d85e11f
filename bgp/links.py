"""Hearing that a link is gone, without the agent: what was announced for it is dead.

RTNLGRP_LINK of rtnetlink(7), names only. If events were lost (ENOBUFS), every name is looked at.
Each attach makes several messages about its link; a filter on the socket (socket(7), classic BPF)
lets only deletions through, so that the speaker sleeps through all others.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterable

RTM_DELLINK = 17
RTMGRP_LINK = 1
IFLA_IFNAME = 3
SO_ATTACH_FILTER = 26
BPF_LDH_ABS, BPF_JEQ, BPF_RET = 0x28, 0x15, 0x06  # linux/bpf_common.h
TYPE_OFFSET = 4  # of nlmsg_type; BPF loads are in network byte order


class Links:
    """Calls `gone` with the names of links that went away, inside the loop."""

    def __init__(self, gone: Callable[[Iterable[str] | None], None]) -> None:
        self._gone = gone
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.setblocking(False)
        _only_deletions(self._socket)
        self._socket.bind((0, RTMGRP_LINK))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        names: set[str] = set()
        while True:
            try:
                names.update(_deleted(self._socket.recv(1 << 16)))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._gone(None)
        missing = {name for name in names if not exists(name)}
        if missing:
            self._gone(missing)


def _only_deletions(link: socket.socket) -> None:
    wanted = int.from_bytes(struct.pack("=H", RTM_DELLINK), "big")
    instructions = ((BPF_LDH_ABS, 0, 0, TYPE_OFFSET), (BPF_JEQ, 0, 1, wanted),
                    (BPF_RET, 0, 0, 0xFFFF_FFFF), (BPF_RET, 0, 0, 0))  # fmt: skip
    program = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    held = ctypes.create_string_buffer(program)
    described = struct.pack("@HP", len(instructions), ctypes.addressof(held))
    link.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)


def exists(name: str) -> bool:
    """Whether a link of that name is there now (it may have come back already)."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def _deleted(data: bytes) -> list[str]:
    found: list[str] = []
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            break
        if kind == RTM_DELLINK:
            at = offset + 32
            while at + 4 <= offset + length:
                size, attribute = struct.unpack_from("=HH", data, at)
                if size < 4:
                    break
                if attribute == IFLA_IFNAME:
                    found.append(data[at + 4 : at + size].rstrip(b"\0").decode(errors="replace"))
                at += (size + 3) & ~3
        offset += (length + 3) & ~3
    return found
