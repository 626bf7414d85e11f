"""Who else announces our addresses: what the switches tell every host, judged. No I/O.

The speaker holds what each peer has told it, whatever the import rule makes of it, and the last AS
of a path is that of the node which announced it (each has an AS of its own). So an agent finds,
without asking anybody:

- a prefix inside a block of ours that another AS announces: we own it, so that is a duplicate or a
  rogue, also where the address is free at present;
- an address of a pool, anybody's, that two switches show from two ASes.

What it cannot find: who owns the blocks of others (`routectl ipam check` knows), what a switch does
not tell because our own announcement is the better one there, or because the other shares our AS
(its path looks like a loop), and whatever reaches us by a session within one AS. Paths of a switch
that restarts are what it knew before: they prove nothing, and do not count.

Anycast pools have no blocks, and their addresses many announcers. Like routes (`imports`) only
what has changed is judged again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from api.resources.ippool import Allocation
from api.resources.net import IPNetwork
from bgp.seam import Path
from routed.agent.imports import Paths
from routed.agent.intent import Intent
from routed.agent.plan import peers_of


class Conflicts:
    """`found` says what is wrong with each prefix; the same object from call to call."""

    def __init__(self) -> None:
        self.found: dict[IPNetwork, str] = {}
        self._rule: Any = None
        self._ours: frozenset[int] = frozenset()

    def update(
        self, intent: Intent | None, paths: Paths, touched: Iterable[IPNetwork] | None
    ) -> dict[IPNetwork, str]:
        """Judge the `touched` prefixes again, or all of them (None)."""
        rule = None if intent is None else _depends_on(intent)
        if touched is None or rule != self._rule:
            self.found.clear()
            self._rule, touched = rule, paths
            self._ours = frozenset() if intent is None else own_numbers(intent)
        for prefix in touched:
            said = "" if intent is None else self._judged(intent, prefix, paths.get(prefix, {}))
            if said:
                self.found[prefix] = said
            else:
                self.found.pop(prefix, None)
        return self.found

    def _judged(self, intent: Intent, prefix: IPNetwork, paths: Mapping[str, Path]) -> str:
        """What is wrong with a prefix; "": nothing."""
        owned = intent.block_index.find(prefix.network_address)
        mine = owned is not None and prefix.prefixlen >= owned[1].prefixlen
        if not mine and len(paths) < 2:
            return ""
        seen = announcers(paths.values(), self._ours)
        if owned is not None and mine:
            of = f"{prefix}, of block {owned[1]} of this node, is announced by"
            return f"{of} {said(seen)}" if seen else ""
        pool = intent.pool_index.find(prefix.network_address)
        if len(seen) < 2 or pool is None or pool.spec.allocation is Allocation.ANYCAST:
            return ""
        single = prefix.prefixlen >= pool.spec.block_size  # else a summary of many nodes' blocks
        return f"{prefix} is announced by {said(seen)}" if single else ""


def announcers(paths: Iterable[Path], ours: frozenset[int]) -> dict[int, list[str]]:
    """The last AS of each path that is not one of ours, and the peers that show it."""
    seen: dict[int, list[str]] = {}
    for path in paths:
        if not path.stale and path.as_path and path.as_path[-1] not in ours:
            seen.setdefault(path.as_path[-1], []).append(path.peer)
    return seen


def said(seen: Mapping[int, Iterable[str]]) -> str:
    """``AS 65001 (seen at tor1, tor2) and AS 65002 (seen at tor3)``"""
    ordered = sorted(seen.items())
    return " and ".join(
        f"AS {number} (seen at {', '.join(sorted(peers))})" for number, peers in ordered
    )


def own_numbers(intent: Intent) -> frozenset[int]:
    """The ASes that this node announces from."""
    number = intent.node.spec.as_number if intent.node else None
    local = {peer.local_as for peer in peers_of(intent).values()}
    return frozenset(local | ({number} if number is not None else set()))


def _depends_on(intent: Intent) -> Any:
    """What of intent the judgement looks at."""
    return (
        sorted(
            (name, pool.spec.cidr, pool.spec.block_size, pool.spec.allocation)
            for name, pool in intent.pools.items()
        ),
        {block.spec.cidr for block in intent.blocks.values()},
        own_numbers(intent),
    )
