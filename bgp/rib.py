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

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from api.resources.net import IPAddress, IPNetwork
from bgp import commands
from bgp.events import Opened, Received
from bgp.seam import Advertisement, Path, Peer

REST = 0.25  # seconds between two changes of one prefix
OTHER = IPv4Address(0)  # a next hop that nobody wants: what was told has to be told anew


@dataclass(slots=True)
class Outbound:
    """What one peer is told. `hops` are the next hops that it is told for our own prefixes, by
    version of IP, known when the session is up; of a version without one it is told nothing, and
    what it was told is withdrawn."""

    peer: Peer
    hops: dict[int, IPAddress] = field(default_factory=dict)
    told_with: dict[int, IPAddress] = field(default_factory=dict)  # in this session or an earlier
    up: bool = False
    told: dict[IPNetwork, Advertisement] = field(default_factory=dict)
    dirty: dict[IPNetwork, None] = field(default_factory=dict)
    rests: dict[IPNetwork, float] = field(default_factory=dict)  # until when
    swept: float = 0.0  # when those that rest no more were last dropped from it
    owes_flush: bool = False
    owes_eor: list[int] = field(default_factory=list)  # versions of IP

    def touch(self, prefixes: Iterable[IPNetwork]) -> None:
        """These may have changed."""
        carried = self.peer.carried
        for prefix in prefixes:
            if prefix.version in carried:
                self.dirty[prefix] = None

    def came_up(self, hops: Mapping[int, IPAddress], carried: Iterable[int] = ()) -> None:
        """The session is there, with these next hops; of what it carries without one, nothing is
        all that we announce."""
        self.up = True
        self.hops.clear()
        self.owes_eor = sorted(set(carried) - hops.keys())
        self.use(hops)
        for prefix in self.told:
            if prefix.version not in hops:
                self.dirty[prefix] = None
        self.owes_flush = bool(self.dirty)

    def use(self, hops: Mapping[int, IPAddress]) -> None:
        """These are the next hops from now on."""
        for version in self.hops.keys() - hops.keys():
            del self.hops[version]
            self.touch([prefix for prefix in self.told if prefix.version == version])
        for version in sorted(hops):
            if self.hops.get(version) != hops[version]:
                self._can_tell(version, hops[version])

    def _can_tell(self, version: int, hop: IPAddress) -> None:
        """There is a next hop for `version`. ExaBGP repeats what it was told in the last session;
        if that was with another one, it has to be told anew."""
        if version not in self.hops and version not in self.owes_eor:
            self.owes_eor.append(version)
        self.hops[version] = hop
        if self.told_with.setdefault(version, hop) != hop:
            self.told_with[version] = hop
            for prefix, held in self.told.items():
                if prefix.version == version and held.next_hop is None:
                    self.told[prefix] = replace(held, next_hop=OTHER)
                    self.dirty[prefix] = None

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
        if not self.up:
            return None
        ready: list[Advertisement] = []
        gone: list[IPNetwork] = []
        waiting = False
        for prefix in list(self.dirty):
            want, held = wanted.get(prefix), self.told.get(prefix)
            if want is not None and prefix.version not in self.hops:
                if held is None:
                    continue
                want = None
            if _same(want, held):
                del self.dirty[prefix]
            elif now < self.rests.get(prefix, now):
                waiting = True
            elif want is None:
                if not gone or gone[0].version == prefix.version:
                    gone.append(prefix)
            elif not ready or _together(ready[0], want):
                ready.append(want)
            if commands.MOST_NLRI in (len(ready), len(gone)):
                break
        if gone:
            for prefix in gone:
                del self.told[prefix]
                self._done(prefix, now)
                if prefix in wanted:
                    self.dirty[prefix] = None  # waits for a next hop
            version = gone[0].version
            hop = self.hops.get(version, self.told_with[version])
            return commands.withdraw(self.peer.address, hop, gone)
        if ready:
            for one in ready:
                self.told[one.prefix] = one
                self._done(one.prefix, now)
            hop = ready[0].next_hop or self.hops[ready[0].prefix.version]
            return commands.announce(self.peer.address, hop, ready)
        if waiting:
            return None
        if self.owes_flush:
            self.owes_flush = False
            return commands.flush(self.peer.address)
        if self.owes_eor and complete:
            return commands.end_of_rib(self.peer.address, self.owes_eor.pop(0))
        return None

    def wake_at(self) -> float | None:
        """When the first resting prefix may change again; None if none waits for that."""
        if not self.up:
            return None
        waiting = (self.rests.get(p, 0.0) for p in self.dirty if self._can_change(p))
        return min(waiting, default=None)

    def idle(self) -> bool:
        return not self.up or not any(self._can_change(prefix) for prefix in self.dirty)

    def _can_change(self, prefix: IPNetwork) -> bool:
        """What has no next hop can still be withdrawn."""
        return prefix.version in self.hops or prefix in self.told

    def _done(self, prefix: IPNetwork, now: float) -> None:
        del self.dirty[prefix]
        self.rests[prefix] = now + REST
        if len(self.rests) > 1000 + 2 * len(self.told) and now >= self.swept + REST:
            self.swept = now  # not for every prefix of a thousand that rest
            self.rests = {p: until for p, until in self.rests.items() if now < until}


