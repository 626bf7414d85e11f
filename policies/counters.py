"""What rules of policies have counted, read from the kernel and added up.

nft's library asks for every chain and set before it lists anything, and is for one user at a time.
Reading rules needs none of that: one dump by a socket of its own, in whichever thread, which costs
what there are of rules, and these number as policies do, not as workloads.

A chain that is written anew, or the whole table, begins its counters anew (ADR 10). A `Tally` keeps
what they had counted when they were read last, so that its sums never become less. A rule is known
by its handle, which a table gives once, and a table by its own. A dump that was interrupted by a
transaction may lack rules, so only one that was not says that a rule is gone.

Messages: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from api.resources.errors import ApplyError
from policies import nfnetlink as nl
from policies.compile.ruleset import CHAIN_NAMES, label_of
from policies.marks import TABLE

NEWTABLE, GETTABLE, NEWRULE, GETRULE = 0, 1, 6, 7
TABLE_NAME, TABLE_HANDLE = 1, 4
RULE_TABLE, RULE_CHAIN, RULE_HANDLE, RULE_EXPRESSIONS, RULE_USERDATA = 1, 2, 3, 4, 7
EXPR_DATA = 2
COUNTER_BYTES, COUNTER_PACKETS = 1, 2
COMMENT = 0  # of what nft keeps with a rule (NFTNL_UDATA_RULE_COMMENT)
TRIAL = "trial-"  # chains of the walk in which staged policies are in effect
PATIENCE = 10.0  # seconds until the kernel has answered
TRIES = 3  # if the table is made anew while it is read

_U64 = struct.Struct("!Q")
_COUNTER = b"counter\0"


@dataclass(frozen=True, slots=True)
class Key:
    """What is counted: the label of rules (`policies/compile/names.py`), and whether they only say
    what staged policies would do."""

    label: str
    staged: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    packets: int = 0
    octets: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.packets + other.packets, self.octets + other.octets)


@dataclass(frozen=True, slots=True)
class Reading:
    """The rules of policies that count, by handle; `table` is its handle, 0 if there is none.
    `whole`: none is missing."""

    table: int = 0
    rules: Mapping[int, tuple[Key, Count]] = field(default_factory=dict)
    whole: bool = True

    def totals(self) -> dict[Key, Count]:
        """What one rule of a policy became several of is added up."""
        return summed(self.rules.values())


def summed(counts: Iterable[tuple[Key, Count]]) -> dict[Key, Count]:
    found: dict[Key, Count] = {}
    for key, count in counts:
        found[key] = found.get(key, Count()) + count
    return found


class Tally:
    """Sums that never become less, whatever becomes of the rules that count. `gone` is what rules
    that are no more had counted."""

    def __init__(self, gone: Mapping[Key, Count] | None = None) -> None:
        self.gone = dict(gone or {})
        self._table = 0
        self._rules: dict[int, tuple[Key, Count]] = {}

    def take(self, reading: Reading) -> None:
        """The next one."""
        if reading.table != self._table:
            self._bury(list(self._rules))
            self._table = reading.table
        elif reading.whole:
            self._bury([handle for handle in self._rules if handle not in reading.rules])
        for handle, (key, count) in reading.rules.items():
            before = self._rules.get(handle)
            if before is not None and (before[0] != key or count.packets < before[1].packets):
                self._bury([handle])  # somebody has reset it
            self._rules[handle] = key, count

    def _bury(self, handles: Iterable[int]) -> None:
        for handle in handles:
            key, count = self._rules.pop(handle)
            if count.packets:
                self.gone[key] = self.gone.get(key, Count()) + count

    def forget(self, known: Iterable[Key]) -> None:
        """Whatever is neither `known` nor in the table: its policy is no more."""
        kept = {*known, *(key for key, _ in self._rules.values())}
        self.gone = {key: count for key, count in self.gone.items() if key in kept}

    def totals(self) -> dict[Key, Count]:
        return summed([*self.gone.items(), *self._rules.values()])


class Counters:
    """A socket to read them by, in the namespace where this is made."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, nl.NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(PATIENCE)
        self._number = 0

    def close(self) -> None:
        self._socket.close()

    def read(self) -> Reading:
        """As they are now. ApplyError."""
        try:
            for _ in range(TRIES):
                table = self._table()
                rules, whole = self._rules() if table else ({}, True)
                if self._table() == table:
                    return Reading(table, rules, whole)
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except OSError as error:
            number = error.errno or errno.ETIMEDOUT
            raise ApplyError(f"table inet {TABLE} (counters)", "read", number) from error

    def _table(self) -> int:
        """Its handle; 0: there is no table."""
        wanted = nl.attribute(TABLE_NAME, TABLE.encode() + b"\0")
        try:
            for kind, data, start, end, _ in self._asked(GETTABLE, 0, wanted):
                for name, at, _ in nl.attributes(data, start, end):
                    if kind == NEWTABLE and name == TABLE_HANDLE:
                        return int(_U64.unpack_from(data, at)[0])
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        return 0

    def _rules(self) -> tuple[dict[int, tuple[Key, Count]], bool]:
        """Those that count, and whether they are all."""
        wanted, whole = nl.attribute(RULE_TABLE, TABLE.encode() + b"\0"), True
        found: dict[int, tuple[Key, Count]] = {}
        for kind, data, start, end, flags in self._asked(GETRULE, nl.NLM_F_DUMP, wanted):
            whole = whole and not flags & nl.NLM_F_DUMP_INTR
            if kind == NEWRULE and (one := _rule(data, start, end)) is not None:
                found[one[0]] = one[1], one[2]
        return found, whole

    def _asked(
        self, kind: int, flags: int, body: bytes
    ) -> Iterator[tuple[int, bytes, int, int, int]]:
        """Each answer: its type in the subsystem, where it is, its flags. OSError."""
        self._number += 1
        asked = nl.NFNL_SUBSYS_NFTABLES << 8 | kind
        ends = flags or nl.NLM_F_ACK
        self._socket.send(nl.message(asked, ends, self._number, body, nl.NFPROTO_INET))
        while True:
            data = self._socket.recv(1 << 16)
            for one in nl.messages(data):
                if one.number != self._number:
                    continue  # of a question that was given up
                ended = one.kind in (nl.NLMSG_ERROR, nl.NLMSG_DONE)
                if ended and (error := nl.failure(data, one.place)) is not None:
                    raise error
                if one.kind == nl.NLMSG_ERROR:
                    return
                yield one.kind & 0xFF, data, one.place + nl.START, one.end, one.flags
                if ended:
                    return


