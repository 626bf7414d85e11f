"""Hearing that somebody changed the nftables ruleset: `nft flush ruleset`, a firewall's reload.

Events only wake the loop (NFNLGRP_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h): what was
changed is found by reading back. Our own changes are heard too. Lost events (ENOBUFS) wake as well.
The kernel tells nobody of the legacy iptables: those are looked at now and then.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator

from policies import legacy

NETLINK_NETFILTER = 12
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
NFNLGRP_NFTABLES = 7
SETTLE = 0.02  # seconds that one transaction's events may take
LEGACY_SECONDS = 3.0  # between looks at the legacy iptables, at least


async def changes() -> AsyncIterator[None]:
    """One item for every burst of changes, in the namespace where this is first awaited."""
    link = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    link.setblocking(False)
    link.bind((0, 0))
    link.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
    loop = asyncio.get_running_loop()
    seen = legacy.state()
    try:
        while True:
            if await _readable(loop, link):
                await asyncio.sleep(SETTLE)
                _drain(link)
            elif seen == (held := await asyncio.to_thread(legacy.state)):
                continue
            else:
                seen = held
            yield
    finally:
        link.close()


async def _readable(loop: asyncio.AbstractEventLoop, link: socket.socket) -> bool:
    """Whether there are events, and not only time that has passed."""
    ready = asyncio.Event()
    loop.add_reader(link.fileno(), ready.set)
    try:
        async with asyncio.timeout(LEGACY_SECONDS):
            await ready.wait()
        return True
    except TimeoutError:
        return False
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
