"""The plan: what kernel and speaker of this host should hold, from what is known now.

`plan(facts)` is a pure function of current state, never of history. Announceable is only what
was read back from the kernel (`announce`), which is why it is a function of its own, called with
the kernel's report after each sync.

Rules (ADR 1 has the reasons):

- a record is desired until its detach has begun; a record whose detach has begun is not;
- nothing is swept before intent has been loaded, no learned route before the speaker's end marker;
- every owned block has a blackhole route, so that an address nobody has is answered here and does
  not loop between host and switch;
- learned routes are those that `routed.agent.imports` lets in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from api.resources.bgppeer import BGPConfigurationSpec
from api.resources.ippool import Allocation, Announce, IPPool
from api.resources.net import IPAddress, IPNetwork, host_prefix
from api.resources.selectors import parse as parse_selector
from bgp.seam import Advertisement, Peer, Session
from routed.agent.attachment import Attachment, Step
from routed.agent.intent import Intent
from routed.state import HostState, LearnedRoute, Report


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that decides: nothing else may."""

    intent: Intent | None
    records: Mapping[str, Attachment]
    learned: Mapping[IPNetwork, LearnedRoute] = field(default_factory=dict)
    received_whole: bool = False  # the speaker's end marker has been seen on this connection
    releasing: frozenset[str] = frozenset()  # blocks on their way back to the service
    manage_sysctls: bool = True


def plan(facts: Facts) -> HostState:
    """The kernel state of this host."""
    endpoints = {
        record.id: record.endpoint()
        for record in facts.records.values()
        if record.step is not Step.DETACHING and not record.shared_with
    }
    return HostState(
        endpoints=endpoints,
        blackholes=frozenset(blocks_of(facts)),
        learned=facts.learned,
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
    found: dict[IPNetwork, Advertisement] = {}
    for workload, addresses in report.ready.items():
        record = facts.records.get(workload)
        if record is not None:
            space = report.spaces.get(workload)
            for one in advertisements(facts.intent, record, addresses, facts.releasing, space):
                found[one.prefix] = one
    communities = tuple(_configuration(facts.intent).communities)
    for cidr in blocks_of(facts):
        pool = facts.intent.pool_index.find(cidr.network_address)
        aggregate = pool is not None and pool.spec.announce is not Announce.HOSTS
        if aggregate and cidr in report.routed:
            found[cidr] = Advertisement(cidr, communities=communities)
    return found


def advertisements(
    intent: Intent,
    record: Attachment,
    addresses: Iterable[IPAddress],
    releasing: Container[str] = (),
    space: int | None = None,
) -> list[Advertisement]:
    """What may be said of one workload whose `addresses` were read back: a /32 or /128 of each
    that lies inside a block we own (invariant 1), unless its pool announces blocks only. `space`:
    the id of its namespace, where no link on the host goes with it."""
    if record.step is Step.DETACHING:
        return []
    communities = tuple(_configuration(intent).communities)
    found = []
    for address in addresses:
        block = intent.block_index.find(address)
        if block is None or block[0] in releasing:
            continue
        pool = intent.pool_index.find(address)
        if pool is None or pool.spec.announce is not Announce.BLOCKS:
            prefix = host_prefix(address)
            link = record.host_interface
            found.append(Advertisement(prefix, None, link, communities, space))
    return found


def peers_of(intent: Intent) -> dict[str, Peer]:
    """The sessions of this node, by name. A node without an ASN has none yet; of two peers with
    one address the first by name counts (`unused_peers` has the others)."""
    node = intent.node
    if node is None or node.spec.as_number is None:
        return {}
    found = {}
    for name, *_ in _by_address(intent).values():
        spec = intent.peers[name].spec
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
            families=() if len(spec.versions()) == 1 else spec.versions(),
            interface=spec.interface,
        )
    return found


def sessions(intent: Intent | None, held: Mapping[str, Session]) -> list[dict[str, Any]]:
    """Those that this node should have, by name; `state` "": nobody is there to say."""
    if intent is None:
        return []
    return [
        {
            "peer": name,
            "address": str(peer.address),
            "asNumber": peer.remote_as,
            "localASNumber": peer.local_as,
            "families": [f"IPv{version}" for version in peer.carried],
            "state": held[name].state if name in held else "",
            "error": held[name].error if name in held else "",
        }
        for name, peer in sorted(peers_of(intent).items())
    ]


def unused_peers(intent: Intent) -> dict[str, tuple[IPAddress, str]]:
    """Peers that select this node and are not used, by name: address, and why, for people. A
    session is known by the peer's address, link-local ones too."""
    return {
        name: (address, f"not used: BGPPeer {used} has this peerIP")
        for address, (used, *others) in _by_address(intent).items()
        for name in others
    }


def _by_address(intent: Intent) -> dict[IPAddress, list[str]]:
    """The names of the peers that select this node; the first of each address is used."""
    found: dict[IPAddress, list[str]] = {}
    for name, peer in sorted(intent.peers.items()):
        if peer.selects(intent.node_name, intent.labels()):
            found.setdefault(peer.spec.peer_ip, []).append(name)
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


def automatic_pools(intent: Intent, wanted: Iterable[str] = ()) -> list[IPPool]:
    """The pools this node may assign from by itself, by name; of `wanted`, if any."""
    pools = [intent.pools[name] for name in _named(intent, wanted)]
    return [pool for pool in pools if not _against(intent, pool)]


def why_not(intent: Intent, wanted: Iterable[str] = ()) -> str:
    """What keeps this node from each of the pools, for people; "": nothing."""
    if intent.draining:
        return "the node is unschedulable, it is being drained"
    reasons = [(name, _against(intent, intent.pools[name])) for name in _named(intent, wanted)]
    return "; ".join(f"{name} {reason}" for name, reason in reasons if reason)


def _named(intent: Intent, wanted: Iterable[str]) -> list[str]:
    return [name for name in (list(wanted) or sorted(intent.pools)) if name in intent.pools]


def _against(intent: Intent, pool: IPPool) -> str:
    """Why this node does not assign from `pool` by itself; "": it does."""
    spec = pool.spec
    if intent.draining:
        return "is not used: the node is being drained"
    if spec.disabled:
        return "is disabled"
    if spec.allocation is not Allocation.AUTOMATIC:
        return f"has allocation {spec.allocation}: its addresses have to be asked for"
    if not parse_selector(spec.node_selector).matches(intent.labels()):
        return f"has the nodeSelector {spec.node_selector!r}, which excludes this node"
    return ""


def _configuration(intent: Intent) -> BGPConfigurationSpec:
    return intent.bgp.spec if intent.bgp else BGPConfigurationSpec()
