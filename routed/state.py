"""What a host's kernel should hold, as values.

`HostState` is the whole desired state of one host; drivers read back `Observed`, diff, touch only
what differs, and return a `Report` of what was really reached. Nothing here does I/O.

How an agent without memory recognises what is ours:

    link       IFLA_GROUP 29284 (0x7264, "rd") and alias ``routed:<workload>``
    ipvlan     the same, inside the workload's namespace; on the host one slave for each parent, of
               group 29287 and alias ``routed:<mode> <parent>``: host routes lead over it
    rule       inside a workload: priority 8282, protocol 82, to a table numbered from its name
    limit      qdiscs with handle 7264: on a link of ours, or on an ``ifb`` of group 29288, whose
               name is that of the workload's link with another beginning
    route      protocol 82, table main
    next hop   protocol 82 and an id in the ranges below; which one an id means is read back, never
               remembered: what counts is the gateway and link, or the members
    address    on a link of ours
    neighbour  on a link of ours
    nft        tables ``inet routed`` and ``inet routed-away``; in a DOCKER-USER chain, the comment
               ``routed``
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from api.resources.errors import ApplyError
from api.resources.net import IPAddress, IPNetwork, host_prefix
from api.resources.workload import Mode

LINK_GROUP = 0x7264
REAP_GROUP = 0x7265  # links whose workload is gone, deleted in groups
REAPING_GROUP = 0x7266  # those of them that are being deleted right now
SLAVE_GROUP = 0x7267  # the host's own slave of an ipvlan parent
SHAPER_GROUP = 0x7268  # ifb links, which queue what a workload sends: named after its link
ROUTE_PROTOCOL = 82
ALIAS_PREFIX = "routed:"
BLACKHOLE_METRIC = 8192  # of blocks: behind the host route of a block of one address
LEARNED_METRIC = 512  # of routes learned by BGP; our own /32s have metric 0

# Ids of next hop objects (uapi/linux/nexthop.h), the lowest free one each. A next hop that is
# alone in a group is another object than the same one in groups of several: see kernel/nexthops.py
NEXT_HOP_IDS = range(82_000_000, 82_100_000)
LONE_NEXT_HOP_IDS = range(82_100_000, 82_200_000)
GROUP_IDS = range(82_200_000, 83_000_000)

FORWARD_V6 = "sysctl net.ipv6.conf.all.forwarding"
GATEWAY_V4 = "169.254.1.1"
GATEWAY_V6 = "fe80::1"
HOST_MAC = bytes.fromhex("ee" * 6)

_FAMILY = {4: 2, 6: 10}  # AF_INET, AF_INET6


@lru_cache(maxsize=1 << 14)
def host_interface_name(workload: str) -> str:
    """The host side's name: stable, 15 characters or fewer, from the workload's name alone."""
    return "rt" + hashlib.blake2s(workload.encode(), digest_size=6).hexdigest()


def shaper_name(workload: str) -> str:
    return "ri" + host_interface_name(workload).removeprefix("rt")


@lru_cache(maxsize=64)
def slave_name(parent: str) -> str:
    """The host's own slave of an ipvlan parent; no workload's link is called so."""
    return "rtv" + hashlib.blake2s(parent.encode(), digest_size=6).hexdigest()


@lru_cache(maxsize=1 << 14)
def workload_mac(workload: str) -> bytes:
    """The workload side's MAC: stable, locally administered, unicast."""
    return b"\x02" + hashlib.blake2s(workload.encode(), digest_size=5, person=b"mac").digest()


@dataclass(frozen=True, slots=True)
class Limits:
    """Of what a workload is sent (`to`) and of what it sends: bits a second, and the bits that may
    come at once. A rate of 0 is none."""

    to_rate: int = 0
    to_burst: int = 0
    from_rate: int = 0
    from_burst: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One workload's interface, by default a veth pair whose inner end is in `netns`.

    `netns` is a path, or None for the hand-over form: the inner end, named `if_name`, stays in
    the host's namespace for the runtime to move. `netns_id` is (st_dev, st_ino) of the namespace: a
    path that names another one by now does not count. `addresses` are its /32s and /128s.
    `parent` is the link whose slave an ipvlan workload has. Without `default_route` it is beside
    the interface that has it, and has `routes` (kernel/beside.py).
    """

    workload: str
    if_name: str
    addresses: tuple[IPAddress, ...]
    netns: str | None
    mtu: int = 1500
    netns_id: tuple[int, int] | None = None
    mode: Mode = Mode.VETH
    parent: str = ""
    limits: Limits | None = None
    default_route: bool = True
    routes: tuple[IPNetwork, ...] = ()

    @property
    def host_interface(self) -> str:
        """The link that its host routes lead over."""
        return slave_name(self.parent) if self.parent else host_interface_name(self.workload)

    @property
    def shaper(self) -> str:
        """The ifb that queues what it sends, where that is limited."""
        return shaper_name(self.workload)

    @property
    def alias(self) -> str:
        return ALIAS_PREFIX + self.workload

    @property
    def route_alias(self) -> str:
        """The alias of the link that its host routes lead over."""
        return f"{ALIAS_PREFIX}{self.mode} {self.parent}" if self.parent else self.alias

    @property
    def mac(self) -> bytes:
        return workload_mac(self.workload)


@dataclass(frozen=True, slots=True)
class NextHop:
    gateway: IPAddress
    interface: str | None = None  # None: the link on which the gateway is

    def __str__(self) -> str:
        return f"{self.gateway} dev {self.interface}" if self.interface else str(self.gateway)


def destination(prefix: IPNetwork) -> bytes:
    """Address family, length and address, as in a route message; the default route's has none."""
    raw = prefix.network_address.packed if prefix.prefixlen else b""
    return bytes((_FAMILY[prefix.version], prefix.prefixlen)) + raw


