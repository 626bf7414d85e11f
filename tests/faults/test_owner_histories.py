"""Never two owners, by histories: twenty nodes, each a process, claim blocks of pools that are too
small for them, assign addresses, report, give back, move leases and watch, while the programs and
the network under them fail.

A write without an answer may have been carried out, or be so later. What is judged, and how, is in
support/histories; that its judge finds bugs, in test_seeded_owners.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.histories.fleet import Fleet
from support.histories.judge import History
from support.histories.nemesis import Nemesis
from support.histories.net import Net, inside
from support.histories.pools import POOLS
from support.histories.record import ADDRESSES, OK, UNKNOWN, Operation, read
from support.histories.world import World, on_etcd, on_sqlite
from support.rig import Figures

NODES = 20
# at least, of the long histories: a million operations and 200 faults, both together
OPERATIONS = {"SQLite": 650_000, "etcd": 350_000}
FAULTS = 100
LONG_SECONDS = 3600

pytestmark = [pytest.mark.root, pytest.mark.timeout(LONG_SECONDS)]


@dataclass
class Totals:
    """Of the histories of this run."""

    operations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, operations: list[Operation], faults: Counter[str], lines: int) -> str:
        """In words."""
        local = sum(op.plural == ADDRESSES and op.outcome == OK for op in operations)
        asked = sum(op.plural != ADDRESSES for op in operations)
        mine = Counter(
            {
                "operations": local + asked,
                "of them addresses assigned or freed by nodes": local,
                "without an answer": sum(op.outcome == UNKNOWN for op in operations),
                "lines of watches": lines,
            }
        )
        self.operations += mine
        self.faults += faults
        return self.said(mine, faults)

    @staticmethod
    def said(operations: Counter[str], faults: Counter[str]) -> str:
        sorts = ", ".join(f"{name} {count}" for name, count in sorted(faults.items()))
        counts = ", ".join(f"{count} {name}" for name, count in operations.items())
        return f"violations 0; {counts}; {faults.total()} faults ({sorts})"


TOTALS = Totals()


WORLDS: dict[str, Callable[[Path, Net], AbstractContextManager[World]]] = {
    "SQLite": on_sqlite,
    "etcd": on_etcd,
}


@pytest.mark.parametrize("store", WORLDS)
def test_no_address_has_two_owners_whatever_fails(
    tmp_path: Path, store: str, figures: Figures, long: bool
) -> None:
    started = time.monotonic()
    with inside() as net, WORLDS[store](tmp_path, net) as world:
        fleet = Fleet(world.prepare(NODES, 1))
        try:
            fleet.begun()
            nemesis = Nemesis(world, fleet)
            if long:
                nemesis.pause, nemesis.last = (0.5, 3.0), (0.2, 2.5)
            while not enough(fleet, nemesis, OPERATIONS[store] if long else 0):
                nemesis.strike()
                fleet.check()
            fleet.stop_nodes()
            final = world.ending()
            fleet.stop()
        finally:
            fleet.kill()
        operations, seen = read(fleet.histories())
    assert History(operations, seen, final, POOLS).violations() == {}
    said = TOTALS.add(operations, nemesis.counted, len(seen))
    promise = "one owner, nothing acknowledged lost, full only when full, watches without gaps"
    seconds = time.monotonic() - started
    figures.add(f"histories of {NODES} nodes on {store}", promise, f"{said}; {seconds:.0f} s")
    if TOTALS.faults != nemesis.counted:
        figures.add("both together", promise, Totals.said(TOTALS.operations, TOTALS.faults))


def enough(fleet: Fleet, nemesis: Nemesis, operations: int) -> bool:
    """Each sort of fault once, in the short form."""
    if operations:
        return fleet.operations >= operations and nemesis.counted.total() >= FAULTS
    return fleet.operations >= 500 and nemesis.counted.keys() == nemesis.faults.keys()
