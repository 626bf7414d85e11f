"""Hearing of changes: links, addresses, routes, neighbours, here and in workloads' namespaces.

Events only wake the loop; a periodic full read catches what they missed. What we did ourselves
wakes nobody: the kernel writes the port of the requesting socket into each notification.

Two sockets, because of what each event costs. NETLINK_LISTEN_ALL_NSID brings the events of every
namespace that has an id here, which the other end of each veth pair has, so something taken away
inside a workload is noticed without holding its namespace open; but for each event of any
namespace the kernel then walks all ids (`peernet2id`, net/core/net_namespace.c): 70 us at 2 000
workloads. So `far` hears of addresses and routes only, and is deaf while we attach. Links inside
need no hearing: the carrier of their host side follows them.

A receive buffer that overflows (ENOBUFS), or an event that is not understood, means new sockets
and a full read.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from routed.kernel import messages as m
from routed.kernel import observe, shaping, spaces
from routed.kernel.netlink import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_DROP_MEMBERSHIP,
    NETLINK_LISTEN_ALL_NSID,
    SOL_NETLINK,
    attributes,
    walk,
)
from routed.kernel.removals import Removals
from routed.state import LINK_GROUP, ROUTE_PROTOCOL, SHAPER_GROUP

log = logging.getLogger("routed.kernel")

# RTNLGRP_LINK, NEIGH, TC, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE, IPV4_NETCONF,
# IPV6_NETCONF, NEXTHOP: the kernel does not tell of the IPv4 routes that it deletes with their next
# hop object
NEAR = (1, 3, 4, 5, 7, 9, 11, 24, 25, 32)
FAR = (5, 7, 8, 9, 11, 19)  # the same, and IPV4_RULE, IPV6_RULE
SPACES = 28  # RTNLGRP_NSID
ROUTES = (7, 11)
# with the last address of a link the kernel removes its IPv4 routes, and tells nobody of these
REMOVED = (m.RTM_DELROUTE, m.RTM_DELNEXTHOP, m.RTM_DELADDR)
GATHER = 0.01  # seconds that messages wait to be read: nearly all are of our own doing
SETTLE = 0.01  # seconds that a burst may take before it wakes the loop
BIRTH = 1.0  # seconds in which the messages of a link just made are our own doing
ALL_LINKS = -1  # NETCONFA_IFINDEX_ALL: the host's own setting
SO_RCVBUFFORCE = 33

_INDEX = struct.Struct("=i")
_PORT = struct.Struct("=I")


class Monitor:
    """Made in the host's namespace.

    `overflows` counts lost event streams. `links` are the links that are ours, `spaces` the ids of
    namespaces with the number of our links in each, both kept by the driver; `touched_links`,
    `touched_spaces` and `missed` (everything may have been touched) say where something changed
    since `forget`. `removals`: who has removed routes of ours, or gateways of workloads.

    What we do ourselves is mostly told by the port in the message, but not what the kernel does
    because of it: the first messages of a link just made (`born`), until it is whole, are ours.
    """

    def __init__(self, receive_buffer: int = 4 << 20) -> None:
        self.overflows = 0
        self.links: set[int] = set()
        self.spaces: Counter[int] = Counter()
        self.ports: set[int] = {os.getpid()}
        self.touched_links: set[int] = set()
        self.touched_spaces: set[int] = set()
        self.missed = False
        self.removals = Removals()
        self._near_groups: tuple[int, ...] = NEAR
        self._born: dict[int, float] = {}
        self._buffer = receive_buffer
        self._woken = asyncio.Event()
        self._near: socket.socket | None = None
        self._far: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen; changes from now on are not missed."""
        self._near = self._open(self._near_groups, self._hear_near)
        self._far = self._open(FAR, self._hear_far)
        self.listen_far(True)

    def born(self, index: int, space: int | None) -> None:
        """A link that we have just made; the other end is in namespace `space`."""
        self.links.add(index)
        self._born[index] = time.monotonic() + BIRTH
        if space is not None:
            self.spaces[space] += 1

    def gone(self, index: int, space: int | None) -> None:
        """A link that we are about to delete."""
        self.links.discard(index)
        self._born.pop(index, None)
        if space is not None and (left := self.spaces[space] - 1) > 0:
            self.spaces[space] = left
        elif space is not None:
            del self.spaces[space]

    def hear_spaces(self, spaces: Iterable[int]) -> None:
        """Namespaces that have no link of ours here (ipvlan): their end is heard of too."""
        some = list(spaces)
        self.spaces.update(some)
        if some and SPACES not in self._near_groups:
            self._near_groups = (*NEAR, SPACES)
            if self._near is not None:
                self._near.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, SPACES)

    def wake(self) -> None:
        """As if something had changed."""
        self._woken.set()

    def forget(self) -> tuple[set[int], set[int], bool]:
        """What was touched (links, namespace ids, or everything), to be gathered anew."""
        found = self.touched_links, self.touched_spaces, self.missed
        self.touched_links, self.touched_spaces, self.missed = set(), set(), False
        return found

    def listen_far(self, yes: bool) -> None:
        """Hear what happens inside workloads, or do not, for as short as can be without `await`:
        while we configure one."""
        if self._far is not None:
            with contextlib.suppress(PermissionError):
                self._far.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, int(yes))

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Do not hear of routes: many of ours are about to change, and would overflow."""
        self._membership(NETLINK_DROP_MEMBERSHIP)
        try:
            yield
        finally:
            self._membership(NETLINK_ADD_MEMBERSHIP)
            self.missed = True
            self.wake()

    def _membership(self, option: int) -> None:
        for each in (self._near, self._far):
            if each is not None:
                for group in ROUTES:
                    each.setsockopt(SOL_NETLINK, option, group)

    def close(self) -> None:
        for each in (self._near, self._far):
            if each is not None:
                with contextlib.suppress(RuntimeError):
                    asyncio.get_running_loop().remove_reader(each.fileno())
                each.close()
        self._near = self._far = None

    async def events(self) -> AsyncIterator[None]:
        while True:
            await self._woken.wait()
            await asyncio.sleep(SETTLE)
            self._woken.clear()
            yield

    def _open(
        self, groups: tuple[int, ...], hear: Callable[[socket.socket], None]
    ) -> socket.socket:
        made = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, self._buffer)
        made.bind((0, 0))
        for group in groups:
            made.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        asyncio.get_running_loop().add_reader(made.fileno(), self._later, made, hear)
        return made

    def _later(self, source: socket.socket, hear: Callable[[socket.socket], None]) -> None:
        """There is something to read: soon, in one go, when what attaches now has its answer."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(source.fileno())
        loop.call_later(GATHER, self._read, source, hear)

    def _read(self, source: socket.socket, hear: Callable[[socket.socket], None]) -> None:
        if source not in (self._near, self._far):
            return  # closed meanwhile
        try:
            hear(source)
        except BlockingIOError:
            loop = asyncio.get_running_loop()
            loop.add_reader(source.fileno(), self._later, source, hear)
        except Exception as error:
            # what is not understood is as good as lost; a reader that is not there hears no more
            if not isinstance(error, OSError) or error.errno != errno.ENOBUFS:
                log.exception("an event of the kernel is not understood: everything is read anew")
            self.overflows += 1
            self.close()
            self.start()
            self.missed = True
            self.wake()

    def _hear_near(self, source: socket.socket) -> None:
        while True:
            for kind, data, port in self._messages(source.recv(1 << 16)):
                if self._matters(kind, data):
                    self.wake()
                    if port and kind in REMOVED:
                        self.removals.note(port, time.monotonic())

    def _hear_far(self, source: socket.socket) -> None:
        while True:
            data, ancillary, _, _ = source.recvmsg(1 << 16, 64)
            for level, option, content in ancillary:
                if level == SOL_NETLINK and option == NETLINK_LISTEN_ALL_NSID:
                    space = _INDEX.unpack_from(content)[0]
                    if any(
                        kind in (m.RTM_DELADDR, m.RTM_DELROUTE, m.RTM_DELRULE)
                        for kind, _, _ in self._messages(data)
                    ):
                        self.touched_spaces.add(space)
                        if space in self.spaces:
                            self.wake()

    def _messages(self, data: bytes) -> Iterator[tuple[int, bytes, int]]:
        """(type, payload, port) of each message that is not of our own making."""
        for kind, _, _, start, end in walk(data):
            (port,) = _PORT.unpack_from(data, start - 4)
            if port not in self.ports:
                yield kind, data[start:end], port

    def _matters(self, kind: int, data: bytes) -> bool:
        """Whether a change here may concern us."""
        if kind in (m.RTM_NEWROUTE, m.RTM_DELROUTE):
            return data[5] == ROUTE_PROTOCOL
        if kind in (m.RTM_NEWNEXTHOP, m.RTM_DELNEXTHOP):
            return data[2] == ROUTE_PROTOCOL
        if kind == m.RTM_DELNEIGH:
            return _INDEX.unpack_from(data, 4)[0] in self.links
        if kind == m.RTM_DELADDR:
            return _INDEX.unpack_from(data, 4)[0] in self.links
        if kind in shaping.CHANGES:
            return shaping.is_ours(data) or _INDEX.unpack_from(data, 4)[0] in self.links
        if kind == m.RTM_NEWNETCONF:
            return self._setting_matters(data)
        if kind == spaces.RTM_DELNSID:
            return spaces.space_of(data) in self.spaces
        if kind not in (m.RTM_NEWLINK, m.RTM_DELLINK):
            return False
        _, _, index, flags, _ = m.IFINFO.unpack_from(data)
        group = observe.link_group(data)
        if group == LINK_GROUP and kind == m.RTM_NEWLINK:
            whole = m.IFF_UP | m.IFF_LOWER_UP
            if flags & whole == whole and index in self.links:
                self._born.pop(index, None)
                return False
            if self._just_born(index):
                return False
            self.touched_links.add(index)
            return True
        if group == SHAPER_GROUP:
            return kind == m.RTM_DELLINK or not flags & m.IFF_UP
        return group not in observe.OUR_GROUPS or (kind == m.RTM_DELLINK and group == LINK_GROUP)

    def _setting_matters(self, data: bytes) -> bool:
        """Forwarding of the host, or a setting of a link of ours."""
        found = attributes(data, 4).get(m.NETCONFA_IFINDEX, b"")
        index = _INDEX.unpack(found)[0] if len(found) == 4 else ALL_LINKS
        return index == ALL_LINKS or (index in self.links and not self._just_born(index))

    def _just_born(self, index: int) -> bool:
        until = self._born.get(index)
        if until is None:
            return False
        if time.monotonic() < until:
            return True
        del self._born[index]
        return False