@lru_cache
def level(version: int, length: int, metric: int) -> bytes:
    """What many routes have in common: address family, length, metric (4 bytes). One object for
    each level: of two, identity says whether they are the same."""
    return bytes((_FAMILY[version], length)) + metric.to_bytes(4, "big")


def route_key(prefix: IPNetwork, metric: int) -> tuple[bytes, bytes]:
    """Level and address: what two routes of one table cannot have in common."""
    raw = prefix.network_address.packed if prefix.prefixlen else b""
    return level(prefix.version, prefix.prefixlen, metric), raw


def host_route_key(address: IPAddress) -> tuple[bytes, bytes]:
    """Of the host route to an address; without a metric an IPv6 route gets 1024
    (IP6_RT_PRIO_USER)."""
    return route_key(host_prefix(address), 0 if address.version == 4 else 1024)


@dataclass(frozen=True, slots=True)
class LearnedRoute:
    """A route learned by BGP: ECMP over `next_hops`, which are sorted and not empty.

    Of these there may be very many, so what they are compared by is made once: `level` and
    `address` (see `route_key`). Routes over the same next hops should share one tuple: drivers
    look at its identity first.
    """

    prefix: IPNetwork
    next_hops: tuple[NextHop, ...]
    metric: int = LEARNED_METRIC
    level: bytes = field(init=False, compare=False, repr=False)
    address: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        found, address = route_key(self.prefix, self.metric)
        object.__setattr__(self, "level", found)
        object.__setattr__(self, "address", address)


@dataclass(frozen=True, slots=True)
class HostState:
    """Everything of ours that a host's kernel should hold.

    `endpoints` by workload; host routes to their addresses are implied. `blackholes` are the
    owned blocks. `sweep` False: leave what is ours but not named here (intent is not loaded yet).
    `sweep_learned` False: likewise for learned routes (the speaker's end marker is not here yet).
    """

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    blackholes: frozenset[IPNetwork] = frozenset()
    learned: Mapping[IPNetwork, LearnedRoute] = field(default_factory=dict)
    sweep: bool = True
    sweep_learned: bool = True
    manage_sysctls: bool = True


class ForwardRefused(ApplyError):
    """IPv6 is not forwarded, for that would cost the host its own default route over `links`."""

    def __init__(self, links: Sequence[str]) -> None:
        super().__init__(FORWARD_V6, "set", errno.EPERM)
        self.links = tuple(links)
        self.remedy = "; ".join(f"sysctl -w net.ipv6.conf.{one}.accept_ra=2" for one in links)
        over = ", ".join(links)
        self.args = (
            f"cannot forward IPv6: the host's default route over {over} comes from router "
            "advertisements, which the kernel gives up when it forwards, unless accept_ra is 2; "
            f"run: {self.remedy}",
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What a sync really reached.

    `ready` are workloads whose link, addresses and host routes were read back (by name, with the
    addresses that are routed); `routed` the blackholes and learned prefixes that are in the
    kernel; `failed` what is not, by key: of learned routes without any usable next hop the next
    hops, not each route; `changed` counts kernel changes made, of which one can concern many
    routes; `lost` are workloads whose namespace is gone; `restored` are ipvlan parents that
    somebody had switched to another mode, with that mode; `spaces` are the ids here of the
    namespaces of workloads whose end no link on the host tells of.
    """

    ready: dict[str, tuple[IPAddress, ...]] = field(default_factory=dict)
    routed: frozenset[IPNetwork] = frozenset()
    failed: dict[str, ApplyError] = field(default_factory=dict)
    changed: int = 0
    lost: frozenset[str] = frozenset()
    restored: Mapping[str, str] = field(default_factory=dict)
    spaces: Mapping[str, int] = field(default_factory=dict)
