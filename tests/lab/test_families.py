"""One workload, an address of each family, on a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.labs import Workloads, ctl, draining_pool

from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

POOL = """
apiVersion: routed.dev/v1
kind: IPPool
metadata: {name: six}
spec: {cidr: "fd00:65::/112", blockSize: 122, cooldownSeconds: 1}
"""


@pytest.fixture
def six(lab: Lab, tmp_path: Path) -> Iterator[str]:
    with draining_pool(lab, POOL, tmp_path / "six.yaml") as name:
        yield name


def test_an_address_of_each_family(lab: Lab, six: str, workloads: Workloads) -> None:
    def pair() -> list[str]:
        workloads.attach("host1", "pair", ipFamilies=["IPv4", "IPv6"])
        held: list[str] = lab.local("host1").get("/v1/attachments/pair").json()["addresses"]
        return held

    wait_for("the pool being known", lambda: "six" in ctl(lab, "get", "pools"), 5)
    four, other = pair()
    host = f"{lab.top.name}-host1"
    assert lab.ping(host, four)
    wait_for("a ping over IPv6", lambda: lab.ping(host, other), 2)
    assert ":" in other
