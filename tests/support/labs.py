"""Dealing with a running lab."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from routed.lab.fabric import LabError, command, inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for
from routed.lab.switch import TorDaemon, check_installed
from routed.lab.topology import Family

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def ctl(lab: Lab, *words: str) -> str:
    """`routectl` to the service."""
    whole = lab.ctl("--kubeconfig", str(lab.admin), *words)
    return inside(lab.top.management, *whole)


@contextmanager
def draining_pool(lab: Lab, manifest: str, path: Path) -> Iterator[str]:
    """The pool of `manifest`, written to `path`. Disabled at the end, it drains by itself."""
    spec: dict[str, Any] = yaml.safe_load(manifest)
    name = spec["metadata"]["name"]
    path.write_text(manifest)
    ctl(lab, "apply", "-f", str(path))
    yield name
    spec["spec"]["disabled"] = True
    path.write_text(yaml.safe_dump(spec))
    ctl(lab, "apply", "-f", str(path))
    assert f"{name} {spec['spec']['cidr']} (disabled)" in ctl(lab, "ipam", "show")
    wait_for("its blocks being back", lambda: not blocks(lab, name), 20)
    ctl(lab, "delete", "pool", name)


@contextmanager
def client_ways(lab: Lab) -> Iterator[None]:
    """Inside, the client has ways to the links of hosts, which are nobody's business otherwise."""
    four = [(tor.subnet, "via", tor.client_side) for tor in lab.top.tors]
    six = [(tor.subnet6, "via", tor.client_side6) for tor in lab.top.tors]
    ways = [way for version in lab.top.versions for way in (four if version == 4 else six)]
    try:
        for way in ways:
            command("ip", "-n", lab.top.client, "route", "replace", *way)
        yield
    finally:
        for way in ways:
            command("ip", "-n", lab.top.client, "route", "del", *way, check=False)


def blocks(lab: Lab, pool: str) -> dict[str, dict[str, Any]]:
    items = json.loads(ctl(lab, "get", "ipblocks", "-o", "json"))["items"]
    return {i["metadata"]["name"]: i for i in items if i["spec"]["pool"] == pool}


@contextmanager
def running_lab(
    mark: str,
    tor_daemon: TorDaemon = TorDaemon.BIRD,
    seconds: float = 20.0,
    family: Family = Family.BOTH,
    also: tuple[Path, ...] = (),
) -> Iterator[Lab]:
    """A lab whose name begins with `mark`, the examples and `also` applied, every session up in
    `seconds`; the test is skipped where such switches are not installed."""
    try:
        check_installed(tor_daemon)
    except LabError as error:
        pytest.skip(str(error))
    found = Lab(f"{mark}{os.getpid() % 100_000}", tor_daemon=tor_daemon, family=family)
    try:
        found.up()
        peers = EXAMPLES if family is not Family.IPV6 else EXAMPLES / "ipv6"
        for manifest in (peers / "bgppeers.yaml", EXAMPLES / "ippool.yaml", *also):
            ctl(found, "apply", "-f", str(manifest))
        wait_for("every session being up", found.established, seconds)
        yield found
    finally:
        found.down()


def child_of(pid: int | None, word: str) -> int:
    """The child of `pid` whose command line has `word`; 0 if there is none."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return 0
    for child in children:
        try:
            if word in Path(f"/proc/{child}/cmdline").read_text(encoding="ascii"):
                return int(child)
        except OSError:
            continue
    return 0


def exabgp_of(pid: int | None) -> int:
    """The pid of a speaker's ExaBGP; 0 if there is none."""
    return child_of(pid, "exabgp")


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


def node_document(lab: Lab, name: str = "host1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ctl(lab, "get", "node", name, "-o", "json"))
    return found


def node_conditions(lab: Lab, name: str = "host1") -> dict[str, dict[str, str]]:
    node = node_document(lab, name)
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
        self.made: dict[tuple[str, str], str] = {}

    def __enter__(self) -> Workloads:
        return self

    def __exit__(self, *_: object) -> None:
        self.clean()

    def namespace(self, host: str, name: str) -> str:
        """The namespace of a workload: one, however often it is attached and detached."""
        if (host, name) not in self.made:
            self.made[host, name] = self.lab.workload_namespace(host, name)
        return self.made[host, name]

    def ask(self, host: str, name: str, *, wait: str = "", **more: Any) -> httpx.Response:
        """What the agent answers to an attach; `more` goes into the request."""
        body = {"name": name, "netns": self.namespace(host, name), **more}
        query = {"wait": wait} if wait else {}
        return self.lab.local(host).post("/v1/attachments", json=body, params=query)

    def attach(self, host: str, name: str, **more: Any) -> tuple[str, str]:
        """(namespace, address) of a new workload; `more` goes into the request."""
        answer = self.ask(host, name, wait="announced", **more)
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        assert document["announced"], document
        return self.namespace(host, name), document["addresses"][0]

    def clean(self) -> None:
        for (host, name), namespace in self.made.items():
            self.lab.local(host).delete(f"/v1/attachments/{name}")
            command("ip", "netns", "del", namespace, check=False)
