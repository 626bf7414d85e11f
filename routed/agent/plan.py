"""The plan: what kernel and speaker of this host should hold, from what is known now.

`plan(facts)` is a pure function of current state, never of history. Announceable is only what
was read back from the kernel (`announce`), which is why it is a function of its own, called with
the kernel's report after each sync.

Rules (ADR 1 has the reasons):

- a record is desired until its detach has begun; a record whose detach has begun is not;
- nothing is swept before intent has been loaded, no learned route before the speaker's end marker;
- every owned block has a blackhole route, so that an address nobody has is answered here and does
  not loop between host and switch;
- imported are prefixes inside our pools of length /32, /128 or blockSize that are not our own,
  and the default route where the peer says so; nothing else, whatever a peer sends (RFC 8212).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from api.resources.bgppeer import BGPConfigurationSpec, BGPPeer
from api.resources.ippool import Announce, IPPool
from api.resources.net import IPAddress, IPNetwork, host_prefix
from api.resources.selectors import parse as parse_selector
from bgp.seam import Advertisement, Path, Peer
from routed.agent.attachment import Attachment, Step
from routed.agent.intent import Intent
from routed.state import (
    HostState,
    LearnedRoute,
    NextHop,
    Report,
    host_interface_name,
)

DEFAULT_METRIC = 1024  # of a learned default route: behind any that is not ours with a lower one


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that decides: nothing else may."""

    intent: Intent | None
    records: Mapping[str, Attachment]
    paths: Mapping[tuple[str, IPNetwork], Path] = field(default_factory=dict)
    received_whole: bool = False  # the speaker's end marker has been seen on this connection
    releasing: frozenset[str] = frozenset()  # blocks on their way back to the service
    manage_sysctls: bool = True


def plan(facts: Facts) -> HostState:
    """The kernel state of this host."""
    endpoints = {
        record.id: record.endpoint()
        for record in facts.records.values()
        if record.step is not Step.DETACHING
    }
    learned = import_routes(facts.intent, facts.paths.values()) if facts.intent else {}
    return HostState(
        endpoints=endpoints,
        blackholes=frozenset(blocks_of(facts)),
        learned=learned,
        sweep=facts.intent is not None,
        sweep_learned=facts.intent is not None and facts.received_whole,
        manage_sysctls=facts.manage_sysctls,
    )


def blocks_of(facts: Facts) -> list[IPNetwork]:
    """The blocks this node owns and is not giving back."""
    if facts.intent is None:
        return []
    return [
        block.spec.cidr
        for name, block in facts.intent.blocks.items()
        if name not in facts.releasing and block.spec.cidr is not None
    ]


def announce(facts: Facts, report: Report) -> dict[IPNetwork, Advertisement]:
    """What may be said to the switches: what the kernel was read back to hold, and no more."""
    if facts.intent is None:
        return {}
    communities = tuple(_configuration(facts.intent).communities)
    found: dict[IPNetwork, Advertisement] = {}
    blocks = blocks_of(facts)
    for workload, addresses in report.ready.items():
        record = facts.records.get(workload)
        if record is None or record.step is Step.DETACHING:
            continue
        link = host_interface_name(workload)
        for address in addresses:
            if announced_as_host(address, facts.intent, blocks):
                prefix = host_prefix(address)
                found[prefix] = Advertisement(prefix, link=link, communities=communities)
    for pool in facts.intent.pools.values():
        if pool.spec.announce is Announce.HOSTS:
            continue
        for cidr in blocks:
            if _inside(cidr, pool.spec.cidr) and cidr in report.routed:
                found[cidr] = Advertisement(cidr, communities=communities)
    return found


def announced_as_host(address: IPAddress, intent: Intent, blocks: Iterable[IPNetwork]) -> bool:
    """Whether `address` gets a /32 of its own: only inside a block we own (invariant 1)."""
    if not any(address in cidr for cidr in blocks):
        return False
    pool = pool_of(address, intent.pools.values())
    return pool is None or pool.spec.announce is not Announce.BLOCKS


