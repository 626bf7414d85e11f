"""The import rule: which received paths become routes of this host (RFC 8212: nothing by default).

Let in are prefixes inside our pools, of length /32, /128 or the pool's blockSize, that are not our
own, and the default route where the peer says so; nothing else, whatever a peer sends. Of several
paths of a prefix those with the shortest AS path count, all of them, as ECMP.

A rack may have a hundred thousand of them, so the result is kept and only prefixes whose paths have
changed are decided again; when what the rule depends on has changed, all are. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from api.resources.net import IPAddress, IPNetwork
from bgp.seam import Path
from routed.agent.intent import Intent
from routed.state import LearnedRoute, NextHop

# Of a learned default route: behind whatever else a host has. What systemd-networkd learns by DHCP
# and the kernel by router advertisements has 1024, NetworkManager's 100 and up, others' 0.
DEFAULT_METRIC = 2048

Way = tuple[tuple[IPAddress, ...], str | None]  # next hops of a path, the link of its peer
Paths = Mapping[IPNetwork, Mapping[str, Path]]  # by prefix and peer


class Imports:
    """`learned` is what should be installed, by prefix; the same object from call to call."""

    def __init__(self) -> None:
        self.learned: dict[IPNetwork, LearnedRoute] = {}
        self._rule: Any = None
        self._links: dict[str, str | None] = {}  # by peer, where it is said
        self._hops: dict[tuple[Way, ...], tuple[NextHop, ...]] = {}

    def update(
        self, intent: Intent | None, paths: Paths, touched: Iterable[IPNetwork] | None
    ) -> dict[IPNetwork, LearnedRoute]:
        """Decide the `touched` prefixes again, or all of them (None)."""
        rule = None if intent is None else _depends_on(intent)
        if touched is None or rule != self._rule:
            self.learned.clear()
            self._hops.clear()
            self._rule, touched = rule, paths
            self._links = _links(intent)
        for prefix in touched:
            route = None if intent is None else self._route(intent, prefix, paths.get(prefix, {}))
            if route is None:
                self.learned.pop(prefix, None)
            elif self.learned.get(prefix) != route:
                self.learned[prefix] = route
        return self.learned

    def _route(
        self, intent: Intent, prefix: IPNetwork, paths: Mapping[str, Path]
    ) -> LearnedRoute | None:
        allowed = [path for path in paths.values() if importable(path, intent)]
        if not allowed:
            return None
        shortest = min(len(path.as_path) for path in allowed)
        best = [path for path in allowed if len(path.as_path) == shortest]
        ways = tuple((path.next_hops, self._links.get(path.peer)) for path in best)
        hops = self._hops.get(ways)
        if hops is None:  # one tuple for all routes over the same gateways
            hops = _next_hops(ways)
            same = next((held for held in self._hops.values() if held == hops), hops)
            hops = self._hops[ways] = same
        if not hops:
            return None
        if prefix.prefixlen == 0:
            return LearnedRoute(prefix, hops, DEFAULT_METRIC)
        return LearnedRoute(prefix, hops)


def _links(intent: Intent | None) -> dict[str, str | None]:
    if intent is None:
        return {}
    return {name: peer.spec.interface for name, peer in intent.peers.items()}


def _next_hops(ways: Iterable[Way]) -> tuple[NextHop, ...]:
    """A link-local gateway is on the link of its peer; without that it leads nowhere."""
    found = set()
    for gateways, link in ways:
        for gateway in gateways:
            narrow = gateway.version == 6 and gateway.is_link_local
            if link is not None or not narrow:
                found.add(NextHop(gateway, link if narrow else None))
    return tuple(sorted(found, key=lambda hop: (int(hop.gateway), hop.interface or "")))


def import_routes(intent: Intent, paths: Iterable[Path]) -> dict[IPNetwork, LearnedRoute]:
    """All at once: what `Imports` keeps."""
    by_prefix: dict[IPNetwork, dict[str, Path]] = {}
    for path in paths:
        by_prefix.setdefault(path.prefix, {})[path.peer] = path
    return Imports().update(intent, by_prefix, None)


def importable(path: Path, intent: Intent) -> bool:
    """Whether a received path may reach the kernel."""
    prefix = path.prefix
    if not path.next_hops or any(_martian(hop, prefix, intent) for hop in path.next_hops):
        return False
    if prefix.prefixlen == 0:
        peer = intent.peers.get(path.peer)
        return peer is not None and peer.spec.import_default
    first = prefix.network_address
    pool = intent.pool_index.find(first)
    if pool is None or prefix.prefixlen not in (prefix.max_prefixlen, pool.spec.block_size):
        return False
    if intent.block_index.find(first) is not None:
        return False
    return prefix.prefixlen == prefix.max_prefixlen or not any(
        block.spec.cidr is not None and block.spec.cidr.network_address in prefix
        for block in intent.blocks.values()
    )


def _martian(hop: IPAddress, prefix: IPNetwork, intent: Intent) -> bool:
    """A next hop that no neighbour can have: our own, nobody's, or inside what it leads to."""
    own = intent.node is not None and hop in intent.node.spec.addresses
    nobody = hop.is_unspecified or hop.is_loopback or hop.is_multicast
    return own or nobody or (prefix.prefixlen > 0 and hop in prefix)


def _depends_on(intent: Intent) -> Any:
    """What of intent the rule looks at."""
    return (
        sorted((name, pool.spec.cidr, pool.spec.block_size) for name, pool in intent.pools.items()),
        {block.spec.cidr for block in intent.blocks.values()},
        {name for name, peer in intent.peers.items() if peer.spec.import_default},
        _links(intent),
        intent.node.spec.addresses if intent.node else [],
    )
