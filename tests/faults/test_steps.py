"""The agent killed at each named step of attach and of detach; the next one repairs within 5 s."""

from __future__ import annotations

import contextlib

import httpx
import pytest
from support.labs import Workloads
from support.rig import IGNORED, Figures, instead, wait_agreed

from routed.lab.fabric import command, inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for
from routed.steps import Point

pytestmark = [pytest.mark.lab, IGNORED, pytest.mark.timeout(600)]

DIES_AT = """
import os, sys
from routed import steps
from routed.main import main
def observer(point):
    if point is steps.Point.{point}:
        os.kill(os.getpid(), 9)
steps.observer = observer
sys.exit(main())
"""


@pytest.mark.parametrize("point", Point, ids=lambda point: point.name)
def test_killed_at(lab: Lab, workloads: Workloads, figures: Figures, point: Point) -> None:
    agent, api = lab.agents["host2"], lab.local("host2")
    space = lab.workload_namespace("host2", "victim")
    body = {
        "name": "victim",
        "netns": space,
        "ports": [{"port": 80, "hostPort": 8088}],
        "bandwidth": {"ingressRate": 10_000_000, "egressRate": 10_000_000},
    }
    detaching = point.value.startswith("detach")
    try:
        if detaching:
            assert api.post("/v1/attachments", json=body).status_code == 201
        agent.stop()
        with instead(agent, DIES_AT.format(point=point.name)):
            agent.start()
        wait_for("the doomed agent", lambda: lab.ready("host2"))
        with pytest.raises(httpx.TransportError):
            if detaching:
                api.delete("/v1/attachments/victim")
            else:
                api.post("/v1/attachments", json=body)
        wait_for("its death", lambda: agent.pid is None, 5)
        agent.start()
        took = wait_agreed(lab, "host2")
        figures.add(f"killed at {point.value}", "agree <= 5 s, leaks 0", f"{took:.1f} s")
        answer = api.get("/v1/attachments/victim")
        if detaching:
            assert answer.status_code == 404, "a detach that has begun is finished"
        else:
            again = api.post("/v1/attachments", json=body)
            assert again.status_code in (200, 201), again.text
            if answer.status_code == 200:
                assert again.json()["addresses"] == answer.json()["addresses"]
    finally:
        if agent.pid is None:
            agent.start()
        wait_for("the agent", lambda: lab.ready("host2"))
        with contextlib.suppress(httpx.HTTPError):
            api.delete("/v1/attachments/victim")
        command("ip", "netns", "del", space)
    wait_agreed(lab, "host2")
    host = f"{lab.top.name}-host2"

    def unmapped() -> bool:
        table = inside(host, "nft", "list", "table", "inet", "routed")
        return "8088" not in table and not inside(host, "ip", "link", "show", "type", "ifb")

    wait_for("its port and its limits being gone", unmapped, 5)
