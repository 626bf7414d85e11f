"""The rules of the legacy iptables and ip6tables, which are in no nftables ruleset.

The kernel hands out a table as one blob (IPT_SO_GET_ENTRIES, linux/netfilter_ipv4/ip_tables.h). It
is asked for the filter table only where that is there already: asking makes a table that is not.
What comes out is in the words of ``nft -j list ruleset``, as far as they are needed to judge who is
let pass; matches that are none of an interface are put as `xt`, whatever they are. These tables are
read, never written.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from policies.firewall import LEGACY, TARGETS

FILTER = "filter"
HOOKS = {"input": 1, "forward": 2, "output": 3}  # NF_INET_*
NUMBER_OF_HOOKS = 5
GET_INFO, GET_ENTRIES = 64, 65  # IPT_SO_*, IP6T_SO_*: the same numbers
INFO = struct.Struct("=32sI5I5III")  # ipt_getinfo: name, hooks, entries, underflows, number, size
ENTRIES = struct.Struct("@32sI0Q")  # ipt_get_entries: name, size; the blob is aligned after it
GOTO, INVERTED_IN, INVERTED_OUT = 0x02, 0x01, 0x02  # IPT_F_GOTO; IPT_INV_VIA_IN, IPT_INV_VIA_OUT
INVERTED = {"saddr": 0x08, "daddr": 0x10}  # IPT_INV_SRCIP, IPT_INV_DSTIP
IP6_GOTO = 0x04  # IP6T_F_GOTO
VERDICTS = {-1: "drop", -2: "accept", -5: "return"}  # of the standard target: -NF_... - 1
NAME = 16  # IFNAMSIZ
COUNTERS = 16  # struct xt_counters, the last of an entry
# a table that somebody changes between two questions may look like anything
UNREADABLE = (OSError, ValueError, KeyError, IndexError, struct.error)


@dataclass(frozen=True, slots=True)
class Family:
    """How one family's rules lie in memory: struct ipt_entry, struct ip6t_entry."""

    name: str  # as nft calls it
    address_family: int
    level: int  # of getsockopt
    listing: str  # in /proc/net
    addresses: int  # bytes of sources, destinations and masks before the interface names
    flags: int  # the offset of the flags; those of inversion are in the byte after it
    goto: int
    offsets: int  # of target_offset and next_offset
    size: int  # without matches and target


FAMILIES = (
    Family("ip", socket.AF_INET, socket.IPPROTO_IP, "ip_tables_names", 16, 82, GOTO, 88, 112),
    Family(
        "ip6", socket.AF_INET6, socket.IPPROTO_IPV6, "ip6_tables_names", 64, 131, IP6_GOTO, 140, 168
    ),
)


def entries() -> list[dict[str, Any]]:
    """The filter tables of the legacy programs in the namespace of the calling thread; none where
    there are none, or where they cannot be read."""
    found: list[dict[str, Any]] = []
    for family, blob, places in _tables():
        with contextlib.suppress(*UNREADABLE):
            found += list(parse(family, blob, places))
    return found


def state() -> list[bytes]:
    """What differs when one of these tables does, found without looking at what its rules say."""
    return [
        family.name.encode() + hashlib.blake2b(uncounted(family, blob)).digest()
        for family, blob, _ in _tables()
    ]


def _tables() -> Iterator[tuple[Family, bytes, dict[str, tuple[int, int]]]]:
    for family in FAMILIES if struct.calcsize("P") == 8 else ():  # of 64 bit; others lie otherwise
        with contextlib.suppress(*UNREADABLE):
            if FILTER in Path("/proc/net", family.listing).read_text(encoding="ascii").split():
                yield family, *_read(family)


def uncounted(family: Family, blob: bytes) -> bytearray:
    """The blob with all counters at 0."""
    found, at = bytearray(blob), 0
    while at + family.size <= len(blob):
        found[at + family.size - COUNTERS : at + family.size] = bytes(COUNTERS)
        (length,) = struct.unpack_from("=H", blob, at + family.offsets + 2)
        if length < family.size:
            break
        at += length
    return found


