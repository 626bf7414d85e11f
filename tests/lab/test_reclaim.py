"""Taking back what a node owns: it lets go by itself, or an operator states that it is off."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.labs import Workloads, blocks, ctl, draining_pool

from routed.lab.fabric import LabError, prefix
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

POOL = """
apiVersion: routed.dev/v1
kind: IPPool
metadata: {name: short}
spec: {cidr: 10.66.0.0/26, blockSize: 28, cooldownSeconds: 1}
"""


@pytest.fixture
def pool(lab: Lab, tmp_path: Path) -> Iterator[str]:
    """A pool of four blocks, whose addresses cool for a second."""
    with draining_pool(lab, POOL, tmp_path / "pool.yaml") as name:
        yield name


def test_a_block_that_is_wanted_back_goes_when_nothing_uses_it(
    lab: Lab, pool: str, workloads: Workloads
) -> None:
    _, first = workloads.attach("host1", "taken", pools=[pool])
    name = min(blocks(lab, pool), key=lambda name: int(name.split("-")[3]))  # another is at hand
    assert "host1 is asked" in ctl(lab, "ipam", "release", first)
    assert "(wanted back)" in ctl(lab, "ipam", "show")

    def next_one() -> bool:
        """The agent has heard of it: what it assigns is in another block."""
        _, address = workloads.attach("host1", "probe", pools=[pool])
        lab.local("host1").delete("/v1/attachments/probe")
        return int(address.rpartition(".")[2]) >= 16

    wait_for("another block being used", next_one, 5)
    wait_for("the route", lambda: lab.tor_has(f"{first}/32"))
    assert lab.ping(lab.top.client, first), "who has an address keeps it"
    assert name in blocks(lab, pool)
    lab.local("host1").delete("/v1/attachments/taken")
    wait_for("the block being back", lambda: name not in blocks(lab, pool), 20)
    assert not lab.tor_has(f"{first}/32")
    _, second = workloads.attach("host2", "next", pools=[pool])
    assert second == first, "the lowest free block, and its first address"
    wait_for("its route", lambda: lab.tor_has(f"{second}/32"))
    assert lab.ping(lab.top.client, second)


def test_a_drained_node_owns_nothing_and_takes_nothing(
    lab: Lab, pool: str, workloads: Workloads
) -> None:
    _, address = workloads.attach("host2", "stays", pools=[pool])
    words = lab.ctl("--kubeconfig", str(lab.admin), "drain", "host2", "--timeout", "90")
    draining = subprocess.Popen(
        [*prefix(lab.top.management), *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert draining.stdout is not None
        assert "workload/stays.host2 has to be detached" in draining.stdout.readline()
        refused = workloads.ask("host2", "late")
        assert refused.status_code == 409, refused.text
        assert "being drained" in refused.json()["message"]
        assert lab.ping(lab.top.client, address)
        with pytest.raises(LabError, match="it owns"):
            ctl(lab, "delete", "node", "host2")
        lab.local("host2").delete("/v1/attachments/stays")
        said, _ = draining.communicate(timeout=90)
        assert "owns nothing" in said
        assert draining.returncode == 0
    finally:
        draining.kill()
        draining.wait()
        ctl(lab, "uncordon", "host2")
    wait_for("room again", lambda: "host2" in ctl(lab, "ipam", "show"), 10)
    again = workloads.ask("host2", "late")
    assert again.status_code == 201, again.text
    lab.local("host2").delete("/v1/attachments/late")
    assert ctl(lab, "ipam", "check").endswith("agree\n")


def test_a_host_agrees_with_what_is_known_of_it(lab: Lab, workloads: Workloads) -> None:
    _, address = workloads.attach("host1", "known")
    host = f"{lab.top.name}-host1"
    words = ["ipam", "check", "--agent", str(lab.socket("host1"))]
    whole = lab.ctl("--kubeconfig", str(lab.admin), *words)

    def checked() -> tuple[int, str]:
        done = subprocess.run(
            [*prefix(host), *whole], capture_output=True, text=True, timeout=30, check=False
        )
        return done.returncode, done.stdout

    def agrees() -> bool:
        code, said = checked()
        return code == 0 and "and node host1 with them" in said

    wait_for("host and service agreeing", agrees, 10)
    assert lab.ping(host, address)
