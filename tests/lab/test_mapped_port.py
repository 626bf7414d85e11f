"""A mapped port in a whole fabric, through the command line, over a killed agent and a flushed
ruleset; a declared workload that asks for the same one says who has it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from support.flows import connected, heard, listen
from support.labs import Workloads, ctl

from routed.lab.fabric import inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab


def test_a_mapped_port(
    lab: Lab,
    ways: None,
    workloads: Workloads,
    serving: list[subprocess.Popen[str]],
    status_of: Callable[[str], dict[str, Any]],
) -> None:
    host, tor, client = lab.top.hosts[0], lab.top.tors[0], lab.top.client
    node = host.address(tor)
    namespace = workloads.namespace("host1", "web")
    words = ("attach", "web", "--netns", namespace, "--publish", "8080:80", "-o", "json")
    said = inside(host.namespace, *lab.ctl(*words, "--agent", str(lab.socket("host1"))))
    address = json.loads(said)["addresses"][0]
    serving.append(listen(namespace, address, 80))
    (server,) = serving

    def reached() -> bool:
        try:
            connected(client, node, 8080, seconds=3).close()
        except OSError:
            return False
        return heard(server).startswith("172.29.")

    wait_for("the port being reached", reached)
    connected(host.namespace, node, 8080).close()
    assert heard(server) == node, "from the host itself"

    declared = {
        "apiVersion": "routed.dev/v1",
        "kind": "Workload",
        "metadata": {"name": "same"},
        "spec": {
            "node": "host1",
            "netns": workloads.namespace("host1", "same"),
            "ports": [{"port": 80, "hostPort": 8080}],
        },
    }
    path = lab.directory / "same.yaml"
    path.write_text(json.dumps(declared))
    ctl(lab, "apply", "-f", str(path))
    try:

        def why() -> str:
            return str(status_of("same")["conditions"])

        wait_for("the refusal", lambda: "is mapped to web.host1" in why(), 20)
    finally:
        ctl(lab, "delete", "workload", "same")
    agent = lab.agents["host1"]
    agent.kill()
    assert reached(), "without the agent"
    agent.start()
    wait_for("the agent", lambda: lab.ready("host1"))
    assert reached()
    inside(host.namespace, "nft", "flush", "ruleset")
    wait_for("the port being reached again", reached, 10)
    lab.local("host1").delete("/v1/attachments/web")

    def refused() -> bool:
        try:
            connected(client, node, 8080, seconds=1).close()
        except OSError as error:
            return isinstance(error, ConnectionRefusedError)
        return False

    wait_for("its end", refused, 10)
