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

DEFAULT_METRIC = 1024  # of a learned default route: behind any that is not ours with a lower one

Paths = Mapping[IPNetwork, Mapping[str, Path]]  # by prefix and peer


class Imports:
    """`learned` is what should be installed, by prefix; the same object from call to call."""

    def __init__(self) -> None:
        self.learned: dict[IPNetwork, LearnedRoute] = {}
        self._rule: Any = None
        self._hops: dict[tuple[IPAddress, ...], tuple[NextHop, ...]] = {}

    def update(
        self, intent: Intent | None, paths: Paths, touched: Iterable[IPNetwork] | None
    ) -> dict[IPNetwork, LearnedRoute]:
        """Decide the `touched` prefixes again, or all of them (None)."""
        rule = None if intent is None else _depends_on(intent)
        if touched is None or rule != self._rule:
            self.learned.clear()
            self._hops.clear()
            self._rule, touched = rule, paths
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
        best = [path.next_hops for path in allowed if len(path.as_path) == shortest]
        gateways = best[0] if len(best) == 1 else tuple({hop for hops in best for hop in hops})
        hops = self._hops.get(gateways)
        if hops is None:  # one tuple for all routes over the same gateways
            hops = tuple(NextHop(gateway) for gateway in sorted(gateways, key=int))
            same = next((held for held in self._hops.values() if held == hops), hops)
            hops = self._hops[gateways] = same
        if prefix.prefixlen == 0:
            return LearnedRoute(prefix, hops, DEFAULT_METRIC)
        return LearnedRoute(prefix, hops)


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
        intent.node.spec.addresses if intent.node else [],
    )
