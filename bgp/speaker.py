"""The speaker: a process of its own that no restart of the agent touches.

It holds what is announced, what every peer has told us, and ExaBGP. The agent comes and goes: what
it stated last stays announced, and End-of-RIB is sent for it whenever a session comes up. Two
things happen without any agent: a prefix whose link is gone is withdrawn, and on the first start
after a boot End-of-RIB is sent at once, since nothing that the switches keep of us is true.

SIGTERM withdraws everything, waits until it is sent, and ends; SIGKILL leaves graceful restart to
cover for the next one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path as FilePath

import uvloop

from api.resources.errors import SpeakerError
from api.resources.net import IPAddress, IPNetwork
from bgp import addresses, hops, wire
from bgp.agents import Agents
from bgp.config import render
from bgp.events import Opened, Received, Said, State
from bgp.exabgp import WINDOW, ExaBGP
from bgp.links import End, Links, exists
from bgp.metrics import SpeakerMetrics
from bgp.rib import Inbound, Outbound
from bgp.seam import Advertisement, Path, Peer, Session

log = logging.getLogger("routed.speaker")

LEAVE_SECONDS = 5.0  # at most, for the last withdrawals
NO_END_SECONDS = 10.0  # after which a peer that says no End-of-RIB is taken to have said all
LOOK_SECONDS = 3.0  # between two looks at our addresses, for the next hops
SENT_SECONDS = 0.3  # from "taken by ExaBGP" to "on the wire"


@dataclass(frozen=True, slots=True)
class SpeakerSettings:
    """`run_dir` is gone with a reboot, `state_dir` is not."""

    run_dir: FilePath
    state_dir: FilePath


class Speaker:
    """Everything between one ExaBGP and the agents of this host."""

    def __init__(self, settings: SpeakerSettings) -> None:
        self.settings = settings
        self.peers: dict[str, Peer] = {}
        self.wanted: dict[IPNetwork, Advertisement] = {}
        self.outbound: dict[IPAddress, Outbound] = {}
        self.inbound: dict[IPAddress, Inbound] = {}
        self.sessions: dict[str, Session] = {}
        self.complete = False
        self.received_whole = False  # every peer has told us everything, or had the time to
        self._began = 0.0
        self._look_at = 0.0
        self.exabgp = ExaBGP(
            settings.run_dir, self._heard, self._exabgp_started, self._exabgp_ended
        )
        self.agents = Agents(self)
        self.metrics = SpeakerMetrics(self)
        self.ended: Counter[str] = Counter()  # sessions that were Established, by peer
        self._reconfigure = asyncio.Event()
        self._early: list[Peer] = []  # to begin when their link has an address for them
        self._resting: asyncio.TimerHandle | None = None
        self._syncs: list[tuple[asyncio.StreamWriter, int]] = []

    # -- life --------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Run until SIGTERM."""
        loop = asyncio.get_running_loop()
        leaving = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leaving.set)
        self.settings.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.complete = self.received_whole = self._first_start()
        self._began = loop.time()
        self._use_peers(self._stored_peers())
        await self._configure()
        links = Links(self._links_gone)
        tasks = [
            asyncio.create_task(self.exabgp.serve()),
            asyncio.create_task(self.agents.serve(self.settings.run_dir / "speaker.sock")),
            asyncio.create_task(self.metrics.serve(self.settings.run_dir / "speaker-metrics.sock")),
            asyncio.create_task(self._keep_configured()),
            asyncio.create_task(self._expire()),
            asyncio.create_task(leaving.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await self.leave()
        finally:
            links.close()
            self.exabgp.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def leave(self) -> None:
        """Withdraw everything and wait until it is sent."""
        self.change({}, whole=True)
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                while self.exabgp.ready and not self._idle():
                    await asyncio.sleep(0.02)
                await asyncio.sleep(SENT_SECONDS)
        except TimeoutError:
            log.warning("left with withdrawals unsent")

    def _first_start(self) -> bool:
        """Whether the host has booted since the speaker last started; /run tells."""
        marker = self.settings.run_dir / "speaker.started"
        first = not marker.exists()
        marker.touch(mode=0o600)
        return first

    # -- peers -------------------------------------------------------------------------------------

    @property
    def _peers_file(self) -> FilePath:
        return self.settings.state_dir / "peers.json"

    def _stored_peers(self) -> dict[str, Peer]:
        """The peers of last time: sessions come up without waiting for an agent."""
        try:
            documents = json.loads(self._peers_file.read_bytes())
            peers = [wire.build(Peer, document) for document in documents]
        except FileNotFoundError:
            return {}
        except (ValueError, SpeakerError) as error:
            log.error("stored peers unreadable, waiting for the agent: %s", error)
            return {}
        return {peer.name: peer for peer in peers}

    def set_peers(self, peers: dict[str, Peer]) -> None:
        """These are the sessions to hold from now on."""
        if peers == self.peers:
            return
        self._use_peers(peers)
        self._reconfigure.set()

    def _use_peers(self, peers: dict[str, Peer]) -> None:
        for name, old in self.peers.items():
            if peers.get(name) != old:
                self.outbound.pop(old.address, None)
                gone = self.inbound.pop(old.address, None)
                self.sessions.pop(name, None)
                self._tell_gone(name, list(gone.paths) if gone else [])
        self.peers = dict(peers)
        self.exabgp.hold_time = min((peer.hold_time for peer in peers.values()), default=9)
        for name, peer in peers.items():
            if peer.address not in self.outbound:
                self.outbound[peer.address] = Outbound(peer)
                self.outbound[peer.address].touch(self.wanted)
                self.inbound[peer.address] = Inbound(peer)
                self._session(name, peer.address, "Idle")

    async def _keep_configured(self) -> None:
        while True:
            await self._reconfigure.wait()
            self._reconfigure.clear()
            await self._configure()

    async def _configure(self) -> None:
        """Render, validate, reload; a peer that cannot be used is said and left out."""
        passwords: dict[str, str] = {}
        usable: list[Peer] = []
        self._early = hops.too_early(self.peers.values())
        for peer in self.peers.values():
            try:
                if peer.password_file is not None:
                    passwords[peer.name] = _password(peer)
                render([peer], passwords, self.exabgp.bridge_command)
                if peer in self._early:
                    raise SpeakerError(f"{peer.interface} has no usable link-local address yet")
                usable.append(peer)
            except SpeakerError as error:
                log.error("peer %s unusable: %s", peer.name, error)
                self._session(peer.name, peer.address, "Idle", str(error))
        try:
            await self.exabgp.configure(render(usable, passwords, self.exabgp.bridge_command))
        except SpeakerError as error:
            log.error("configuration refused, the old one stays: %s", error)
            return
        temporary = self._peers_file.with_suffix(".new")
        temporary.touch(mode=0o600)
        documents = [wire.document(peer) for peer in self.peers.values()]
        temporary.write_text(json.dumps(documents), encoding="ascii")
        temporary.rename(self._peers_file)

    # -- announcing --------------------------------------------------------------------------------

    def change(
        self, changes: dict[IPNetwork, Advertisement | None], *, whole: bool = False
    ) -> None:
        """Announce or (None) withdraw; with `whole`, whatever is not named is withdrawn."""
        touched = set(changes)
        if whole:
            touched |= self.wanted.keys()
            self.wanted.clear()
        for prefix, one in changes.items():
            if one is None:
                self.wanted.pop(prefix, None)
            elif all(map(exists, one.ends)):
                self.wanted[prefix] = one
            else:
                self.wanted.pop(prefix, None)
                self.agents.tell(wire.LinkDown(prefix, one.link or ""))
        for outbound in self.outbound.values():
            outbound.touch(touched)
        self.pump()

    def pump(self) -> None:
        """Tell ExaBGP what can be told now; come back for what rests."""
        now = asyncio.get_running_loop().time()
        progress = True
        while progress and self.exabgp.outstanding < WINDOW:
            progress = False
            for outbound in self.outbound.values():
                command = outbound.next_command(self.wanted, now, complete=self.complete)
                if command is not None:
                    self.exabgp.send(command)
                    progress = True
                if self.exabgp.outstanding >= WINDOW:
                    break
        if self._syncs and self._idle():
            for writer, token in self._syncs:
                self.agents.answer(writer, wire.Synced(token))
            self._syncs.clear()
        if self._resting is None and not self.exabgp.outstanding:  # else the answer comes back here
            wakes = [at for o in self.outbound.values() if (at := o.wake_at()) is not None]
            if wakes:
                loop = asyncio.get_running_loop()
                self._resting = loop.call_at(max(min(wakes), now + 0.01), self._rested)

    def _rested(self) -> None:
        self._resting = None
        self.pump()

    def _idle(self) -> bool:
        return not self.exabgp.outstanding and all(o.idle() for o in self.outbound.values())

    def sync(self, writer: asyncio.StreamWriter, token: int) -> None:
        """Answer `token` once everything said before is with ExaBGP."""
        self._syncs.append((writer, token))
        self.pump()

    def _links_gone(self, gone: Collection[End] | None) -> None:
        """Withdraw what was announced for links and namespaces that are no more; None: look at
        all."""
        dead = {
            prefix: one.link or ""
            for prefix, one in self.wanted.items()
            if any(end in gone if gone is not None else not exists(end) for end in one.ends)
        }
        if dead:
            log.info("links gone, withdrawn prefixes=%s", ",".join(map(str, dead)))
            self.change(dict.fromkeys(dead))
            for prefix, link in dead.items():
                self.agents.tell(wire.LinkDown(prefix, link))

    # -- hearing -----------------------------------------------------------------------------------

    def _exabgp_started(self) -> None:
        now = asyncio.get_running_loop().time()
        for address, outbound in self.outbound.items():
            outbound.restarted(self.wanted)
            self._changed(self.inbound[address], [], self.inbound[address].restarted(now))
        self.pump()

    def _exabgp_ended(self) -> None:
        """Its sessions ended with it: what is withdrawn from now on no switch hears of before they
        are back. Paths stay, on both sides (RFC 4724)."""
        for name, session in list(self.sessions.items()):
            if session.state != "Idle":
                outbound = self.outbound[session.address]
                self.ended[name] += outbound.up
                outbound.up = False
                self._session(name, session.address, "Idle", "ExaBGP has ended")

    def _heard(self, said: Said) -> None:
        if isinstance(said, State):
            self._state(said)
        elif isinstance(said, Opened) and said.peer in self.inbound:
            inbound = self.inbound[said.peer]
            self._changed(inbound, inbound.opened(said, asyncio.get_running_loop().time()), [])
        elif isinstance(said, Received) and said.peer in self.inbound:
            self._changed(self.inbound[said.peer], *self.inbound[said.peer].receive(said))
            if said.end_of_rib is not None:
                self._judge_received(asyncio.get_running_loop().time())
        self.pump()

    def _state(self, said: State) -> None:
        outbound, inbound = self.outbound.get(said.peer), self.inbound.get(said.peer)
        if outbound is None or inbound is None:
            return
        name = outbound.peer.name
        if said.state == "up":
            self._came_up(outbound, said.local)
        elif said.state == "down":
            was_up, outbound.up = outbound.up, False
            self._session(name, said.peer, "Idle", said.reason)
            if was_up:
                self.ended[name] += 1
                notified = said.reason.startswith("notification")
                self._lost(said.peer, asyncio.get_running_loop().time(), notified=notified)
        elif said.state == "connected":
            self._session(name, said.peer, "OpenSent")

    def _came_up(self, outbound: Outbound, local: IPAddress | None) -> None:
        """Established; of a version of IP that has no next hop it is said that it is not carried,
        and looked for one from time to time."""
        hops.came_up(outbound, self.inbound[outbound.peer.address], local)
        self._established(outbound)

    def _established(self, outbound: Outbound) -> None:
        peer, carried = outbound.peer, self.inbound[outbound.peer.address].carried
        lacking = addresses.not_carried(peer.carried, carried, outbound.hops)
        self._session(peer.name, peer.address, "Established", lacking, tuple(sorted(carried)))

    def _lost(self, address: IPAddress, now: float, *, notified: bool = False) -> None:
        inbound = self.inbound[address]
        self._changed(inbound, *inbound.went_down(now, notified=notified))

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = asyncio.get_running_loop().time()
            for inbound in self.inbound.values():
                self._changed(inbound, inbound.expire(now), [])
            self._judge_received(now)
            if hops.too_early(self._early) != self._early:
                self._reconfigure.set()
            if now >= self._look_at:
                self._look_at = now + LOOK_SECONDS
                pairs = [(one, self.inbound[at]) for at, one in self.outbound.items()]
                for outbound in hops.look(pairs):
                    self._established(outbound)
            self.pump()

    def _judge_received(self, now: float) -> None:
        """After a restart of the speaker: whether what we know of the peers is all there is."""
        if self.received_whole:
            return
        age = now - self._began
        for peer in self.peers.values():
            session = self.sessions.get(peer.name)
            up = session is not None and session.state == "Established"
            told = up and (self.inbound[peer.address].whole or age > NO_END_SECONDS)
            if not told and age <= peer.graceful_restart_time:
                return
        self.received_whole = True
        self.agents.show_all()

    def _changed(self, inbound: Inbound, gone: list[IPNetwork], new: list[Path]) -> None:
        self._tell_gone(inbound.peer.name, gone)
        for path in new:
            self.agents.tell(path)

    def _tell_gone(self, name: str, gone: list[IPNetwork]) -> None:
        for prefix in gone:
            self.agents.tell(wire.Unpath(name, prefix))

    def _session(
        self,
        name: str,
        address: IPAddress,
        state: str,
        error: str = "",
        families: tuple[int, ...] = (),
    ) -> None:
        held = self.sessions.get(name)
        since = held.since if held is not None and held.state == state else time.time()
        said = Session(name, address, state, since, error, families)
        if held == said:
            return
        log.info("session peer=%s state=%s %s", name, state, error)
        self.sessions[name] = said
        self.agents.tell(self.sessions[name])


def _password(peer: Peer) -> str:
    """The TCP MD5 secret: from a file that only its owner can read."""
    path = FilePath(peer.password_file or "")
    try:
        if path.stat().st_mode & 0o077:
            raise SpeakerError(f"cannot use {path} of peer {peer.name}: its mode must be 0600")
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpeakerError(f"cannot read {path} of peer {peer.name}: {error}") from error


def run(settings: SpeakerSettings) -> None:
    """Serve until SIGTERM."""
    os.umask(0o077)

    async def main() -> None:
        await Speaker(settings).serve()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
