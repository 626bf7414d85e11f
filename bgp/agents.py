"""The speaker's socket: agents connect, are shown everything, and state what they want.

A reader that does not keep up is dropped, never waited for: it reconnects and is shown everything
again. A message that cannot be read ends its connection and changes nothing; one that only a newer
speaker would know is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from api.resources.errors import SpeakerError
from api.resources.net import IPNetwork
from api.resources.versions import VERSION
from bgp import wire
from bgp.seam import Advertisement, Peer

if TYPE_CHECKING:
    from bgp.speaker import Speaker

log = logging.getLogger("routed.speaker")

BACKLOG_BYTES = 64 << 20  # of one reader


class Agents:
    """The connections of agents; usually one."""

    def __init__(self, speaker: Speaker) -> None:
        self.speaker = speaker
        self._writers: set[asyncio.StreamWriter] = set()
        self._revision = 0

    async def serve(self, path: FilePath) -> None:
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._connected, path, limit=wire.LINE_LIMIT)
        path.chmod(0o600)
        async with server:
            await server.serve_forever()

    def tell(self, message: wire.Message) -> None:
        """Say one change to every agent."""
        if not self._writers:
            return
        line = wire.event(message)
        for writer in list(self._writers):
            self._write(writer, line)

    def show_all(self) -> None:
        """The snapshot once more, to every agent."""
        for writer in list(self._writers):
            self._show(writer)

    def answer(self, writer: asyncio.StreamWriter, message: wire.Message) -> None:
        """Say something to one agent, if it is still there."""
        if writer in self._writers:
            self._write(writer, wire.event(message))

    def _write(self, writer: asyncio.StreamWriter, line: bytes) -> None:
        if writer.transport.get_write_buffer_size() > BACKLOG_BYTES:
            log.warning("agent does not read, dropped")
            self._writers.discard(writer)
            writer.transport.abort()
            return
        writer.write(line)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._show(writer)
        self._writers.add(writer)
        listener = _Listener(self.speaker, writer)
        try:
            while line := await reader.readline():
                await listener.take(wire.parse_op(line))
        except asyncio.CancelledError:
            return  # the loop ends; its callback would take the cancellation for a failure
        except (SpeakerError, ValueError, OSError) as error:
            log.warning("agent's connection ended: %s", error)
        finally:
            self._writers.discard(writer)
            with contextlib.suppress(OSError):
                writer.close()

    def _show(self, writer: asyncio.StreamWriter) -> None:
        """The snapshot: begin, every session and path, end."""
        self._revision += 1
        lines = [wire.event(wire.Begin(self._revision, VERSION))]
        lines += [wire.event(session) for session in self.speaker.sessions.values()]
        for inbound in self.speaker.inbound.values():
            lines += [wire.event(path) for path in inbound.paths.values()]
        end = wire.End(self._revision, self.speaker.complete, self.speaker.received_whole)
        lines.append(wire.event(end))
        writer.write(b"".join(lines))


class _Listener:
    """What one agent says: between begin and end the new set grows aside."""

    def __init__(self, speaker: Speaker, writer: asyncio.StreamWriter) -> None:
        self.speaker = speaker
        self.writer = writer
        self._peers: dict[str, Peer] | None = None
        self._wanted: dict[IPNetwork, Advertisement | None] = {}
        self._unknown: set[str] = set()

    async def take(self, message: wire.Message) -> None:
        growing, speaker = self._peers is not None, self.speaker
        if isinstance(message, wire.Begin):
            self._peers, self._wanted = {}, {}
        elif isinstance(message, wire.End):
            if self._peers is None:
                raise SpeakerError("cannot end a set that was not begun")
            speaker.complete = speaker.complete or message.complete
            speaker.set_peers(self._peers)
            speaker.change(self._wanted, whole=True)
            self._peers = None
        elif isinstance(message, Peer):
            if self._peers is not None:
                self._peers[message.name] = message
            else:
                speaker.set_peers({**speaker.peers, message.name: message})
        elif isinstance(message, wire.Unpeer):
            left = {name: peer for name, peer in speaker.peers.items() if name != message.name}
            speaker.set_peers(left)
        elif isinstance(message, Advertisement):
            if growing:
                self._wanted[message.prefix] = message
            else:
                speaker.change({message.prefix: message})
        elif isinstance(message, wire.Withdraw):
            if growing:
                self._wanted.pop(message.prefix, None)
            else:
                speaker.change({message.prefix: None})
        elif isinstance(message, wire.Sync):
            speaker.sync(self.writer, message.token)
        elif isinstance(message, wire.Stop):
            await speaker.leave()
            speaker.agents.answer(self.writer, wire.Stopped())
        elif isinstance(message, wire.Unknown):
            if message.name not in self._unknown:
                self._unknown.add(message.name)
                log.warning("a newer agent said what is not known here: %s", message.name)
        else:
            raise SpeakerError(f"cannot take {type(message).__name__} from an agent")
