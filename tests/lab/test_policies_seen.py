"""What people see of policies at work, in a fabric: counters by metrics and `routectl`, and the log
of what is denied."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.flows import connected, listen
from support.labs import Workloads, ctl

from routed.lab.fabric import inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

PORT = 7000
POLICIES = """
apiVersion: routed.dev/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  selector: app == 'db'
  ingress: [{action: Deny, protocol: TCP, destination: {ports: [7001]}}, {action: Allow}]
---
apiVersion: routed.dev/v1
kind: NetworkPolicy
metadata: {name: trial}
spec:
  selector: app == 'db'
  staged: true
  order: 1
  ingress: [{action: Deny, source: {selector: app == 'web'}}]
"""


@pytest.fixture
def logging_agent(lab: Lab) -> Iterator[Path]:
    """host1's agent writes a policy log, at this path."""
    settings, agent = lab.directory / "host1" / "agent.yaml", lab.agents["host1"]
    before = settings.read_text()

    def restarted(text: str) -> None:
        settings.write_text(text)
        agent.stop()
        agent.start()
        wait_for("the agent", lambda: lab.ready("host1"))

    restarted(f"{before.rstrip()}\npolicyLog: true\n")
    try:
        yield Path(yaml.safe_load(before)["stateDir"]) / "policy.log"
    finally:
        restarted(before)


@pytest.fixture
def declared(lab: Lab, tmp_path: Path) -> Iterator[None]:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICIES)
    ctl(lab, "apply", "-f", str(path))
    yield
    ctl(lab, "delete", "-f", str(path))


def counted(lab: Lab) -> dict[tuple[str, str, str], int]:
    """By policy, rule, and whether it is staged; as `routectl` has it on the host."""
    words = lab.ctl("policy", "counters", "--agent", str(lab.socket("host1")), "-o", "json")
    items = json.loads(inside(f"{lab.top.name}-host1", *words))["items"]
    return {
        (one["policy"], one["rule"], str(one["staged"]).lower()): one["packets"] for one in items
    }


def measured(lab: Lab) -> dict[tuple[str, str, str], int]:
    """The same by the metrics."""
    text = lab.local("host1").get("/metrics").text
    return {
        (one.labels["policy"], one.labels["rule"], one.labels["staged"]): int(one.value)
        for family in text_string_to_metric_families(text)
        if family.name == "routed_policy_packets"
        for one in family.samples
        if one.labels["direction"] == "ingress"
    }


def test_what_is_denied_is_counted_and_logged(
    lab: Lab,
    logging_agent: Path,
    declared: None,
    workloads: Workloads,
    serving: list[subprocess.Popen[str]],
) -> None:
    namespace, address = workloads.attach("host1", "db", labels={"app": "db"})
    serving.append(listen(namespace, address, PORT))
    client, own = workloads.attach("host2", "web", labels={"app": "web"})

    def through() -> bool:
        try:
            connected(client, address, PORT, 0.5).close()
        except OSError:
            return False
        return True

    wait_for("a connection", through, 20)
    with pytest.raises(OSError, match="timed out"):
        connected(client, address, PORT + 1, 0.5)
    denied, would = ("db", "0", "false"), ("trial", "0", "true")
    wait_for("the denial being counted", lambda: counted(lab).get(denied, 0) > 0, 20)
    wait_for("the trial knowing its members", lambda: through() and counted(lab)[would] > 0, 30)
    found = measured(lab)
    assert found[denied] > 0
    assert found["db", "1", "false"] > 0
    assert found.keys() == {key for key in counted(lab) if key in found}

    def lines() -> list[dict[str, Any]]:
        if not logging_agent.exists():
            return []
        return [json.loads(line) for line in logging_agent.read_text().splitlines()]

    wait_for("a line", lambda: any(one["policy"] == "db" for one in lines()), 10)
    one = next(one for one in lines() if one["policy"] == "db")
    assert (one["action"], one["rule"], one["workload"]) == ("Deny", "0", "db.host1")
    assert (one["source"], one["destination"], one["destinationPort"]) == (own, address, PORT + 1)
    assert not [one for one in lines() if one["policy"] == "trial"], "what is staged logs nothing"
