"""Ten thousand workloads come and go: no descriptor, block or address stays behind."""

from __future__ import annotations

import json

import pytest
from support.labs import ctl
from support.rig import IGNORED, Churn, Figures, descriptors, wait_agreed

from routed.agent.intent import WATCHED
from routed.lab.lab import Lab
from routed.lab.processes import resident, wait_for

# The agent's to the service: a watch of each kind, the reports, the blocks held ready, the block of
# an attach. httpx closes those that are idle at the next request only, so how many of the last
# three are open is chance.
CONNECTIONS = len(WATCHED) + 3

pytestmark = [pytest.mark.lab, IGNORED, pytest.mark.timeout(1800)]


def blocks(lab: Lab) -> dict[str, str]:
    items = json.loads(ctl(lab, "get", "ipblocks", "-o", "json"))["items"]
    return {item["metadata"]["name"]: item["spec"]["node"] for item in items}


def test_attach_and_detach_leak_nothing(lab: Lab, figures: Figures, full: bool) -> None:
    pid = lab.agents["host1"].pid
    assert pid is not None
    cycles = 10_000 if full else 300
    churn = Churn(lab, "host1", rate=10_000.0, count=8)
    try:
        churn.start()
        churn.wait_operations(200)  # caches are warm
        with churn.paused():
            wait_agreed(lab, "host1")
            held, memory, owned = descriptors(pid)[1], resident(pid), blocks(lab)
        churn.wait_operations(2 * cycles, 1500)
    finally:
        churn.finish()
    wait_agreed(lab, "host1", 10)
    grown = resident(pid) - memory
    items = lab.local("host1").get("/v1/attachments").json()["items"]
    left = [item["name"] for item in items if item["name"].startswith("churn")]
    wait_for("descriptors as before", lambda: descriptors(pid)[1] <= held, 5)
    connections, others = descriptors(pid)
    now = blocks(lab)
    extra = sum(node == "host1" for node in now.values()) - sum(
        node == "host1" for node in owned.values()
    )
    figures.add(
        f"{cycles} attach/detach cycles",
        "fd growth 0, block and address leaks 0",
        f"fd growth {others - held}, RSS {grown / cycles * 1000:.0f} KiB per 1 000, "
        f"left {len(left)}, blocks {extra:+d} (what cools needs room)",
    )
    assert not churn.refused, churn.refused[:3]
    assert not left
    assert connections <= CONNECTIONS
