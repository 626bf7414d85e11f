"""Who calls at the agent's socket: root, or a member of the socket's group, and nobody else.

The modes of the file say so already; the kernel's word on who has connected (SO_PEERCRED, unix(7);
SO_PEERGROUPS, Linux 4.13) holds also when somebody has changed them, or was handed a descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SCOPE = "routed.caller"
GROUPS_MOST = 256  # Python takes 1024 bytes of an answer
SO_PEERGROUPS = 59  # asm-generic/socket.h; the socket module has no name for it


@dataclass(frozen=True, slots=True)
class Caller:
    """A process as it was when it connected; `groups` has its own and the supplementary ones."""

    pid: int
    uid: int
    groups: frozenset[int]

    def may(self, group: int | None) -> bool:
        return self.uid == 0 or (group is not None and group in self.groups)


def caller_of(connected: socket.socket) -> Caller:
    """Who is at the other end of a unix socket."""
    told = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    pid, uid, gid = struct.unpack("iII", told)
    return Caller(pid, uid, frozenset((gid, *_groups(connected))))


def _groups(connected: socket.socket) -> Iterable[int]:
    """The supplementary groups; none of somebody who is in more than can be asked for here."""
    try:
        told = connected.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_MOST * 4)
    except OSError as error:
        if error.errno == errno.ERANGE:
            return ()
        raise
    return struct.unpack(f"{len(told) // 4}I", told)


class Connection(HttpToolsProtocol):
    """A connection whose requests carry who has made it."""

    _caller: Caller | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        descriptor = transport.get_extra_info("socket").fileno()
        with (
            contextlib.suppress(OSError),  # then it is nobody
            socket.socket(fileno=os.dup(descriptor)) as connected,  # uvloop's has no getsockopt
        ):
            self._caller = caller_of(connected)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[SCOPE] = self._caller  # type: ignore[literal-required]


def guarded(served: ASGIApp, refused: ASGIApp, may: Callable[[Caller], bool]) -> ASGIApp:
    """`served` for those who may, `refused` for everybody else."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope.get(SCOPE)
        allowed = isinstance(caller, Caller) and may(caller)
        await (served if allowed else refused)(scope, receive, send)

    return serve
