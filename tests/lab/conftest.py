"""One lab for all tests of this folder: two hosts, two ToRs, the examples applied."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from routed.lab.fabric import command, inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

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


def ctl(lab: Lab, *words: str) -> str:
    """`routectl` to the service."""
    whole = lab.ctl("--kubeconfig", str(lab.admin), *words)
    return inside(lab.top.management, *whole)


class Workloads:
    """Attaches by the local API, and detaches whatever is left when the test ends."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.made: list[tuple[str, str]] = []

    def attach(self, host: str, name: str) -> tuple[str, str]:
        """(namespace, address) of a new workload."""
        namespace = self.lab.workload_namespace(host, name)
        self.made.append((host, name))
        body = {"name": name, "netns": namespace}
        answer = self.lab.local(host).post(
            "/v1/attachments", json=body, params={"wait": "announced"}
        )
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        assert document["announced"], document
        return namespace, document["addresses"][0]

    def clean(self) -> None:
        for host, name in self.made:
            self.lab.local(host).delete(f"/v1/attachments/{name}")
            namespace = f"{self.lab.top.name}-{host}-{name}"
            command("ip", "netns", "del", namespace, check=False)


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
