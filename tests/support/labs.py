"""Dealing with a running lab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from routed.lab.fabric import command, inside
from routed.lab.lab import Lab


def ctl(lab: Lab, *words: str) -> str:
    """`routectl` to the service."""
    whole = lab.ctl("--kubeconfig", str(lab.admin), *words)
    return inside(lab.top.management, *whole)


def exabgp_of(pid: int | None, *, missing: bool = False) -> int:
    """The pid of a speaker's ExaBGP; with `missing` 0 if there is none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    for child in children:
        if "exabgp" in Path(f"/proc/{child}/cmdline").read_text(encoding="ascii"):
            return int(child)
    if missing:
        return 0
    raise AssertionError("the speaker has no ExaBGP")


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