def peers_of(intent: Intent) -> dict[str, Peer]:
    """The sessions of this node, by name. A node without an ASN has none yet; of two peers with
    one address the first by name counts."""
    node = intent.node
    if node is None or node.spec.as_number is None:
        return {}
    found = {}
    addresses: set[IPAddress] = set()
    for name, peer in sorted(intent.peers.items()):
        if not _selects(peer, intent):
            continue
        spec = peer.spec
        if spec.peer_ip in addresses:
            continue
        addresses.add(spec.peer_ip)
        found[name] = Peer(
            name=name,
            address=spec.peer_ip,
            remote_as=spec.as_number,
            local_as=spec.local_as_number or node.spec.as_number,
            router_id=router_id(intent),
            local_address=spec.source_address,
            hold_time=spec.hold_time,
            graceful_restart_time=spec.graceful_restart_time,
            ttl_security=spec.ttl_security,
            password_file=spec.password_file,
            max_prefixes=spec.max_prefixes,
        )
    return found


def router_id(intent: Intent) -> str:
    """The BGP identifier: as declared, else the first v4 address, else derived from the name.

    RFC 6286 asks for a non-zero number unique within the AS; every node has its own AS by
    default, and 31 hashed bits are plenty where it has not.
    """
    if intent.node is not None:
        if intent.node.spec.router_id:
            return intent.node.spec.router_id
        for address in intent.node.spec.addresses:
            if isinstance(address, IPv4Address):
                return str(address)
    digest = hashlib.blake2s(intent.node_name.encode(), digest_size=4).digest()
    return str(IPv4Address((int.from_bytes(digest, "big") & 0x7FFF_FFFF) | 1))


def import_routes(intent: Intent, paths: Iterable[Path]) -> dict[IPNetwork, LearnedRoute]:
    """The routes to install: allowed paths, the shortest AS paths of each prefix, as ECMP."""
    own = [block.spec.cidr for block in intent.blocks.values() if block.spec.cidr is not None]
    best: dict[IPNetwork, list[Path]] = {}
    for path in paths:
        if not importable(path, intent, own):
            continue
        held = best.setdefault(path.prefix, [])
        if held and len(path.as_path) < len(held[0].as_path):
            held.clear()
        if not held or len(path.as_path) == len(held[0].as_path):
            held.append(path)
    found = {}
    for prefix, chosen in best.items():
        gateways = sorted({hop for path in chosen for hop in path.next_hops}, key=int)
        hops = tuple(NextHop(gateway) for gateway in gateways)
        if prefix.prefixlen == 0:
            found[prefix] = LearnedRoute(prefix, hops, DEFAULT_METRIC)
        else:
            found[prefix] = LearnedRoute(prefix, hops)
    return found


def importable(path: Path, intent: Intent, own: Iterable[IPNetwork]) -> bool:
    """Whether a received path may reach the kernel."""
    if not path.next_hops or any(_martian(hop, path.prefix, intent) for hop in path.next_hops):
        return False
    prefix = path.prefix
    if prefix.prefixlen == 0:
        peer = intent.peers.get(path.peer)
        return peer is not None and peer.spec.import_default
    if any(_inside(prefix, cidr) or _inside(cidr, prefix) for cidr in own):
        return False
    for pool in intent.pools.values():
        if _inside(prefix, pool.spec.cidr):
            return prefix.prefixlen in (prefix.max_prefixlen, pool.spec.block_size)
    return False


def pool_of(address: IPAddress, pools: Iterable[IPPool]) -> IPPool | None:
    """The pool that holds `address`; pools never overlap, so there is at most one."""
    return next((pool for pool in pools if address in pool.spec.cidr), None)


def usable_pools(intent: Intent, wanted: Iterable[str] = ()) -> list[IPPool]:
    """The pools this node may assign from, by name: enabled, selecting it, and `wanted` if any."""
    names = list(wanted) or sorted(intent.pools)
    labels = intent.labels()
    return [
        pool
        for name in names
        if (pool := intent.pools.get(name)) is not None
        and not pool.spec.disabled
        and parse_selector(pool.spec.node_selector).matches(labels)
    ]


def _martian(hop: IPAddress, prefix: IPNetwork, intent: Intent) -> bool:
    """A next hop that no neighbour can have: our own, nobody's, or inside what it leads to."""
    own = intent.node is not None and hop in intent.node.spec.addresses
    nobody = hop.is_unspecified or hop.is_loopback or hop.is_multicast
    return own or nobody or (prefix.prefixlen > 0 and hop in prefix)


def _selects(peer: BGPPeer, intent: Intent) -> bool:
    if peer.spec.node is not None:
        return peer.spec.node == intent.node_name
    return parse_selector(peer.spec.node_selector).matches(intent.labels())


def _configuration(intent: Intent) -> BGPConfigurationSpec:
    return intent.bgp.spec if intent.bgp else BGPConfigurationSpec()


def _inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
