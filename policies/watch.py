"""Hearing that somebody changed the nftables ruleset: `nft flush ruleset`, a firewall's reload.

Events only wake the loop (NFNLGRP_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h): what was
changed is found by reading back. Our own changes come with the port of our own socket in their
header and are passed over, or each workload that comes would have everybody's rules read again.
Lost events (ENOBUFS) count as changes of anything. The kernel tells nobody of the legacy iptables:
those are looked at now and then.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Container

from policies import legacy
from policies import nfnetlink as nl
from policies.marks import TABLE

SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
SO_RCVBUFFORCE = 33
NFNLGRP_NFTABLES = 7
NFT_MSG_NEWGEN = 15
SETTLE = 0.02  # seconds for which changes of others' tables are gathered, in so many looks:
LOOKS = 10  # ours may be among what is still to come of one transaction
LEGACY_SECONDS = 3.0  # between looks at the legacy iptables, at least
ROOM = 1 << 22  # bytes of events that may wait: a set that is filled has one for each element

_OURS = TABLE.encode() + b"\0"


async def changes(ours: Callable[[], Container[int]]) -> AsyncIterator[bool]:
    """One item for every burst of changes that others made, in the namespace where this is first
    awaited: whether our table may be among what they changed. The first item comes at once, for
    what was not heard before. `ours` tells the netlink ports that we make changes by."""
    link = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, nl.NETLINK_NETFILTER
    )
    link.setblocking(False)
    try:
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
    except PermissionError:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    link.bind((0, 0))
    link.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
    loop = asyncio.get_running_loop()
    seen = legacy.state()
    try:
        yield True
        while True:
            if await _readable(loop, link):
                touched = _drained(link, ours())
                for _ in range(LOOKS):  # ours is never waited with: it may be gone
                    if touched is not False:
                        break
                    await asyncio.sleep(SETTLE / LOOKS)
                    touched = bool(_drained(link, ours()))
                if touched is not None:
                    yield touched
            elif seen != (held := await asyncio.to_thread(legacy.state)):
                seen = held
                yield False
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


def _drained(link: socket.socket, ours: Container[int]) -> bool | None:
    """Whether what waits is about our table too; None: it is all our own doing, or says nothing."""
    found: bool | None = None
    while True:
        try:
            data = link.recv(1 << 16)
        except BlockingIOError:
            return found
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            found = True
            continue
        touched = None if found else about(data, ours)
        if touched is not None:
            found = touched or bool(found)


def about(data: bytes, ours: Container[int]) -> bool | None:
    """Whether one datagram of events is about our table; None: it is of a transaction of ours,
    which has its datagrams for itself, or the end of one, which is a datagram of its own."""
    found: bool | None = None
    for one in nl.messages(data):
        if one.port in ours:
            return None
        at = one.place + nl.HEADER.size
        family = data[at : at + 1]
        subsystem, message = divmod(one.kind, 256)
        if (subsystem, message) == (nl.NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN):
            continue
        found = bool(found)
        if (subsystem, family) == (nl.NFNL_SUBSYS_NFTABLES, bytes([nl.NFPROTO_INET])):
            # of every object the first attribute is the name of its table
            first = next(nl.attributes(data, one.place + nl.START, one.end), (0, 0, 0))
            found = found or data[first[1] : first[2]] == _OURS
    return found
