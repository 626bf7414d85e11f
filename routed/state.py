"""What a host's kernel should hold, as values.

`HostState` is the whole desired state of one host; drivers read back `Observed`, diff, touch only
what differs, and return a `Report` of what was really reached. Nothing here does I/O.

How an agent without memory recognises what is ours:

    link       IFLA_GROUP 29284 (0x7264, "rd") and alias ``routed:<workload>``
    route      protocol 82, table main
    address    on a link of ours
    neighbour  on a link of ours
    nft        table ``inet routed``; in a DOCKER-USER chain, the comment ``routed``
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from api.resources.errors import ApplyError
from api.resources.net import IPAddress, IPNetwork

LINK_GROUP = 0x7264
REAP_GROUP = 0x7265  # links whose workload is gone, deleted in groups
REAPING_GROUP = 0x7266  # those of them that are being deleted right now
ROUTE_PROTOCOL = 82
ALIAS_PREFIX = "routed:"
BLACKHOLE_METRIC = 8192  # of blocks: behind the host route of a block of one address
LEARNED_METRIC = 512  # of routes learned by BGP; our own /32s have metric 0

GATEWAY_V4 = "169.254.1.1"
GATEWAY_V6 = "fe80::1"
HOST_MAC = bytes.fromhex("ee" * 6)


def host_interface_name(workload: str) -> str:
    """The host side's name: stable, 15 characters or fewer, from the workload's name alone."""
    return "rt" + hashlib.blake2s(workload.encode(), digest_size=6).hexdigest()


def workload_mac(workload: str) -> bytes:
    """The workload side's MAC: stable, locally administered, unicast."""
    return b"\x02" + hashlib.blake2s(workload.encode(), digest_size=5, person=b"mac").digest()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One workload's interface: a veth pair whose inner end is in `netns`.

    `netns` is a path, or None for the hand-over form: the inner end, named `if_name`, stays in
    the host's namespace for the runtime to move. `netns_id` is (st_dev, st_ino) of the namespace: a
    path that names another one by now does not count. `addresses` are its /32s and /128s.
    """

    workload: str
    if_name: str
    addresses: tuple[IPAddress, ...]
    netns: str | None
    mtu: int = 1500
    netns_id: tuple[int, int] | None = None

    @property
    def host_interface(self) -> str:
        return host_interface_name(self.workload)

    @property
    def alias(self) -> str:
        return ALIAS_PREFIX + self.workload

    @property
    def mac(self) -> bytes:
        return workload_mac(self.workload)


@dataclass(frozen=True, slots=True)
class NextHop:
    gateway: IPAddress
    interface: str | None = None  # None: the kernel resolves it


@dataclass(frozen=True, slots=True)
class LearnedRoute:
    """A route learned by BGP: ECMP over `next_hops`, which are sorted and not empty."""

    prefix: IPNetwork
    next_hops: tuple[NextHop, ...]
    metric: int = LEARNED_METRIC


@dataclass(frozen=True, slots=True)
class HostState:
    """Everything of ours that a host's kernel should hold.

    `endpoints` by workload; host routes to their addresses are implied. `blackholes` are the
    owned blocks. `sweep` False: leave what is ours but not named here (intent is not loaded yet).
    `sweep_learned` False: likewise for learned routes (the speaker's end marker is not here yet).
    """

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    blackholes: frozenset[IPNetwork] = frozenset()
    learned: dict[IPNetwork, LearnedRoute] = field(default_factory=dict)
    sweep: bool = True
    sweep_learned: bool = True
    manage_sysctls: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """What a sync really reached.

    `ready` are workloads whose link, addresses and host routes were read back (by name, with the
    addresses that are routed); `routed` the blackholes and learned prefixes that are in the
    kernel; `failed` what is not, by key; `changed` counts kernel changes made;
    `lost` are workloads whose namespace is gone.
    """

    ready: dict[str, tuple[IPAddress, ...]] = field(default_factory=dict)
    routed: frozenset[IPNetwork] = frozenset()
    failed: dict[str, ApplyError] = field(default_factory=dict)
    changed: int = 0
    lost: frozenset[str] = frozenset()
