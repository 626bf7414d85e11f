"""Messages of nfnetlink (include/uapi/linux/netfilter/nfnetlink.h), put together and taken apart.
Pure."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

NETLINK_NETFILTER = 12
NFNL_SUBSYS_ULOG, NFNL_SUBSYS_NFTABLES = 4, 10
NFPROTO_UNSPEC, NFPROTO_INET = 0, 1
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP = 0x1, 0x4, 0x400, 0x300
NLM_F_DUMP_INTR = 0x10  # of what is dumped, something changed meanwhile
NLMSG_ERROR, NLMSG_DONE = 2, 3
NESTED, KIND = 0x8000, 0x3FFF  # of an attribute's type

HEADER = struct.Struct("=IHHII")  # nlmsghdr
BODY = struct.Struct("!BBH")  # nfgenmsg
ATTR = struct.Struct("=HH")  # nlattr
START = HEADER.size + BODY.size  # of the attributes of a message


class Message(NamedTuple):
    """Where one is, and what its header says; `port` is that of who asked, or made a change."""

    kind: int
    flags: int
    number: int
    port: int
    place: int
    end: int


def message(
    kind: int, flags: int, number: int, body: bytes, family: int, resource: int = 0
) -> bytes:
    """`kind` with its subsystem."""
    header = HEADER.pack(START + len(body), kind, NLM_F_REQUEST | flags, number, 0)
    return header + BODY.pack(family, 0, resource) + body


def attribute(kind: int, value: bytes) -> bytes:
    return ATTR.pack(ATTR.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def messages(data: bytes) -> Iterator[Message]:
    """Those of one datagram."""
    place = 0
    while place + HEADER.size <= len(data):
        length, kind, flags, number, port = HEADER.unpack_from(data, place)
        yield Message(kind, flags, number, port, place, min(place + length, len(data)))
        place += max(length + 3 & ~3, HEADER.size)


def failure(data: bytes, place: int) -> OSError | None:
    """What an NLMSG_ERROR or NLMSG_DONE at `place` says; None: that all is well."""
    at = place + HEADER.size
    code = -int.from_bytes(data[at : at + 4], sys.byteorder, signed=True)
    return OSError(code, os.strerror(code)) if code else None


def attributes(data: bytes, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of the value of each attribute between `place` and `end`."""
    while place + ATTR.size <= end:
        length, kind = ATTR.unpack_from(data, place)
        yield kind & KIND, place + ATTR.size, min(place + length, end)
        place += max(length + 3 & ~3, ATTR.size)
