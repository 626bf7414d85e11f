"""Elements of sets, by nfnetlink itself: what comes and goes often.

nft's library asks the kernel for every chain and set that there is before it changes one element,
which takes tens of milliseconds where there are thousands of them; the kernel needs none of that. A
batch is one transaction (`nfnetlink_rcv_batch`): all of it, or nothing. Adding an element that is
there is no error; deleting one that is not there refuses the whole batch.

Messages: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h. A key is what a packet is
compared with: an interface name has 16 bytes, addresses and ports are in network order, and each
part of a concatenation is padded to 4 bytes.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from api.resources.errors import ApplyError
from policies.compile.ruleset import ADDRESSES, LINKS, PORTS, Delta
from policies.marks import TABLE
from policies.nfnetlink import (
    ATTR,
    NESTED,
    NETLINK_NETFILTER,
    NFNL_SUBSYS_NFTABLES,
    NFPROTO_INET,
    NFPROTO_UNSPEC,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLMSG_ERROR,
    START,
    attribute,
    failure,
    message,
    messages,
)

BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWSETELEM, DELSETELEM, NEWGEN, GETGEN = 12, 14, 15, 16
IFNAMSIZ = 16
MOST = 500  # elements of one batch; more are for nft's library
PATIENCE = 10.0  # seconds until the kernel has answered

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def key(kind: str, text: str) -> bytes | None:
    """An element as the kernel has it; None: of sets of this kind, or not this one."""
    if kind == LINKS:
        name = text.encode()
        return name.ljust(IFNAMSIZ, b"\0") if len(name) < IFNAMSIZ else None
    for version, family in _FAMILIES.items():
        if kind == ADDRESSES[version]:
            return socket.inet_pton(family, text)
        if kind == PORTS[version]:
            address, protocol, port = text.split(" . ")
            rest = struct.pack("!B3xH2x", int(protocol), int(port))
            return socket.inet_pton(family, address) + rest
    return None


def batch(deltas: Iterable[Delta]) -> list[tuple[int, bytes]] | None:
    """Type and body of the messages of one batch; None: they are none for this way."""
    found, count = [], 0
    for delta in deltas:
        for verb, texts in ((NEWSETELEM, delta.add), (DELSETELEM, delta.gone)):
            keys = [key(delta.kind, text) for text in texts]
            count += len(keys)
            known = [one for one in keys if one is not None]
            if count > MOST or len(known) < len(keys):
                return None
            if known:
                found.append((verb, _listed(delta.name, known)))
    return found


class Elements:
    """A socket for such batches, in the namespace where this is made."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        self._socket.settimeout(PATIENCE)
        self._number = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def change(self, deltas: Iterable[Delta]) -> bool:
        """Carry them out, one after the other, in one transaction. False: they are none for this
        way, and nothing has been done. ApplyError."""
        found = batch(deltas)
        if found:
            self._run(found)
        return found is not None

    def generation(self) -> int:
        """Of all tables of the namespace: one more with every transaction. ApplyError."""
        self._number += 1
        try:
            asked = NFNL_SUBSYS_NFTABLES << 8 | GETGEN
            self._socket.send(message(asked, 0, self._number, b"", NFPROTO_UNSPEC))
            while True:
                data = self._socket.recv(1 << 16)
                for one in messages(data):
                    if one.number != self._number:
                        continue
                    if one.kind == NFNL_SUBSYS_NFTABLES << 8 | NEWGEN:
                        start = one.place + START + ATTR.size  # NFTA_GEN_ID is the first
                        return int.from_bytes(data[start : start + 4], "big")
                    if one.kind == NLMSG_ERROR and (said := failure(data, one.place)) is not None:
                        raise said
        except OSError as error:
            number = error.errno or errno.ETIMEDOUT
            raise ApplyError("nftables (generation)", "read", number) from error

    def _run(self, verbs: list[tuple[int, bytes]]) -> None:
        first = self._number + 1
        data = [_edge(BATCH_BEGIN, first)]
        for place, (verb, body) in enumerate(verbs, first + 1):
            flags = NLM_F_ACK | (NLM_F_CREATE if verb == NEWSETELEM else 0)
            kind = NFNL_SUBSYS_NFTABLES << 8 | verb
            data.append(message(kind, flags, place, body, NFPROTO_INET))
        self._number = first + len(verbs) + 1
        data.append(_edge(BATCH_END, self._number))
        try:
            self._socket.send(b"".join(data))
            self._acknowledged(set(range(first + 1, self._number)), first)
        except OSError as error:
            number = error.errno or errno.ETIMEDOUT
            raise ApplyError(f"table inet {TABLE} (elements)", "change", number) from error

    def _acknowledged(self, missing: set[int], first: int) -> None:
        """Wait until all have been. OSError."""
        while missing:
            data = self._socket.recv(1 << 16)
            for one in messages(data):
                if one.kind == NLMSG_ERROR and one.number >= first:
                    if (said := failure(data, one.place)) is not None:
                        raise said
                    missing.discard(one.number)


def _edge(kind: int, number: int) -> bytes:
    """The begin or end of a batch of this subsystem."""
    return message(kind, 0, number, b"", NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES)


def _listed(name: str, keys: list[bytes]) -> bytes:
    """NFTA_SET_ELEM_LIST: the table, the set, and its elements with a key each."""
    elements = b"".join(
        attribute(1 | NESTED, attribute(1 | NESTED, attribute(1, one))) for one in keys
    )
    texts = (TABLE, name)
    head = b"".join(attribute(n, text.encode() + b"\0") for n, text in enumerate(texts, 1))
    return head + attribute(3 | NESTED, elements)