def _together(one: Advertisement, other: Advertisement) -> bool:
    """Whether one command can have both."""
    return (one.prefix.version, one.next_hop, one.communities) == (
        other.prefix.version,
        other.next_hop,
        other.communities,
    )


def _same(want: Advertisement | None, held: Advertisement | None) -> bool:
    """Equal on the wire: the link is only for us."""
    if want is None or held is None:
        return want is held
    return (want.next_hop, want.communities) == (held.next_hop, held.communities)


@dataclass(slots=True)
class Inbound:
    """What one peer has told us. Changes are (gone prefixes, new paths).

    Graceful restart is a matter of each version of IP: a peer may keep one and not the other.
    """

    peer: Peer
    restart: int | None = None  # seconds, as the peer's OPEN had it
    kept: frozenset[int] = frozenset({4, 6})  # versions that it keeps over a restart
    families: frozenset[int] | None = None  # versions that the session carries, once it was up
    extended: bool = False  # the peer takes IPv4 prefixes with an IPv6 next hop (RFC 8950)
    paths: dict[IPNetwork, Path] = field(default_factory=dict)
    stale_until: dict[int, float] = field(default_factory=dict)  # by version
    refused: int = 0
    ours: bool = False  # it was our side that restarted: the peer has lost nothing
    ended: set[int] = field(default_factory=set)  # versions of which End-of-RIB was heard, ever

    @property
    def whole(self) -> bool:
        """Whether the peer has said everything, at least once."""
        return self.ended.issuperset(self.carried)

    @property
    def carried(self) -> frozenset[int]:
        return self.families if self.families is not None else frozenset(self.peer.carried)

    def receive(self, said: Received) -> tuple[list[IPNetwork], list[Path]]:
        """Take in an UPDATE. A path with our own AS in it is a loop (RFC 4271, section 9)."""
        if said.end_of_rib is not None:
            self.ended.add(said.end_of_rib)
            return self._purge_stale([said.end_of_rib]), []
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
                _usable(found),
                said.as_path,
                said.communities,
                said.med,
            )
            self.paths[prefix] = path
            new.append(path)
        return gone, new

    def opened(self, said: Opened, now: float) -> list[IPNetwork]:
        """A new session: what is stale waits for its End-of-RIB, or goes at once if the peer did
        not keep its forwarding state, or does not carry it any more."""
        self.restart, self.kept, self.extended = said.restart, said.kept, said.extended
        if said.families is not None:
            self.families = said.families & frozenset(self.peer.carried)
        stays = frozenset(self.stale_until) if self.ours else said.forwarding
        stays &= self.carried
        gone = self._purge_stale(self.stale_until.keys() - stays)
        for version in self.stale_until:
            self.stale_until[version] = now + self.peer.graceful_restart_time
        return gone

    def went_down(
        self, now: float, *, notified: bool = False
    ) -> tuple[list[IPNetwork], list[Path]]:
        """The session ended: keep what is stale for the peer's restart time, or let it all go;
        so too if it ended by a NOTIFICATION, the hold timer's included (section 4.2)."""
        self.ours = False
        kept = frozenset() if self.restart is None or notified else self.kept
        gone = [prefix for prefix in self.paths if prefix.version not in kept]
        for prefix in gone:
            del self.paths[prefix]
        until = now + min(self.restart or 0, self.peer.graceful_restart_time)
        self.stale_until = {
            version: self.stale_until.get(version, until) for version in kept & self.carried
        }
        return gone, self._all_stale()

    def restarted(self, now: float) -> list[Path]:
        """Our own ExaBGP is a new one: the peer's paths wait for it to say them again."""
        self.ours = True
        until = now + self.peer.graceful_restart_time
        self.stale_until = dict.fromkeys(self.peer.carried, until)
        return self._all_stale()

    def _all_stale(self) -> list[Path]:
        stale = [replace(path, stale=True) for path in self.paths.values() if not path.stale]
        self.paths.update((path.prefix, path) for path in stale)
        return stale

    def expire(self, now: float) -> list[IPNetwork]:
        """What was stale for longer than the restart time."""
        return self._purge_stale([v for v, until in self.stale_until.items() if now >= until])

    def _purge_stale(self, versions: Collection[int]) -> list[IPNetwork]:
        if not versions:
            return []
        for version in list(versions):
            self.stale_until.pop(version, None)
        self.ours = self.ours and bool(self.stale_until)
        gone = [p for p, path in self.paths.items() if path.stale and p.version in versions]
        for prefix in gone:
            del self.paths[prefix]
        return gone


def _usable(hops: Collection[IPAddress]) -> tuple[IPAddress, ...]:
    """A router with a global and a link-local address says both (RFC 2545, section 3): they are
    one way, and the global one names it without a link. BIRD without a global one says :: for it.
    """
    found = {hop for hop in hops if int(hop)} if len(hops) > 1 else hops
    wide = {hop for hop in found if not hop.is_link_local}
    return tuple(sorted(wide or set(found), key=int))
