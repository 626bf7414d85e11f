"""A pool with natOutgoing in a whole fabric: hidden behind the host towards the client, not
translated towards other pools, and the host's sessions with its switches as they were."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.flows import connected, heard, listen
from support.labs import Workloads, ctl, draining_pool

from routed.lab.fabric import inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

POOL = """
apiVersion: routed.dev/v1
kind: IPPool
metadata: {name: hidden}
spec: {cidr: 10.67.0.0/24, blockSize: 28, natOutgoing: true, cooldownSeconds: 1}
"""


@pytest.fixture
def hidden(lab: Lab, tmp_path: Path) -> Iterator[str]:
    with draining_pool(lab, POOL, tmp_path / "hidden.yaml") as name:
        yield name


def test_a_hidden_pool(
    lab: Lab, ways: None, hidden: str, workloads: Workloads, serving: list[subprocess.Popen[str]]
) -> None:
    host = lab.top.hosts[0]
    wait_for("the pool being known", lambda: "hidden" in ctl(lab, "get", "pools"))
    mine, address = workloads.attach("host1", "mine", pools=["hidden"])
    other, far = workloads.attach("host2", "other", pools=["main"])
    client = lab.top.client_address(lab.top.tors[0])
    serving += [listen(lab.top.client, client), listen(other, far), listen(mine, address)]
    at_client, at_other, at_mine = serving
    wait_for("a way to the client", lambda: lab.ping(mine, client))
    wait_for("a way between hosts", lambda: lab.ping(mine, far))
    links = [host.address(tor) for tor in lab.top.tors]

    def seen() -> str:
        connected(mine, client).close()
        return heard(at_client)

    assert seen() in links
    connected(mine, far).close()
    assert heard(at_other) == address
    connected(lab.top.client, address).close()
    assert heard(at_mine).startswith("172.29.")
    inside(host.namespace, "nft", "flush", "ruleset")
    wait_for("it being hidden again", lambda: seen() in links, 10)
    assert lab.established()
