"""Bugs put into the control plane, or into a node, and found by the judge of histories.

Each run is short and has no other fault than it needs; what its bug needs to do harm is made likely
(support/histories/seeds.py). The control run has all of that and no bug.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.histories import net
from support.histories.fleet import Fleet
from support.histories.judge import History
from support.histories.nemesis import Nemesis
from support.histories.pools import POOLS
from support.histories.record import read
from support.histories.world import World, on_etcd, on_sqlite

pytestmark = pytest.mark.root
SECONDS, OPERATIONS = 1.5, 1000  # at least


def violations(
    made: AbstractContextManager[World],
    nodes: int,
    kind: str = "restless",
    *,
    power_cut: bool = False,
    watchers: int = 0,
) -> dict[str, list[str]]:
    with made as world:
        fleet = Fleet(world.prepare(nodes, 1, kind, watchers))
        try:
            fleet.begun()
            until = time.monotonic() + SECONDS
            while time.monotonic() < until or fleet.operations < OPERATIONS:
                fleet.check()
                time.sleep(0.05)
            if power_cut:
                nemesis = Nemesis(world, fleet)
                with nemesis.power_cut():
                    pass
            fleet.stop_nodes()
            world.ready()
            final = world.final()
            fleet.stop()
        finally:
            fleet.kill()
        operations, seen = read(fleet.histories())
    return History(operations, seen, final, POOLS).violations()


@pytest.mark.parametrize(
    ("seed", "count", "nodes", "promises"),
    [
        ("no-cas", 2, 6, ["one owner"]),
        ("check-then-write", 2, 6, ["one owner"]),
        ("aba", 1, 2, ["one owner"]),
        ("gaps-and-full", 1, 6, ["full", "watches"]),
        ("synchronous-off", 1, 6, ["kept"]),
    ],
)
def test_a_bug_of_the_service_is_found(
    tmp_path: Path, seed: str, count: int, nodes: int, promises: list[str]
) -> None:
    with net.inside() as made:
        world = on_sqlite(tmp_path, made, count=count, seed=seed)
        watchers = 1 if "watches" in promises else 0
        power_cut = seed.startswith("synchronous")
        found = violations(world, nodes, power_cut=power_cut, watchers=watchers)
    assert found.keys() >= {*promises}


def test_decisions_without_the_guard_are_found(tmp_path: Path) -> None:
    """Two leases are two keys: only the guard keeps them from the same address."""
    with net.inside() as made:
        found = violations(on_etcd(tmp_path, made, size=1, count=2, seed="no-guard"), 6)
    assert any("addressleases" in one for one in found["one owner"])


def test_a_node_without_cool_down_is_found(tmp_path: Path) -> None:
    with net.inside() as made:
        found = violations(on_sqlite(tmp_path, made, count=1), 4, "no-cool-down")
    assert "cool-down" in found


def test_without_a_bug_nothing_is_found(tmp_path: Path) -> None:
    with net.inside() as made:
        world = on_sqlite(tmp_path, made, seed="slow-and-late")
        assert not violations(world, 6, power_cut=True, watchers=1)
