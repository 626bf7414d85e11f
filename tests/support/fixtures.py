"""One lab for all tests of this folder: two hosts, two ToRs, the examples applied."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from routed.lab.lab import Lab
from support.labs import Workloads, ctl, running_lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with running_lab("t") as found:
        yield found


@pytest.fixture
def workloads(lab: Lab) -> Iterator[Workloads]:
    with Workloads(lab) as found:
        yield found


@pytest.fixture
def status_of(lab: Lab) -> Callable[[str], dict[str, Any]]:
    def get(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ctl(lab, "get", "workload", name, "-o", "json"))
        return found["status"]  # type: ignore[no-any-return]

    return get