def _read(family: Family) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The blob; for each hook where in it the chain begins, and where its policy is. OSError."""
    name = FILTER.encode().ljust(32, b"\0")
    with socket.socket(family.address_family, socket.SOCK_DGRAM) as link:
        info = INFO.unpack(_get(link, family.level, GET_INFO, name.ljust(INFO.size, b"\0")))
        asked = ENTRIES.pack(name, info[-1]) + bytes(info[-1])
        answer = _get(link, family.level, GET_ENTRIES, asked)  # EAGAIN: changed between the two
    if len(answer) != len(asked):
        raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
    places = {hook: (info[2 + at], info[2 + NUMBER_OF_HOOKS + at]) for hook, at in HOOKS.items()}
    return answer[ENTRIES.size :], places


def _get(link: socket.socket, level: int, option: int, asked: bytes) -> bytes:
    """getsockopt whose buffer says what is asked for, which Python's own cannot."""
    buffer = ctypes.create_string_buffer(asked, len(asked))
    length = ctypes.c_uint(len(asked))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(link.fileno(), level, option, buffer, ctypes.byref(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw[: length.value]


def parse(
    family: Family, blob: bytes, places: Mapping[str, tuple[int, int]]
) -> Iterator[dict[str, Any]]:
    """The chains and their rules; `places` as of `_read`. Pure."""
    rules = dict(_walk(family, blob))
    heads = {  # by the offset of a chain's first rule, its name
        at + rule.length: rule.said
        for at, rule in rules.items()
        if rule.target == "ERROR" and at + rule.length < len(blob)
    }
    chain = {"family": family.name, "table": LEGACY}
    for hook, (_, policy) in places.items():
        last = VERDICTS.get(rules[policy].verdict, "drop")
        yield {"chain": {**chain, "name": hook.upper(), "hook": hook, "policy": last}}
    yield from ({"chain": {**chain, "name": name}} for name in heads.values())
    begins = {begin: hook.upper() for hook, (begin, _) in places.items()}
    policies = {policy for _, policy in places.values()}
    name = ""
    for at, rule in sorted(rules.items()):
        name = begins.get(at) or heads.get(at, name)
        over = at in policies or rule.target == "ERROR"
        if name and not over:
            yield {"rule": {**chain, "chain": name, "expr": [*rule.matches, rule.action(heads)]}}
        if over:
            name = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule: `said` is the chain's name where it begins one (target ERROR), `verdict` that of
    the standard target, which has no name."""

    length: int
    target: str
    verdict: int
    said: str
    goto: bool
    matches: list[dict[str, Any]]

    def action(self, heads: dict[int, str]) -> dict[str, Any]:
        if self.target:
            return {TARGETS.get(self.target, "xt"): {"type": "target", "name": self.target}}
        if self.verdict < 0:
            return {VERDICTS.get(self.verdict, "xt"): None}
        return {"goto" if self.goto else "jump": {"target": heads.get(self.verdict, "")}}


def _walk(family: Family, blob: bytes) -> Iterator[tuple[int, Entry]]:
    at = 0
    while at + family.size <= len(blob):
        target, length = struct.unpack_from("=HH", blob, at + family.offsets)
        flags, inverted = struct.unpack_from("=BB", blob, at + family.flags)
        name = _text(blob[at + target + 2 : at + target + 31])
        data = at + target + 32
        (verdict,) = struct.unpack_from("=i", blob, data) if not name else (0,)
        said = _text(blob[data : data + 32]) if name == "ERROR" else ""
        matches = list(_matches(family, blob[at : at + target], inverted))
        yield at, Entry(length, name, verdict, said, bool(flags & family.goto), matches)
        if length < family.size:
            return
        at += length


def _matches(family: Family, entry: bytes, inverted: int) -> Iterator[dict[str, Any]]:
    start = family.addresses
    for key, place, mark in (("iifname", 0, INVERTED_IN), ("oifname", 1, INVERTED_OUT)):
        name = _text(entry[start + place * NAME : start + (place + 1) * NAME])
        mask = entry[start + (place + 2) * NAME : start + (place + 3) * NAME]
        if any(mask):  # it has no more bytes than the name where that ends with a +
            whole = mask[len(name) : len(name) + 1] != b"\0"
            right = name if whole else f"{name.removesuffix('+')}*"
            op = "!=" if inverted & mark else "=="
            yield {"match": {"op": op, "left": {"meta": {"key": key}}, "right": right}}
    yield from _addresses(family, entry, inverted)
    protocol = entry[start + 4 * NAME : start + 4 * NAME + 2]
    known = INVERTED_IN | INVERTED_OUT | INVERTED["saddr"] | INVERTED["daddr"]
    if any(protocol) or inverted & ~known:
        yield {"xt": {"type": "match", "name": "header"}}
    at = family.size
    while at + 32 <= len(entry):  # struct xt_entry_match
        yield {"xt": {"type": "match", "name": _text(entry[at + 2 : at + 31])}}
        at += max(32, *struct.unpack_from("=H", entry, at))


def _addresses(family: Family, entry: bytes, inverted: int) -> Iterator[dict[str, Any]]:
    size = family.addresses // 4  # source, destination, and the mask of each
    for place, field in enumerate(INVERTED):
        address = entry[place * size : (place + 1) * size]
        mask = int.from_bytes(entry[(place + 2) * size : (place + 3) * size], "big")
        if not mask:
            continue
        length = mask.bit_count()
        if mask != (1 << 8 * size) - (1 << 8 * size - length):
            yield {"xt": {"type": "match", "name": "mask"}}
            continue
        right = {"prefix": {"addr": str(ip_address(address)), "len": length}}
        left = {"payload": {"protocol": family.name, "field": field}}
        op = "!=" if inverted & INVERTED[field] else "=="
        yield {"match": {"op": op, "left": left, "right": right}}


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(errors="replace")