def _rule(data: bytes, start: int, end: int) -> tuple[int, Key, Count] | None:
    """Handle, key and count of a rule of policies; None: it is not one, or does not count."""
    handle, chain, mark, count = 0, "", "", None
    for name, at, to in nl.attributes(data, start, end):
        if name == RULE_CHAIN:
            chain = data[at : to - 1].decode()
            if not chain.startswith(CHAIN_NAMES):
                return None
        elif name == RULE_HANDLE:
            handle = _U64.unpack_from(data, at)[0]
        elif name == RULE_EXPRESSIONS:
            count = _count(data, at, to)
            if count is None:
                return None
        elif name == RULE_USERDATA:
            mark = _comment(data, at, to)
    return None if count is None else (handle, Key(label_of(mark), chain.startswith(TRIAL)), count)


def _count(data: bytes, start: int, end: int) -> Count | None:
    for _, at, to in nl.attributes(data, start, end):
        name = at + nl.ATTR.size  # of an expression, the first attribute
        if data[name : name + len(_COUNTER)] != _COUNTER:
            continue
        for kind, inner, after in nl.attributes(data, at, to):
            if kind == EXPR_DATA:
                held = {
                    what: int(_U64.unpack_from(data, place)[0])
                    for what, place, _ in nl.attributes(data, inner, after)
                    if what in (COUNTER_BYTES, COUNTER_PACKETS)
                }
                return Count(held[COUNTER_PACKETS], held[COUNTER_BYTES])
    return None


def _comment(data: bytes, place: int, end: int) -> str:
    """Of what is kept with a rule: type, length and value of each, a byte, a byte and a text."""
    while place + 2 <= end:
        kind, length = data[place], data[place + 1]
        if kind == COMMENT:
            return data[place + 2 : place + 2 + length].rstrip(b"\0").decode()
        place += 2 + length
    return ""
