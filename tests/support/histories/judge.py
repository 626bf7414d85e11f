"""Everything that must never be, of one history. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from support.histories.kept import lost, misread
from support.histories.lives import Final, lives
from support.histories.owners import overlaps, warm
from support.histories.pools import Pool
from support.histories.record import Operation, Seen
from support.histories.room import wrongly_full
from support.histories.watches import wrongly_told

MOST = 1000  # of each sort


@dataclass(frozen=True, slots=True)
class History:
    operations: Sequence[Operation]
    seen: Sequence[Seen]
    final: Final
    pools: Mapping[str, Pool]

    def violations(self) -> dict[str, list[str]]:
        """By what was promised; what was kept is not named."""
        known = lives(self.operations)
        cooldowns = {
            address: float(pool.cooldown)
            for pool in self.pools.values()
            for address in pool.addresses
        }

        found: dict[str, Iterator[str]] = {
            "one owner": overlaps(known),
            "cool-down": warm(known, cooldowns.__getitem__),
            "kept": lost(known, self.final),
            "reads": misread(self.operations, known),
            "full": wrongly_full(self.operations, known, self.pools, self.final),
            "answers": (op.name for op in self.operations if op.verb == "broken"),
            "watches": wrongly_told(self.seen, self.operations, self.final),
        }
        listed = {promise: list(islice(broken, MOST)) for promise, broken in found.items()}
        return {promise: broken for promise, broken in listed.items() if broken}
