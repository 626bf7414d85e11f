"""One connection, as uvicorn serves it, and what uvicorn leaves out: what TLS knows of the client
goes to the handlers, and so does that it has gone away; a request has to arrive within a time, and
its head within a size.

A deadline is set only where a request is not there whole at once, so most cost nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.auth.peer import SCOPE, Peer, peer_of
from api.resources.errors import HeadTooLarge, IntentError, TooLate
from api.resources.status import status_of
from api.service.codec import compact

HEAD_SECONDS = 10.0  # for a head; of the first request, from the connection on
BODY_SECONDS = 30.0
HEAD_BYTES = 64 << 10
BEATEN_SECONDS = 75.0  # that one by which a node says that it lives is kept; nodes close it earlier


READER = "routed.reader"  # in the scope of a request: the `watch.Reader` of its answer


def _nothing() -> None:
    """Nobody waits for a reader."""


class Part(Enum):
    """What of a request is still to come, to the seconds that it may take."""

    HEAD = HEAD_SECONDS
    BODY = BODY_SECONDS


class Connection(HttpToolsProtocol):
    """The certificate is read once, when the handshake is over."""

    _peer: Peer | None = None
    _part: Part | None = None
    _size = 0  # of a head that is not whole
    _deadline: asyncio.TimerHandle | None = None
    gone = False
    leave: Callable[[], None] = staticmethod(_nothing)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = peer_of(transport.get_extra_info("peercert"))
        self._await(Part.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)
        self.gone = True
        self.leave()
        self.leave = _nothing
        if self.scope is not None:  # which has us: nothing here is left to the collector
            self.scope.pop(READER, None)  # type: ignore[misc]

    def keep(self) -> None:
        """It stays between requests for longer than others do."""
        self.timeout_keep_alive = BEATEN_SECONDS  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._part is Part.HEAD:
            self._size += len(data)
            if self._size > HEAD_BYTES:
                said = f"its head is larger than {HEAD_BYTES} bytes"
                self._refuse(HeadTooLarge(f"cannot read the request: {said}"))
                return
        if self._part is not None:
            self._await(self._part)
        elif self.cycle is None or self.cycle.response_complete:
            self._await(Part.HEAD)  # what came begins no request, and stopped uvicorn's own timer

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part, self._size = Part.HEAD, 0
        self.scope[READER] = self  # type: ignore[literal-required]
        if self._peer is not None:
            self.scope[SCOPE] = self._peer  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        self._part = Part.BODY
        self._arrived()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._part = None
        self._arrived()
        super().on_message_complete()

    def _await(self, part: Part) -> None:
        """The rest of a part has to come in its time, however many pieces it comes in."""
        if self._deadline is None:
            self._deadline = self.loop.call_later(part.value, self._late, part)

    def _arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self, part: Part) -> None:
        self._deadline = None
        if self.flow.read_paused:  # it is us who do not read
            self._await(part)
        else:
            what = f"its {part.name.lower()} did not come in {part.value:.0f} s"
            self._refuse(TooLate(f"cannot read the request: {what}"))

    def _refuse(self, error: IntentError) -> None:
        """Answer, unless there is an answer already, and close."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if self._part is Part.BODY:
            silent = cycle.response_started or bool(self.pipeline)
        else:
            silent = cycle is not None and not cycle.response_complete  # of the request before
        if not silent:
            status = status_of(error)
            code, said = status["code"], compact(status)
            head = (
                f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\ncontent-type: application/json\r\n"
            )
            head += f"content-length: {len(said)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode("ascii") + said)
        self.transport.close()
