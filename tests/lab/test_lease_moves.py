"""A leased address comes back with its workload and moves with it to another node."""

from __future__ import annotations

import json

import pytest
from support.labs import Workloads, ctl

from routed.lab.fabric import LabError
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab


def test_it_moves_with_the_workload(lab: Lab, leased: str, workloads: Workloads) -> None:
    assert leased == "10.67.0.0"
    wait_for(
        "the lease being known", lambda: known(workloads, "host1") and known(workloads, "host2"), 5
    )
    _, first = workloads.attach("host1", "db", lease="db")
    assert first == leased
    wait_for("its route", lambda: lab.tor_has(f"{leased}/32"))
    assert lab.ping(lab.top.client, leased)
    elsewhere = workloads.ask("host2", "db2", lease="db")
    assert elsewhere.status_code == 409, elsewhere.text
    assert "node host1" in elsewhere.json()["message"]
    for host in ("host1", "host2"):
        other = workloads.ask(host, "thief", addresses=[leased])
        assert other.status_code == 409, other.text
        assert "only a workload with lease 'db'" in other.json()["message"]
    with pytest.raises(LabError, match=r"node host1 holds 10\.67\.0\.0"):
        ctl(lab, "delete", "lease", "db")

    assert lab.local("host1").delete("/v1/attachments/db").status_code == 200
    _, again = workloads.attach("host1", "again", lease="db")
    assert again == leased, "at once, under another name, within the pool's cool-down"

    assert lab.local("host1").delete("/v1/attachments/again").status_code == 200
    moved = workloads.namespace("host2", "moved")
    ctl(lab, "attach", "moved", "--netns", moved, "--node", "host2", "--lease", "db")
    try:
        there = lab.local("host2")
        wait_for("the move", lambda: there.get("/v1/attachments/moved").status_code == 200, 20)
        wait_for("its new route", lambda: lab.ping(lab.top.client, leased), 10)
        blocks = json.loads(ctl(lab, "get", "ipblock", "10-67-0-0-32", "-o", "json"))
        assert blocks["spec"]["node"] == "host2"
    finally:
        ctl(lab, "delete", "workload", "moved")


def known(workloads: Workloads, host: str) -> bool:
    """The agent has heard of the lease `db`: it says something else of one that is not there."""
    answer = workloads.ask(host, "probe", lease="none")
    return "there are: db" in answer.json()["message"]
