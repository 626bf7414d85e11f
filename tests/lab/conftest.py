"""What tests of this folder share beside the lab (support/fixtures.py)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.labs import client_ways, ctl

from routed.lab.lab import Lab
from routed.lab.processes import wait_for

OBJECTS = """
apiVersion: routed.dev/v1
kind: IPPool
metadata: {name: fixed}
spec: {cidr: 10.67.0.0/28, allocation: Fixed, cooldownSeconds: 600}
---
apiVersion: routed.dev/v1
kind: AddressLease
metadata: {name: db}
spec: {pool: fixed}
"""


@pytest.fixture
def leased(lab: Lab, tmp_path: Path) -> Iterator[str]:
    """The address of the lease `db`."""
    path = tmp_path / "lease.yaml"
    path.write_text(OBJECTS)
    ctl(lab, "apply", "-f", str(path))
    found = json.loads(ctl(lab, "get", "lease", "db", "-o", "json"))
    yield found["spec"]["address"]

    def gone() -> bool:
        ctl(lab, "delete", "-f", str(path))
        return True

    wait_for("what owns the address having let go of it", gone, 20)


@pytest.fixture
def serving() -> Iterator[list[subprocess.Popen[str]]]:
    """Programs of a test, which end with it."""
    found: list[subprocess.Popen[str]] = []
    yield found
    for server in found:
        with server:
            server.kill()


@pytest.fixture
def ways(lab: Lab) -> Iterator[None]:
    """The client has a way to the hosts' own addresses."""
    with client_ways(lab):
        yield
