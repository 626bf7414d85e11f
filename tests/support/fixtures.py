"""One lab for all tests of this folder: two hosts, two ToRs, the examples applied."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from routed.lab.lab import Lab
from routed.lab.processes import wait_for
from support.labs import Workloads, ctl

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    found = Lab(f"t{os.getpid() % 100_000}")
    try:
        found.up()
        ctl(found, "apply", "-f", str(EXAMPLES))
        wait_for("every session being up", found.established)
        yield found
    finally:
        found.down()


@pytest.fixture
def workloads(lab: Lab) -> Iterator[Workloads]:
    found = Workloads(lab)
    yield found
    found.clean()


@pytest.fixture
def status_of(lab: Lab) -> Callable[[str], dict[str, Any]]:
    def get(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ctl(lab, "get", "workload", name, "-o", "json"))
        return found["status"]  # type: ignore[no-any-return]

    return get
