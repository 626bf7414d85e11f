"""Listening to a group of nflog, without waiting for it.

The kernel has one listener a group and namespace: where somebody else is it (ulogd, tcpdump), it
refuses. What comes faster than it is read is lost, and seen by the sequence numbers of what comes
after; nothing waits for the reader.

Messages: include/uapi/linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct

from policies import nfnetlink as nl

CONFIG = 1
COMMAND, MODE, TIMEOUT, FLAGS = 1, 2, 4, 6
BIND, COPY_PACKET, SEQUENCE = 1, 2, 1
SO_RCVBUFFORCE = 33
FIRST_BYTES = 256  # of a packet: its headers
SOON = 10  # hundredths of a second that messages are gathered
ROOM = 1 << 20  # bytes of messages that may wait
PATIENCE = 5.0  # seconds until the kernel has answered


class Listener:
    """OSError where the group cannot be had."""

    def __init__(self, group: int) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, nl.NETLINK_NETFILTER)
        self._number = 0
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(PATIENCE)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
            # mode, time and flags first: a message that comes between these would be another
            self._configure(group, COMMAND, struct.pack("!B", BIND))
            self._configure(group, FLAGS, struct.pack("!H", SEQUENCE))
            self._configure(group, TIMEOUT, struct.pack("!I", SOON))
            self._configure(group, MODE, struct.pack("!IBx", FIRST_BYTES, COPY_PACKET))
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def take(self) -> bytes:
        """A datagram of messages; b"" if none is there. What was lost before is no error: it is
        seen. OSError."""
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    return self._socket.recv(1 << 16)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
        return b""

    def _configure(self, group: int, kind: int, value: bytes) -> None:
        self._number += 1
        asked = nl.NFNL_SUBSYS_ULOG << 8 | CONFIG
        body = nl.attribute(kind, value)
        self._socket.send(
            nl.message(asked, nl.NLM_F_ACK, self._number, body, nl.NFPROTO_UNSPEC, group)
        )
        while True:
            data = self._socket.recv(1 << 16)
            for one in nl.messages(data):
                if (one.kind, one.number) == (nl.NLMSG_ERROR, self._number):
                    if (error := nl.failure(data, one.place)) is not None:
                        raise error
                    return
