"""What the agent and the speaker say to each other.

The agent states the full set of peers and advertisements, then changes; the speaker states the
full set of sessions and received paths, then changes. Both directions have the same shape: a
`begin` with a revision, the set, an `end` with the same revision, then single changes, one JSON
object a line on a unix stream socket. Whatever was not named between `begin` and `end` is gone.

agent -> speaker
    {"op":"begin","revision":R}  {"op":"peer",...Peer}  {"op":"advertise",...Advertisement}
    {"op":"end","revision":R,"complete":true}
    then {"op":"peer"|"unpeer"|"advertise"|"withdraw"} and
    {"op":"sync","token":T}      answered by {"event":"synced","token":T} when everything said
                                 before it has been taken by ExaBGP for every established peer
    {"op":"stop"}                withdraw everything, wait until sent, answer {"event":"stopped"}

speaker -> agent
    {"event":"begin","revision":R,"version":V}
    {"event":"session",...Session} {"event":"path",...Path}
    {"event":"end","revision":R}
    then {"event":"session"|"path"|"unpath"|"synced"}
    {"event":"linkdown","prefix":P,"link":L}  the speaker withdrew P itself: its link, or
                                              its namespace, is gone

Either passes over messages and fields that it does not know (`bgp.wire`); V is the speaker's
version.

`complete` says that the agent has had its first full sync: from then on the speaker itself sends
End-of-RIB (RFC 4724) whenever a session comes up, also while no agent is there.
"""

from __future__ import annotations

from dataclasses import dataclass

from api.resources.net import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class Peer:
    """One session to hold. Times are seconds; `ttl_security` is a number of hops or None.

    `families` are the versions of IP whose routes it carries; none: that of `address`. `interface`
    is the link of a link-local `address`; two peers of a host have different addresses.
    """

    name: str
    address: IPAddress
    remote_as: int
    local_as: int
    router_id: str
    local_address: IPAddress | None = None
    hold_time: int = 9
    graceful_restart_time: int = 120
    ttl_security: int | None = None
    password_file: str | None = None
    max_prefixes: int | None = None
    families: tuple[int, ...] = ()
    interface: str | None = None

    @property
    def carried(self) -> tuple[int, ...]:
        return self.families or (self.address.version,)


@dataclass(frozen=True, slots=True)
class Advertisement:
    """One prefix to announce to every peer that carries its family.

    `next_hop` None: our address of each session's link. `link`: the device, and `space`: the
    network namespace by its id here (rtnetlink(7), RTM_NEWNSID), whose disappearance makes the
    prefix dead; the speaker then withdraws it by itself.
    """

    prefix: IPNetwork
    next_hop: IPAddress | None = None
    link: str | None = None
    communities: tuple[str, ...] = ()
    space: int | None = None

    @property
    def ends(self) -> list[str | int]:
        """What it lasts as long as: its link by name, its namespace by id."""
        return [end for end in (self.link, self.space) if end is not None]


@dataclass(frozen=True, slots=True)
class Session:
    """A session's state as RFC 4271, section 8.2.2 names it; `since` is Unix time in seconds.

    `families` are the versions of IP that it carries, once Established (none: not said). `error`
    of such a one: what it does not carry although it should, and why.
    """

    peer: str
    address: IPAddress
    state: str
    since: float
    error: str = ""
    families: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Path:
    """One received route of one peer's Adj-RIB-In; `stale` while its peer restarts (RFC 4724)."""

    peer: str
    prefix: IPNetwork
    next_hops: tuple[IPAddress, ...]
    as_path: tuple[int, ...] = ()
    communities: tuple[str, ...] = ()
    med: int | None = None
    local_preference: int | None = None
    stale: bool = False
