"""The agent's end of the speaker's socket.

`set` states everything; on a connection that has been told everything already, only the
difference is sent. What is stated while there is no connection is kept and stated when there is
one. Nothing is ever said before the first `set`: a new agent must not withdraw by ignorance what
an earlier one announced; a single `withdraw`, which is knowledge, is said at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from api.resources.errors import SpeakerError
from api.resources.net import IPNetwork
from bgp.seam import Advertisement, Peer
from bgp.wire import (
    LINE_LIMIT,
    Begin,
    End,
    Message,
    Sync,
    Synced,
    Unknown,
    Unpeer,
    Withdraw,
    op,
    parse_event,
)


class SpeakerClient:
    """Not connected until `connect`; one reader at a time (`events`)."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._peers: dict[str, Peer] | None = None
        self._wanted: dict[IPNetwork, Advertisement] = {}
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._told = False
        self._revision = 0
        self._token = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}

    @property
    def advertised(self) -> int:
        """How many prefixes are stated at present."""
        return len(self._wanted)

    @property
    def told(self) -> bool:
        """Whether everything was stated on the present connection."""
        return self._told

    def prefixes(self) -> Iterable[IPNetwork]:
        """What is stated at present."""
        return self._wanted.keys()

    async def connect(self) -> None:
        """Connect, and state what was set. SpeakerError if the speaker is not there."""
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(
                str(self.socket), limit=LINE_LIMIT
            )
        except OSError as error:
            raise SpeakerError(f"cannot reach the speaker at {self.socket}: {error}") from error
        self._told = False
        if self._peers is not None:
            self._tell_all()

    def set(self, peers: dict[str, Peer], wanted: dict[IPNetwork, Advertisement]) -> None:
        """This is everything. SpeakerError if not connected (it is stated on `connect`)."""
        old_peers, old = self._peers or {}, self._wanted
        self._peers, self._wanted = peers, wanted
        if self._writer is None:
            raise SpeakerError("cannot tell the speaker: not connected")
        if not self._told:
            self._tell_all()
            return
        for name in old_peers.keys() - peers.keys():
            self._say(Unpeer(name))
        for prefix in old.keys() - wanted.keys():
            self._say(Withdraw(prefix))
        for name, peer in peers.items():
            if old_peers.get(name) != peer:
                self._say(peer)
        for prefix, one in wanted.items():
            if old.get(prefix) != one:
                self._say(one)

    def advertise(self, one: Advertisement) -> None:
        """One more; a no-op for what is announced just so. Stated later if not connected."""
        if self._wanted.get(one.prefix) == one:
            return
        self._wanted[one.prefix] = one
        if self._told:
            self._say(one)

    def withdraw(self, prefix: IPNetwork) -> None:
        """One less, said even before anything was stated."""
        held = self._wanted.pop(prefix, None)
        if self._writer is not None and (held is not None or not self._told):
            self._say(Withdraw(prefix))

    def forget(self, prefix: IPNetwork) -> None:
        """The speaker withdrew it by itself: the next `set` may announce it anew."""
        self._wanted.pop(prefix, None)

    async def sync(self) -> None:
        """Return when ExaBGP has taken everything said so far. SpeakerError on a lost speaker."""
        if self._writer is None:
            raise SpeakerError("cannot tell the speaker: not connected")
        self._token += 1
        token = self._token
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[token] = done
        self._say(Sync(token))
        try:
            await done
        finally:
            self._waiting.pop(token, None)

    async def events(self) -> AsyncIterator[Message]:
        """What the speaker says until the connection ends, which is a SpeakerError."""
        reader = self._reader
        if reader is None:
            raise SpeakerError("cannot hear the speaker: not connected")
        try:
            while line := await reader.readline():
                message = parse_event(line)
                if isinstance(message, Synced):
                    waiting = self._waiting.get(message.token)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(None)
                    continue
                if not isinstance(message, Unknown):  # what a newer speaker says
                    yield message
            raise SpeakerError("the speaker closed the connection")
        except (OSError, ValueError) as error:
            raise SpeakerError(f"lost the speaker: {error}") from error
        finally:
            self._drop()

    def _drop(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(RuntimeError):
                self._writer.close()
        self._reader = self._writer = None
        self._told = False
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(SpeakerError("lost the speaker"))

    def _tell_all(self) -> None:
        self._revision += 1
        self._say(Begin(self._revision))
        for peer in (self._peers or {}).values():
            self._say(peer)
        for one in self._wanted.values():
            self._say(one)
        self._say(End(self._revision, complete=True))
        self._told = True

    def _say(self, message: Message) -> None:
        if self._writer is not None:
            self._writer.write(op(message))
