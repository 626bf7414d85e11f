"""Requests for learned routes by the hundred thousand.

Pure. Requests for routes of one level (see fib) differ in their address and sequence number only.
So the sequence numbers are places in a batch, what is before and behind the address is packed once
for each place, and no Python statement is run for each route.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from routed.kernel import fib
from routed.kernel import messages as m
from routed.kernel.netlink import (
    BATCH_BYTES,
    BATCH_REQUESTS,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NUMBERED,
    attr_u32,
)

_HEADER = struct.Struct("=IHHII")


@dataclass(frozen=True, slots=True)
class Batch:
    """Numbered requests (`Netlink.transact_numbered`), one for each of `addresses`."""

    level: bytes
    addresses: Sequence[bytes]
    requests: bytes


def over_group(
    group: int, level: bytes, addresses: Sequence[bytes], *, replace: bool
) -> Iterator[Batch]:
    """Requests for routes that use a next hop group."""
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    end = attr_u32(m.RTA_NH_ID, group)
    return _batches(m.RTM_NEWROUTE, flags, m.RT_SCOPE_UNIVERSE, level, addresses, end)


def without(level: bytes, addresses: Sequence[bytes]) -> Iterator[Batch]:
    """Requests that remove learned routes of ours."""
    return _batches(m.RTM_DELROUTE, 0, m.RT_SCOPE_NOWHERE, level, addresses, b"")


def _batches(
    kind: int, flags: int, scope: int, level: bytes, addresses: Sequence[bytes], end: bytes
) -> Iterator[Batch]:
    """The requests differ in address and sequence number only."""
    family, length = level[:2]
    size = m.ADDRESS_BYTES[family] if length else 0
    begin = m.route_header(family, length, scope) + (m.DESTINATION[family] if size else b"")
    rest = attr_u32(m.RTA_PRIORITY, fib.metric(level)) + end
    whole = 16 + len(begin) + size + len(rest)
    count = min(BATCH_BYTES // whole, BATCH_REQUESTS)
    begins = [
        _HEADER.pack(whole, kind, flags | NLM_F_REQUEST, NUMBERED + place, 0) + begin
        for place in range(min(count, len(addresses)))
    ]
    for start in range(0, len(addresses), count):
        some = addresses[start : start + count]
        parts = zip(begins, some, repeat(rest), strict=False)
        yield Batch(level, some, b"".join(chain.from_iterable(parts)))
