"""Dealing with a running lab."""

from __future__ import annotations

import json
import subprocess
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


def doctor(lab: Lab, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and the findings by check."""
    agent = lab.agents["host1"].words
    whole = [*agent[: agent.index("-m")], "-m", "routed.main", "doctor", *words, "-o", "json"]
    done = subprocess.run(
        [*whole, "--config", str(lab.directory / "host1" / "agent.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["attachable"] is (done.returncode == 0), done.stderr
    return done.returncode, {one["check"]: one for one in found["findings"]}


def node_conditions(lab: Lab) -> dict[str, dict[str, str]]:
    node = json.loads(ctl(lab, "get", "node", "host1", "-o", "json"))
    return {one["type"]: one for one in node["status"]["conditions"]}


def forget_routes(namespace: str) -> None:
    """Every route of ours is gone, as after a reboot. Those over next hop objects go with these:
    `ip route flush` does not know how to delete them (iproute2 6.1)."""
    command("ip", "-n", namespace, "nexthop", "flush", "proto", "82")
    command("ip", "-n", namespace, "route", "flush", "proto", "82")


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
