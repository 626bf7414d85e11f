"""rtnetlink without a library: messages packed by `struct`, sent in batches, answered at once.

The kernel does what a request asks within `sendmsg` itself, in our own context, so an answer is
already in the receive queue when `send` returns: `transact` and `dump` never wait for anybody and
need no event loop. That is also why a socket can be made inside a workload's namespace, used and
closed within one uninterrupted stretch of the loop.

Errors come back by errno, never by text. A batch asks for one acknowledgement, of its last
message; the kernel reports errors of the others unasked (Documentation/userspace-api/netlink).

Sources: include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,neighbour}.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE = 1, 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_DUMP_INTR = 0x10

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP, NETLINK_LISTEN_ALL_NSID = 1, 2, 8
NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK = 10, 12
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

BATCH_BYTES = 32_000  # a larger batch gains nothing measurable
BATCH_REQUESTS = 300  # all may be refused: the answers fit the buffer even with the least rmem_max
DUMP_BUFFER = 1 << 18
RECEIVE_BUFFER = 1 << 20
DUMP_TRIES = 8
ANSWER_BUFFER = 1 << 14
DONE_BYTES = 20  # of the message that ends a dump
NUMBERED = 1 << 31  # sequence numbers from here on are places in a batch made beforehand
ANSWER_SECONDS = 10  # the kernel answers at once; this only ends what would hang for ever

_HEADER = struct.Struct("=IHHII")  # nlmsg_len, nlmsg_type, nlmsg_flags, nlmsg_seq, nlmsg_pid
_ATTR = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_INT = struct.Struct("=i")


def attr(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = 4 + len(data)
    return _ATTR.pack(length, kind) + data + b"\0" * (-length & 3)


def attr_u32(kind: int, value: int) -> bytes:
    return _ATTR.pack(8, kind) + _U32.pack(value)


def attr_text(kind: int, text: str) -> bytes:
    return attr(kind, text.encode() + b"\0")


def nested(kind: int, *parts: bytes) -> bytes:
    return attr(kind | NLA_F_NESTED, b"".join(parts))


def message(kind: int, flags: int, payload: bytes) -> bytearray:
    """A request without its sequence number, which the socket fills in."""
    return bytearray(_HEADER.pack(16 + len(payload), kind, NLM_F_REQUEST | flags, 0, 0) + payload)


def attributes(data: bytes, offset: int) -> dict[int, bytes]:
    """The attributes of `data` from `offset` on, by type without its flag bits."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


