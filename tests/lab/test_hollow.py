"""Hollow agents ask a control plane what real ones do, and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from routed.agent.intent import WATCHED
from routed.lab.hollow import run
from routed.lab.hollow.run import HollowLab, shown

AGENTS, WORKLOADS, KINDS = 10, 4, len(WATCHED)

pytestmark = pytest.mark.lab


def leftovers(directory: Path) -> list[str]:
    """Processes that name the directory in their words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if str(directory).encode() in words:
            found.append(words.decode())
    return found


def test_a_fleet_joins_rests_and_comes_back(tmp_path: Path) -> None:
    lab = HollowLab(tmp_path, AGENTS, WORKLOADS, processes=2)
    said: list[str] = []
    try:
        found = shown(lab, 2.0, said.append)
        with lab.http() as http:
            items = http.get("/workloads").json()["items"]
            nodes = http.get("/nodes").json()["items"]
    finally:
        lab.down()
    assert len(said) == 5
    assert [phase.server_errors for phase in found.values()] == [0, 0, 0]
    assert [phase.watches for phase in found.values()] == [AGENTS * KINDS] * 3
    assert len(found["join"].arrivals) == len(found["crash"].arrivals) == AGENTS
    addresses = [address for item in items for address in item["status"]["addresses"]]
    assert len(addresses) == len(set(addresses)) == AGENTS * WORKLOADS
    ready = [
        condition["status"]
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    ]
    assert ready == ["True"] * AGENTS
    # a node says that it lives, and reports what it counts; it asks for nothing again
    assert found["quiet"].requests <= 3 * AGENTS
    assert leftovers(tmp_path) == []


def test_what_was_reached_and_lost_again_counts_when_it_is_reached_for_good() -> None:
    lines = [{"at": float(at), "n": n} for at, n in ((0, 0), (1, 2), (2, 1), (3, 3), (4, 3))]
    assert run._arrivals([lines], "n") == [1.0, 3.0, 3.0]


def test_the_command_shows_it_and_tidies_up(tmp_path: Path) -> None:
    before = set(Path("/dev/shm").glob("routed-hollow-*"))
    words = [sys.executable, "-m", "routed.main", "lab", "hollow", "--agents", "3"]
    done = subprocess.run(
        [*words, "--workloads", "2", "--quiet", "1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
    )
    text = done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert "all 6 workloads are in the store" in text
    assert "0 answered 5xx" in text
    assert set(Path("/dev/shm").glob("routed-hollow-*")) == before
