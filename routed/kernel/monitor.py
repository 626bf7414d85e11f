"""Hearing of changes: links, addresses, routes, neighbours, here and in workloads' namespaces.

Events only wake the loop. NETLINK_LISTEN_ALL_NSID (net/netlink/af_netlink.c) brings the events of
every namespace that has an id here, which the other end of each veth pair has, so that something
taken away inside a workload is noticed without holding its namespace open. A receive buffer that
overflows (ENOBUFS) means a new socket and a full read.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import AsyncIterator

from routed.kernel import messages as m
from routed.kernel.netlink import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_LISTEN_ALL_NSID,
    SOL_NETLINK,
)

# RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
GROUPS = (1, 3, 5, 7, 9, 11)
INTERESTING = frozenset(
    (
        m.RTM_NEWLINK,
        m.RTM_DELLINK,
        m.RTM_DELADDR,
        m.RTM_DELROUTE,
        m.RTM_NEWROUTE,
        m.RTM_DELNEIGH,
    )
)
SETTLE = 0.02  # seconds that a burst may take before it wakes the loop


class Monitor:
    """Made in the host's namespace. `overflows` counts lost event streams; `touched` has the
    namespace ids in which something changed since it was last emptied."""

    def __init__(self, receive_buffer: int = 4 << 20) -> None:
        self.overflows = 0
        self.touched: set[int] = set()
        self._buffer = receive_buffer
        self._woken = asyncio.Event()
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen; changes from now on are not missed."""
        self._open()

    def _open(self) -> None:
        made = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        made.setsockopt(socket.SOL_SOCKET, 33, self._buffer)  # SO_RCVBUFFORCE
        with contextlib.suppress(PermissionError):
            made.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
        made.bind((0, 0))
        for group in GROUPS:
            made.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        self._socket = made
        asyncio.get_running_loop().add_reader(made.fileno(), self._readable)

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        assert self._socket is not None
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(1 << 16, 64)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overflows += 1
                self.close()
                self._open()
                self._woken.set()
                return
            if _interesting(data):
                for level, kind, content in ancillary:
                    if level == SOL_NETLINK and kind == NETLINK_LISTEN_ALL_NSID:
                        self.touched.add(struct.unpack("=i", content[:4])[0])
                self._woken.set()

    async def events(self) -> AsyncIterator[None]:
        while True:
            await self._woken.wait()
            await asyncio.sleep(SETTLE)
            self._woken.clear()
            yield


def _interesting(data: bytes) -> bool:
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            return False
        if kind in INTERESTING:
            return True
        offset += (length + 3) & ~3
    return False