class Netlink:
    """A socket of the namespace it is made in, NETLINK_ROUTE's unless another `protocol` is
    asked for. Not for two users at a time.

    `brief` is one for a single small batch: nothing is set that such a batch does not need.
    """

    def __init__(self, *, brief: bool = False, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._sequence = 0
        self._interrupted = False
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        if brief:
            return
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", ANSWER_SECONDS, 0)
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._socket.bind((0, 0))

    @property
    def port(self) -> int:
        """What the kernel writes into the notifications of changes made through this socket."""
        port: int = self._socket.getsockname()[0]
        return port

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def transact(self, messages: Sequence[bytearray]) -> dict[int, int]:
        """Send `messages` in order; the errno of each that failed, by its place.

        The kernel goes on after a failed message. OSError where the socket itself fails.
        """
        failed: dict[int, int] = {}
        start, size = 0, 0
        for place, one in enumerate(messages):
            size += len(one)
            full = size >= BATCH_BYTES or place - start >= BATCH_REQUESTS - 1
            if full or place == len(messages) - 1:
                self._batch(messages[start : place + 1], start, failed)
                start, size = place + 1, 0
        return failed

    def _batch(self, messages: Sequence[bytearray], start: int, failed: dict[int, int]) -> None:
        first = self._sequence + 1
        for one in messages:
            self._sequence = (self._sequence + 1) & 0x7FFF_FFFF
            struct.pack_into("=I", one, 8, self._sequence)
        last = messages[-1]
        (flags,) = struct.unpack_from("=H", last, 6)
        struct.pack_into("=H", last, 6, flags | NLM_F_ACK)
        self._socket.send(b"".join(messages))
        while True:
            data = self._socket.recv(DUMP_BUFFER)
            for kind, _, sequence, offset, _end in walk(data):
                if kind != NLMSG_ERROR or not first <= sequence <= self._sequence:
                    continue
                (code,) = _INT.unpack_from(data, offset)
                if code:
                    failed[start + sequence - first] = -code
                if sequence == self._sequence:
                    return

    def transact_numbered(self, batch: bytes | bytearray) -> dict[int, int]:
        """Send requests made beforehand that have NUMBERED plus their place as sequence number,
        and ask for no acknowledgement; the errno of each that failed, by its place."""
        return {
            place: -_INT.unpack(answer[:4])[0]
            for place, kind, answer in self._numbered(batch)
            if kind == NLMSG_ERROR
        }

    def ask_numbered(self, batch: bytes | bytearray) -> dict[int, bytes]:
        """The same for requests that are answered: the answer's payload of each, by its place; of
        what the kernel refused there is none."""
        return {
            place: answer for place, kind, answer in self._numbered(batch) if kind != NLMSG_ERROR
        }

    def _numbered(self, batch: bytes | bytearray) -> Iterator[tuple[int, int, bytes]]:
        """(place, type, payload) of every answer, up to that of an empty request behind them."""
        self._sequence = (self._sequence + 1) & 0x7FFF_FFFF
        last = (16, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, self._sequence, 0)
        self._socket.send(batch + _HEADER.pack(*last))
        while True:
            data = self._socket.recv(ANSWER_BUFFER)
            for kind, _, sequence, offset, end in walk(data):
                if sequence == self._sequence:
                    return
                if sequence >= NUMBERED:
                    yield sequence - NUMBERED, kind, data[offset:end]

    def dump(self, request: bytearray) -> list[bytes]:
        """Every answer to a dump request, as the payloads after the netlink header."""
        return self.read(
            request,
            lambda buffers: [data[start:end] for data in buffers for *_, start, end in walk(data)],
        )

    def read(self, request: bytearray, parse: Callable[[Iterator[bytes]], T]) -> T:
        """What `parse` makes of the answers to a dump request: buffers of whole messages.

        A dump that the kernel says was interrupted (NLM_F_DUMP_INTR) is asked for again, though
        not for ever: somebody may be changing the table without pause, and what was missed then
        shows as EEXIST or is seen by the next read.
        """
        for _ in range(DUMP_TRIES):
            self._interrupted = False
            found = parse(self._answers(request))
            if not self._interrupted:
                break
        return found

    def _answers(self, request: bytearray) -> Iterator[bytes]:
        """The buffers of a dump, without the message that ends it. The kernel marks the first
        message after a change as interrupted, so the first of each buffer tells."""
        self._sequence = (self._sequence + 1) & 0x7FFF_FFFF
        struct.pack_into("=I", request, 8, self._sequence)
        self._socket.send(request)
        while True:
            data = self._socket.recv(DUMP_BUFFER)
            _, kind, flags, sequence, _ = _HEADER.unpack_from(data)
            if sequence != self._sequence:
                continue
            self._interrupted |= bool(flags & NLM_F_DUMP_INTR)
            if kind == NLMSG_ERROR:
                raise OSError(-_INT.unpack_from(data, 16)[0], "cannot dump")
            end = self._end_of_dump(data)
            if end is None:
                yield data
                continue
            if end:
                yield data[:end]
            return

    def _end_of_dump(self, data: bytes) -> int | None:
        """Where in `data` the message is that ends the dump. It is the last one; what only looks
        like it is inside another message."""
        last = len(data) - DONE_BYTES
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, last)
        if (length, kind, sequence) != (DONE_BYTES, NLMSG_DONE, self._sequence):
            return None
        if all(start - 16 != last for _, _, _, start, _ in walk(data)):
            return None
        self._interrupted |= bool(flags & NLM_F_DUMP_INTR)
        return last

    def get(self, request: bytearray) -> bytes | None:
        """The one answer to a request that is no dump; None and errno's OSError on failure."""
        self._sequence = (self._sequence + 1) & 0x7FFF_FFFF
        struct.pack_into("=I", request, 8, self._sequence)
        self._socket.send(request)
        data = self._socket.recv(DUMP_BUFFER)
        for kind, _, sequence, offset, end in walk(data):
            if sequence != self._sequence:
                continue
            if kind == NLMSG_ERROR:
                (code,) = _INT.unpack_from(data, offset)
                raise OSError(-code, "cannot get")
            return data[offset:end]
        return None


def walk(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """(type, flags, sequence, payload offset, end) of each message in `data`."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield kind, flags, sequence, offset + 16, offset + length
        offset += (length + 3) & ~3
