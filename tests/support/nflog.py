"""What the kernel logs to a group of nflog (include/uapi/linux/netfilter/nfnetlink_log.h)."""

from __future__ import annotations

import socket
import struct
import time

NETLINK_NETFILTER, NFNL_SUBSYS_ULOG = 12, 4
PACKET, CONFIG = 0, 1
CFG_CMD, CFG_MODE, CFG_FLUSH = 1, 2, 4
BIND, COPY_META = 1, 1
PREFIX = 10
REQUEST_ACK = 0x5


class Log:
    """The prefixes of a group, in the namespace where this is made."""

    def __init__(self, group: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._configure(group, CFG_CMD, struct.pack("!B3x", BIND))
        self._configure(group, CFG_MODE, struct.pack("!IBx2x", 0, COPY_META), 6)
        self._configure(group, CFG_FLUSH, struct.pack("!I", 1))  # hundredths of a second

    def _configure(self, group: int, kind: int, value: bytes, size: int | None = None) -> None:
        attribute = struct.pack("=HH", 4 + (size or {CFG_CMD: 1}.get(kind, 4)), kind) + value
        body = struct.pack("!BBH", 0, 0, group) + attribute
        header = struct.pack("=IHHII", 16 + len(body), NFNL_SUBSYS_ULOG << 8 | CONFIG, 5, 1, 0)
        self._socket.send(header + body)
        (code,) = struct.unpack_from("=i", self._socket.recv(4096), 16)
        assert code == 0, f"nflog: error {-code}"

    def until(self, count: int, seconds: float = 5) -> list[str]:
        """The next ones, at least so many."""
        found: list[str] = []
        deadline = time.monotonic() + seconds
        while len(found) < count:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            found += _prefixes(self._socket.recv(1 << 16))
        return found

    def close(self) -> None:
        self._socket.close()


def _prefixes(data: bytes) -> list[str]:
    found, place = [], 0
    while place + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, place)
        at = place + 20
        while kind == NFNL_SUBSYS_ULOG << 8 | PACKET and at + 4 <= place + length:
            size, what = struct.unpack_from("=HH", data, at)
            if what == PREFIX:
                found.append(data[at + 4 : at + size].rstrip(b"\0").decode())
            at += max(size + 3 & ~3, 4)
        place += max(length + 3 & ~3, 16)
    return found
