"""Hearing that a link is gone, without the agent: what was announced for it is dead.

RTNLGRP_LINK of rtnetlink(7), names only. If events were lost (ENOBUFS), every name is looked at.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterable

RTM_DELLINK = 17
RTMGRP_LINK = 1
IFLA_IFNAME = 3


class Links:
    """Calls `gone` with the names of links that went away, inside the loop."""

    def __init__(self, gone: Callable[[Iterable[str] | None], None]) -> None:
        self._gone = gone
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.setblocking(False)
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
