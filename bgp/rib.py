"""Adj-RIB-Out and Adj-RIB-In of one peer (RFC 4271, section 3.2): pure, told the time.

Out: what ExaBGP has been told for this peer against what is wanted. Two changes of one prefix
must not be with ExaBGP unsent at a time (it may send them in the wrong order), and it does not say
when it has sent one: so a prefix that has just changed rests for `REST` seconds before it changes
again, and changes meanwhile coalesce into the last one. While the session is down nothing is said;
ExaBGP repeats what it knew when the session comes up, and we add what has changed.

In: ExaBGP keeps nothing of a peer that restarts, so we do: its paths become stale when the session
ends, stay until its End-of-RIB or its restart time, and go at once if it does not restart
gracefully or the session ended by a NOTIFICATION (RFC 4724, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from api.resources.net import IPAddress, IPNetwork
from bgp import commands
from bgp.events import Opened, Received
from bgp.seam import Advertisement, Path, Peer

REST = 0.25  # seconds between two changes of one prefix


@dataclass(slots=True)
class Outbound:
    """What one peer is told. `local` is our address of the session, known when it is up."""

    peer: Peer
    local: IPAddress | None = None
    up: bool = False
    told: dict[IPNetwork, Advertisement] = field(default_factory=dict)
    dirty: dict[IPNetwork, None] = field(default_factory=dict)
    rests: dict[IPNetwork, float] = field(default_factory=dict)  # until when
    swept: float = 0.0  # when those that rest no more were last dropped from it
    owes_flush: bool = False
    owes_eor: bool = False

    def touch(self, prefixes: Iterable[IPNetwork]) -> None:
        """These may have changed."""
        version = self.peer.address.version
        for prefix in prefixes:
            if prefix.version == version:
                self.dirty[prefix] = None

    def came_up(self, local: IPAddress | None) -> None:
        self.up = True
        self.local = local or self.peer.local_address
        self.owes_flush = bool(self.dirty)
        self.owes_eor = True

    def restarted(self, wanted: Iterable[IPNetwork]) -> None:
        """ExaBGP is a new one, or knows this peer anew: it has been told nothing."""
        self.up = False
        self.told.clear()
        self.rests.clear()
        self.dirty.clear()
        self.touch(wanted)

    def next_command(
        self, wanted: Mapping[IPNetwork, Advertisement], now: float, *, complete: bool
    ) -> str | None:
        """The next thing to tell ExaBGP for this peer, or None: nothing, or nothing yet."""
        if not self.up or self.local is None:
            return None
        ready: list[Advertisement] = []
        gone: list[IPNetwork] = []
        for prefix in list(self.dirty):
            want, held = wanted.get(prefix), self.told.get(prefix)
            if _same(want, held):
                del self.dirty[prefix]
            elif now < self.rests.get(prefix, now):
                continue
            elif want is None:
                gone.append(prefix)
            elif not ready or (
                ready[0].communities == want.communities and (ready[0].next_hop == want.next_hop)
            ):
                ready.append(want)
            if commands.MOST_NLRI in (len(ready), len(gone)):
                break
        if gone:
            for prefix in gone:
                del self.told[prefix]
                self._done(prefix, now)
            return commands.withdraw(self.peer.address, self.local, gone)
        if ready:
            for one in ready:
                self.told[one.prefix] = one
                self._done(one.prefix, now)
            return commands.announce(self.peer.address, ready[0].next_hop or self.local, ready)
        if self.dirty:
            return None
        if self.owes_flush:
            self.owes_flush = False
            return commands.flush(self.peer.address)
        if self.owes_eor and complete:
            self.owes_eor = False
            return commands.end_of_rib(self.peer.address)
        return None

    def wake_at(self) -> float | None:
        """When the first resting prefix may change again; None if none waits for that."""
        if not self.up:
            return None
        return min((self.rests.get(p, 0.0) for p in self.dirty), default=None)

    def idle(self) -> bool:
        return not self.up or not self.dirty

    def _done(self, prefix: IPNetwork, now: float) -> None:
        del self.dirty[prefix]
        self.rests[prefix] = now + REST
        if len(self.rests) > 1000 + 2 * len(self.told) and now >= self.swept + REST:
            self.swept = now  # not for every prefix of a thousand that rest
            self.rests = {p: until for p, until in self.rests.items() if now < until}


def _same(want: Advertisement | None, held: Advertisement | None) -> bool:
    """Equal on the wire: the link is only for us."""
    if want is None or held is None:
        return want is held
    return (want.next_hop, want.communities) == (held.next_hop, held.communities)


@dataclass(slots=True)
class Inbound:
    """What one peer has told us. Changes are (gone prefixes, new paths)."""

    peer: Peer
    restart: int | None = None  # seconds, as the peer's OPEN had it
    paths: dict[IPNetwork, Path] = field(default_factory=dict)
    stale_until: float | None = None
    refused: int = 0
    ours: bool = False  # it was our side that restarted: the peer has lost nothing
    whole: bool = False  # End-of-RIB was heard, ever

    def receive(self, said: Received) -> tuple[list[IPNetwork], list[Path]]:
        """Take in an UPDATE. A path with our own AS in it is a loop (RFC 4271, section 9)."""
        if said.end_of_rib:
            self.whole = True
            return self._purge_stale(), []
        gone = [p for p in said.withdrawn if self.paths.pop(p, None) is not None]
        hops: dict[IPNetwork, list[IPAddress]] = {}
        for prefix, hop in said.announced:
            hops.setdefault(prefix, []).append(hop)
        new: list[Path] = []
        loop = self.peer.local_as in said.as_path
        for prefix, found in hops.items():
            over = (
                self.peer.max_prefixes is not None
                and prefix not in self.paths
                and (len(self.paths) >= self.peer.max_prefixes)
            )
            if loop or over:
                self.refused += 1
                if self.paths.pop(prefix, None) is not None:
                    gone.append(prefix)
                continue
            path = Path(
                self.peer.name,
                prefix,
                tuple(sorted(set(found), key=int)),
                said.as_path,
                said.communities,
                said.med,
            )
            self.paths[prefix] = path
            new.append(path)
        return gone, new

    def opened(self, said: Opened, now: float) -> list[IPNetwork]:
        """A new session: what is stale waits for its End-of-RIB, or goes at once if the peer did
        not keep its forwarding state."""
        self.restart = said.restart
        if self.stale_until is None:
            return []
        if not self.ours and (said.restart is None or not said.forwarding):
            return self._purge_stale()
        self.stale_until = now + self.peer.graceful_restart_time
        return []

    def went_down(
        self, now: float, *, notified: bool = False
    ) -> tuple[list[IPNetwork], list[Path]]:
        """The session ended: keep what is stale for the peer's restart time, or let it all go;
        so too if it ended by a NOTIFICATION, the hold timer's included (section 4.2)."""
        self.ours = False
        if self.restart is None or notified:
            gone = list(self.paths)
            self.paths.clear()
            self.stale_until = None
            return gone, []
        if self.stale_until is None:
            self.stale_until = now + min(self.restart, self.peer.graceful_restart_time)
        return [], self._all_stale()

    def restarted(self, now: float) -> list[Path]:
        """Our own ExaBGP is a new one: the peer's paths wait for it to say them again."""
        self.ours = True
        self.stale_until = now + self.peer.graceful_restart_time
        return self._all_stale()

    def _all_stale(self) -> list[Path]:
        stale = [replace(path, stale=True) for path in self.paths.values() if not path.stale]
        self.paths.update((path.prefix, path) for path in stale)
        return stale

    def expire(self, now: float) -> list[IPNetwork]:
        """What was stale for longer than the restart time."""
        if self.stale_until is None or now < self.stale_until:
            return []
        return self._purge_stale()

    def _purge_stale(self) -> list[IPNetwork]:
        self.stale_until, self.ours = None, False
        gone = [prefix for prefix, path in self.paths.items() if path.stale]
        for prefix in gone:
            del self.paths[prefix]
        return gone
