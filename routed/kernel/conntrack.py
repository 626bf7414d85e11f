"""Connections that the kernel keeps in mind (conntrack), forgotten before an address is used again.

An entry outlives the workload that it was made for: five days for an established TCP flow, and what
comes in for one that stands is not looked at by any rule for new connections, and is translated as
it was before. So every entry that names a released address, as the source or the destination of
either direction (which is what port mappings and source NAT change), is deleted: soon after the
detach, off its answer's path, and at the latest before that address is attached again.

Once a second at most all entries are asked for, whatever the number of addresses: 9 ms of the
kernel's for its table of 262 144 buckets, and 3 us for each entry. Where there are very many
entries and few addresses, the kernel is asked to select by one address and place (`CTA_FILTER`,
Linux 5.8; an older one sends all, so what comes is always looked at). New entries cannot arise
meanwhile: what the old link sends is dropped before conntrack sees it (`policies/base.py`), and
what is sent to the address meets a blackhole before its entry is kept.

Sources: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from api.resources.errors import ApplyError
from api.resources.net import IPAddress
from policies.away import LABEL
from routed.kernel import observe
from routed.kernel.netlink import (
    NLA_F_NESTED,
    NLM_F_DUMP,
    Netlink,
    attr,
    attr_u32,
    attributes,
    message,
    nested,
    walk,
)

log = logging.getLogger("routed.kernel")
T = TypeVar("T")

NETLINK_NETFILTER = 12
CTNETLINK = 1 << 8  # NFNL_SUBSYS_CTNETLINK
CT_GET, CT_DELETE = CTNETLINK | 1, CTNETLINK | 2
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_ZONE, CTA_LABELS, CTA_FILTER = 1, 2, 12, 18, 22, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
PROTO_NUMBER, PROTO_DESTINATION = 1, 3
UDP = bytes([socket.IPPROTO_UDP])
IP_SOURCE, IP_DESTINATION = {4: 1, 16: 3}, {4: 2, 16: 4}  # by the bytes of an address
FILTER_ORIG, FILTER_REPLY = 1, 2  # CTA_FILTER_*_FLAGS
BY_SOURCE, BY_DESTINATION = 1, 2  # CTA_FILTER_FLAG(CTA_IP_SRC), (CTA_IP_DST)
FAMILIES = {4: socket.AF_INET, 16: socket.AF_INET6}

COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
MANY = 8000  # entries that take as long to look at here as one address to be selected by
DELAY = 1.0  # seconds for more addresses to join
TRIES = 3
ABSENT = {errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL}  # no nfnetlink; no ctnetlink

_TUPLE = struct.Struct("=HxxHxx")  # lengths of a tuple and of the addresses in it


def dump(family: int, selection: bytes = b"") -> bytearray:
    """Ask for entries: all of `family`, or those of a `selection`."""
    return message(CT_GET, NLM_F_DUMP, _header(family) + selection)


def delete(entry: bytes) -> bytearray:
    """Delete the very entry that a dump has told of; ENOENT if it is gone."""
    found = attributes(entry, 4)
    parts = attr(CTA_TUPLE_ORIG | NLA_F_NESTED, found[CTA_TUPLE_ORIG]) + attr(CTA_ID, found[CTA_ID])
    if CTA_ZONE in found:
        parts += attr(CTA_ZONE, found[CTA_ZONE])
    return message(CT_DELETE, 0, _header(entry[0]) + parts)


def selections(address: bytes) -> Iterator[bytes]:
    """One selection for each of the four places where an entry can name `address`."""
    size = len(address)
    for tuple_kind, flags_kind in ((CTA_TUPLE_ORIG, FILTER_ORIG), (CTA_TUPLE_REPLY, FILTER_REPLY)):
        for kind, flag in ((IP_SOURCE[size], BY_SOURCE), (IP_DESTINATION[size], BY_DESTINATION)):
            said = nested(tuple_kind, nested(CTA_TUPLE_IP, attr(kind, address)))
            yield said + nested(CTA_FILTER, attr_u32(flags_kind, flag))


def naming(buffers: Iterable[bytes], addresses: Collection[bytes]) -> list[bytes]:
    """The entries in `buffers` of a dump that name one of `addresses`."""
    wanted, found = set(addresses), []
    for data in buffers:
        for _, _, _, start, end in walk(data):
            if not wanted.isdisjoint(_places(data, start + 4)):
                found.append(data[start:end])
    return found


def _places(data: bytes, at: int) -> tuple[bytes, bytes, bytes, bytes]:
    """The addresses of both tuples, which begin an entry; in each they come first. This is done
    for every entry of a host, so nothing is taken apart that need not be."""
    whole, part = _TUPLE.unpack_from(data, at)
    size = (part - 4) // 2  # of an attribute: an address and its header
    other = at + ((whole + 3) & ~3)
    return (
        data[at + 12 : at + 8 + size],
        data[at + 12 + size : at + 8 + 2 * size],
        data[other + 12 : other + 8 + size],
        data[other + 12 + size : other + 8 + 2 * size],
    )


def _header(family: int) -> bytes:
    return struct.pack("=BBH", family, 0, 0)  # nfgenmsg


def seen(entry: bytes) -> bool:
    """Whether our table was there when it began, which labels every one (`policies/away.py`)."""
    labels = int.from_bytes(attributes(entry, 4).get(CTA_LABELS, b""), sys.byteorder)
    return bool(labels >> LABEL & 1)


def forget(addresses: Collection[IPAddress], *, unseen: bool = False) -> int:
    """Delete what names one of `addresses`, in this thread's namespace; how many entries. OSError.
    `unseen`: only what began without our table.

    It is looked once more for what was deleted, and what failed is raised: an entry that is left
    would be the next owner's.
    """
    count = 0
    with Netlink(protocol=NETLINK_NETFILTER) as netlink:
        for size, family in FAMILIES.items():
            some = {address.packed for address in addresses if len(address.packed) == size}
            for number in range(TRIES if some else 0):
                held = _entries(netlink, family, some)
                batch = [delete(entry) for entry in held if not (unseen and seen(entry))]
                if not batch:
                    break
                failed = set(netlink.transact(batch).values()) - {errno.ENOENT}
                count += len(batch)
                if failed and number == TRIES - 1:
                    raise OSError(failed.pop(), "cannot delete connections")
    return count


def _entries(netlink: Netlink, family: int, addresses: set[bytes]) -> list[bytes]:
    asked = [b""]
    if _count() > MANY * len(addresses):
        asked = [selection for one in addresses for selection in selections(one)]
    found: dict[bytes, None] = {}
    for selection in asked:
        request = dump(family, selection)
        found |= dict.fromkeys(netlink.read(request, lambda data: naming(data, addresses)))
    return list(found)


def absent() -> bool:
    """Whether this kernel cannot tell of connections at all."""
    try:
        with Netlink(protocol=NETLINK_NETFILTER) as netlink:
            netlink.read(dump(socket.AF_INET), lambda data: naming(data, ()))
    except OSError as error:
        return error.errno in ABSENT
    return False


def _count() -> int:
    """How many entries this namespace has."""
    try:
        return int(COUNT.read_text(encoding="ascii"))
    except OSError:
        return 0  # not told


def forget_ports(ports: Collection[int]) -> int:
    """Delete what is sent to one of these UDP `ports` of this host and not translated; how many.
    OSError.

    Who sends datagrams without a pause keeps his entry alive, and a port that is mapped meanwhile
    would never be for him. Whatever else is deleted is made again by its next packet as it was.
    """
    wanted, count = {struct.pack("!H", port) for port in ports}, 0
    with Netlink() as netlink:
        own = {one.packed for _, one in observe.addresses(netlink) if not one.is_loopback}
    with Netlink(protocol=NETLINK_NETFILTER) as netlink:
        for family in FAMILIES.values():
            entries = netlink.read(dump(family), lambda data: sent_to(data, own, wanted))
            netlink.transact([delete(one) for one in entries])
            count += len(entries)
    return count


def sent_to(
    buffers: Iterable[bytes], addresses: Collection[bytes], ports: Collection[bytes]
) -> list[bytes]:
    """The entries in `buffers` of a dump whose datagrams go to one of these UDP `ports` of one of
    `addresses`, and are not translated."""
    found = []
    for data in buffers:
        for _, _, _, start, end in walk(data):
            source, to, answered_by, answered_to = _places(data, start + 4)
            if to in addresses and (source, to) == (answered_to, answered_by):
                entry = data[start:end]
                if _udp_port(entry) in ports:
                    found.append(entry)
    return found


def _udp_port(entry: bytes) -> bytes | None:
    """Where the datagrams of an entry go to; None: it is of something else."""
    proto = attributes(attributes(attributes(entry, 4)[CTA_TUPLE_ORIG], 0)[CTA_TUPLE_PROTO], 0)
    return proto.get(PROTO_DESTINATION) if proto[PROTO_NUMBER] == UDP else None


class Connections:
    """Forgets those of released addresses, in a thread. Made and used in the loop's thread.

    A host whose kernel cannot tell of connections (no ctnetlink) is told of once: there is nothing
    that could be waited for.
    """

    def __init__(self) -> None:
        self._pending: set[IPAddress] = set()
        self._ports: set[int] = set()
        self._unseen: set[IPAddress] = set()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[OSError | None] | None = None
        self._absent = False

    def forget(self, addresses: Iterable[IPAddress]) -> None:
        """Have those of `addresses` forgotten soon."""
        if not self._absent:
            self._pending.update(addresses)
        waiting = self._pending or self._ports or self._unseen
        if waiting and (self._task is None or self._task.done()):
            self._hurry.clear()
            self._task = asyncio.create_task(self._later())

    def forget_ports(self, ports: Iterable[int]) -> None:
        """Have what is sent to these UDP ports of hosts looked at anew, at once."""
        self._at_once(self._ports, ports)

    def forget_unseen(self, addresses: Iterable[IPAddress]) -> None:
        """Have what began with these while our table was away looked at anew, at once."""
        self._at_once(self._unseen, addresses)

    def _at_once(self, waiting: set[T], some: Iterable[T]) -> None:
        if not self._absent:
            waiting.update(some)
        if waiting:
            self.forget(())
            self._hurry.set()

    async def forgotten(self, addresses: Collection[IPAddress]) -> None:
        """Return when none of `addresses` waits any more. ApplyError."""
        while not self._pending.isdisjoint(addresses):
            self.forget(())
            if (error := await self.drain()) is not None:
                key, number = ", ".join(map(str, addresses)), error.errno or errno.EIO
                raise ApplyError(key, "forget old connections of", number) from error

    async def drain(self) -> OSError | None:
        """Try what waits now; why something waits still."""
        if self._task is None:
            return None
        self._hurry.set()
        await asyncio.wait([self._task])
        return self._task.result()

    async def _later(self) -> OSError | None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), DELAY)
        while self._pending or self._ports or self._unseen:
            some, ports = frozenset(self._pending), frozenset(self._ports)
            unseen = frozenset(self._unseen)
            try:
                if unseen:
                    await asyncio.to_thread(forget, unseen, unseen=True)
                if ports:
                    await asyncio.to_thread(forget_ports, ports)
                await asyncio.to_thread(forget, some)
            except OSError as error:
                if error.errno not in ABSENT or not await asyncio.to_thread(absent):
                    log.warning("connections not forgotten addresses=%d: %s", len(some), error)
                    return error
                log.error("connections of released addresses stay: no ctnetlink here: %s", error)
                self._absent = True
            self._pending -= some
            self._ports -= ports
            self._unseen -= unseen
        return None
