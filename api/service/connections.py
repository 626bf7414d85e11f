"""One connection, as uvicorn serves it: what TLS knows of the client goes to the handlers, which
uvicorn leaves out."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.auth.peer import SCOPE, Peer, peer_of


class Connection(HttpToolsProtocol):
    """The certificate is read once, when the handshake is over."""

    _peer: Peer | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = peer_of(transport.get_extra_info("peercert"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._peer is not None:
            self.scope[SCOPE] = self._peer  # type: ignore[literal-required]
