"""The agent's connection to the speaker: what it announces for us, what it hears.

The full set is stated whenever the connection is new, and the difference afterwards. The speaker
outlives us and keeps what was announced; a new agent says nothing until it has read back what is
true, and sweeps learned routes only after the speaker's end marker.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path as FilePath

from api.resources.errors import SpeakerError
from api.resources.net import IPNetwork
from bgp.client import SpeakerClient
from bgp.seam import Advertisement, Path, Peer, Session
from bgp.wire import Begin, End, LinkDown, Unpath
from routed.agent import skew

log = logging.getLogger("routed.speech")

RECONNECT_SECONDS = 0.5


class Speech:
    """`paths` is what the peers' tables hold, by prefix and peer; `received_whole` says that all of
    it is here. `touched` are the prefixes whose paths have changed since they were taken, None: all
    of them may have."""

    def __init__(self, socket: FilePath) -> None:
        self.client = SpeakerClient(socket)
        self.paths: dict[IPNetwork, dict[str, Path]] = {}
        self.touched: set[IPNetwork] | None = None
        self.sessions: dict[str, Session] = {}
        self.received_whole = False
        self.connected = False
        self.version = ""  # of the speaker, as it says
        self._growing: dict[IPNetwork, dict[str, Path]] | None = None

    @property
    def advertised(self) -> int:
        """How many prefixes are stated at present."""
        return self.client.advertised

    @property
    def stated(self) -> bool:
        """Whether everything was said to the speaker on the present connection."""
        return self.connected and self.client.told

    def prefixes(self) -> Iterable[IPNetwork]:
        """What is stated at present."""
        return self.client.prefixes()

    def take_touched(self) -> set[IPNetwork] | None:
        """`touched`, to be gathered anew."""
        found, self.touched = self.touched, set()
        return found

    def received(self) -> Counter[str]:
        """How many paths each peer has told us."""
        return Counter(peer for paths in self.paths.values() for peer in paths)

    def all_established(self, peers: Iterable[str]) -> bool:
        """Whether the session of every one of `peers` is up: what is withdrawn now is withdrawn
        everywhere. Without peers nobody was told anything."""
        states = {name: session.state for name, session in self.sessions.items()}
        return self.received_whole and all(states.get(name) == "Established" for name in peers)

    def set(self, peers: Mapping[str, Peer], wanted: Mapping[IPNetwork, Advertisement]) -> None:
        """This is everything: whom to speak with and what to announce."""
        self.client.set(dict(peers), dict(wanted))

    def advertise(self, wanted: Iterable[Advertisement]) -> None:
        """One workload more; the rest stays as it was stated."""
        for one in wanted:
            self.client.advertise(one)

    def withdraw(self, prefixes: Iterable[IPNetwork]) -> None:
        for prefix in prefixes:
            self.client.withdraw(prefix)

    async def settled(self) -> None:
        """Return once everything said so far has been taken by ExaBGP. SpeakerError."""
        await self.client.sync()

    async def serve(self, wake: Callable[[], None], lost: Callable[[], None]) -> None:
        """Keep connected; `wake` when something arrived that decides, `lost` when there is nobody
        any more, of which nothing follows but that it is so."""
        while True:
            try:
                await self.client.connect()
                self.connected = True
                log.info("speaker connected")
                wake()
                async for event in self.client.events():
                    self._take(event)
                    if self._growing is None:
                        wake()
            except SpeakerError as error:
                if self.connected:
                    log.warning("speaker lost: %s", error)
            was, self.connected = self.connected, False
            self.received_whole = False
            self._growing = None
            self.sessions.clear()
            if was:
                lost()
            await asyncio.sleep(RECONNECT_SECONDS)

    def _take(self, event: object) -> None:
        if isinstance(event, Begin):
            self._growing = {}
            self.sessions.clear()
            if event.version != self.version and (problem := skew.of_speaker(event.version)):
                log.warning("version skew: %s", problem)
            self.version = event.version
        elif isinstance(event, End):
            self._finish_set(whole=event.received)
        elif isinstance(event, Session):
            before = self.sessions.get(event.peer)
            if before is None or before.state != event.state:
                log.info("session peer=%s state=%s %s", event.peer, event.state, event.error)
            self.sessions[event.peer] = event
        elif isinstance(event, Path):
            held = self.paths if self._growing is None else self._growing
            held.setdefault(event.prefix, {})[event.peer] = event
            self._touch(event.prefix)
        elif isinstance(event, Unpath):
            paths = self.paths.get(event.prefix, {})
            paths.pop(event.peer, None)
            if not paths:
                self.paths.pop(event.prefix, None)
            self._touch(event.prefix)
        elif isinstance(event, LinkDown):
            self.client.forget(event.prefix)

    def _finish_set(self, *, whole: bool) -> None:
        """A speaker that is new itself may not know everything yet: what the earlier one had shown
        is then still to be believed."""
        growing = self._growing or {}
        if whole:
            self.paths = growing
        else:
            for prefix, paths in growing.items():
                self.paths.setdefault(prefix, {}).update(paths)
        self._growing = None
        self.touched = None
        self.received_whole = whole

    def _touch(self, prefix: IPNetwork) -> None:
        if self.touched is not None and self._growing is None:
            self.touched.add(prefix)
