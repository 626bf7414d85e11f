"""Hearing that somebody changed the nftables ruleset: `nft flush ruleset`, a firewall's reload.

Events only wake the loop (NFNLGRP_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h): what was
changed is found by reading back. Our own changes are heard too. Lost events (ENOBUFS) wake as well.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator

NETLINK_NETFILTER = 12
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
NFNLGRP_NFTABLES = 7
SETTLE = 0.02  # seconds that one transaction's events may take


async def changes() -> AsyncIterator[None]:
    """One item for every burst of changes, in the namespace where this is first awaited."""
    link = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    link.setblocking(False)
    link.bind((0, 0))
    link.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
    loop = asyncio.get_running_loop()
    try:
        while True:
            await _readable(loop, link)
            await asyncio.sleep(SETTLE)
            _drain(link)
            yield
    finally:
        link.close()


async def _readable(loop: asyncio.AbstractEventLoop, link: socket.socket) -> None:
    ready = asyncio.Event()
    loop.add_reader(link.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(link.fileno())


def _drain(link: socket.socket) -> None:
    while True:
        try:
            link.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
