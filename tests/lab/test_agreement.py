"""Whatever does not agree is said: by the agents themselves, and by `routectl ipam check`.

Each disagreement is made by hand, in a lab where everything agrees before and after.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.labs import Workloads, blocks, ctl, node_conditions
from support.rig import Figures
from support.rogue import announced, tell

from api.resources.net import host_prefix, parse_address
from bgp import wire
from bgp.seam import Advertisement
from routed.lab.bird import ask
from routed.lab.fabric import command, prefix
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]  # many commands, one after the other

ALARM_SECONDS = 5.0
CONDITION = "AddressesConsistent"


def check(lab: Lab, host: str = "", *words: str) -> tuple[int, str]:
    """Exit code and output of `routectl ipam check`, on a host or where the control plane is."""
    here = ["--agent", str(lab.socket(host))] if host else []
    namespace = f"{lab.top.name}-{host}" if host else lab.top.management
    whole = lab.ctl("--kubeconfig", str(lab.admin), "ipam", "check", *here, *words)
    done = subprocess.run(
        [*prefix(namespace), *whole], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout


def listed(lab: Lab, host: str = "", *words: str) -> str:
    """What it says where not all agrees."""
    code, text = check(lab, host, *words)
    assert code == 1
    return text


def agree(lab: Lab) -> None:
    """Wait until all is well, seen from everywhere."""
    for host in ("", "host1", "host2"):
        last = ""

        def fine(host: str = host) -> bool:
            nonlocal last
            code, last = check(lab, host)
            return code == 0

        try:
            wait_for("agreement", fine, 40)
        except Exception as error:
            raise AssertionError(f"{host}: {last}") from error


def settled(lab: Lab) -> None:
    """Wait until both agents say that all is well, as they did at the end of the test before."""

    def fine() -> bool:
        found = [lab.local(host).get("/v1/status").json() for host in ("host1", "host2")]
        said = [one for status in found for one in status["conditions"] if one["type"] == CONDITION]
        return [one["status"] for one in said] == ["True", "True"]

    wait_for("both agents being content", fine, 40)


def condition(lab: Lab, host: str = "host1") -> dict[str, Any]:
    node = json.loads(ctl(lab, "get", "node", host, "-o", "json"))
    return {one["type"]: one for one in node["status"]["conditions"]}[CONDITION]


def says(lab: Lab, status: str, *parts: str) -> bool:
    found = node_conditions(lab)[CONDITION]
    text = f"{found['reason']} {found.get('message', '')}"
    return found["status"] == status and all(part in text for part in parts)


def alarmed(lab: Lab, figures: Figures, began: float, *parts: str) -> None:
    """Wait for the alarm of host1's agent, which is in time, and for the service to have it."""

    def found() -> bool:
        findings = lab.local("host1").get("/v1/status").json()["findings"]
        return any(all(part in one for part in parts) for one in findings)

    wait_for("the alarm", found, 20)
    took = time.monotonic() - began
    wait_for("the Node's condition", lambda: says(lab, "False", "AddressConflict", *parts), 20)
    reported = f"{took:.1f} s, Node's condition {time.monotonic() - began:.1f} s"
    figures.add(f"{parts[0]} announced by {parts[1]}", "alarm <= 5 s", reported)
    assert took <= ALARM_SECONDS


def free_address(lab: Lab, host: str) -> str:
    """Of a block of the host; nobody has it."""
    items = blocks(lab, "main").values()
    cidr = next(one["spec"]["cidr"] for one in items if one["spec"]["node"] == host)
    return f"{cidr.rpartition('.')[0]}.{int(cidr.rpartition('.')[2].split('/')[0]) + 60}"


def number_of(lab: Lab, host: str) -> int:
    node = json.loads(ctl(lab, "get", "node", host, "-o", "json"))
    return int(node["spec"]["asNumber"])


def gauges(lab: Lab, host: str) -> dict[str, float]:
    lines = lab.local(host).get("/metrics").text.splitlines()
    found = [line.split() for line in lines if line.startswith("routed_address_findings{")]
    return {name.split('"')[1]: float(value) for name, value in found}


def test_a_healthy_lab_agrees(lab: Lab, workloads: Workloads) -> None:
    for host in ("host1", "host2"):
        workloads.attach(host, "well")
    agree(lab)
    code, text = check(lab, "host1", "-o", "json")
    document = json.loads(text)
    assert (code, document["agrees"], document["nodes"], document["here"]) == (0, True, 2, "host1")
    assert document["notes"] == [], "the tables were compared"
    peers = lab.local("host1").get("/v1/received").json()["peers"]
    assert len(peers) == 2
    assert all(one["prefixes"] for one in peers.values())
    for host in ("host1", "host2"):
        assert condition(lab, host)["status"] == "True"
        assert set(gauges(lab, host).items()) == {("conflict", 0), ("difference", 0), ("report", 0)}


def test_a_rogue_address_is_alarmed_by_its_owner(
    lab: Lab, workloads: Workloads, figures: Figures
) -> None:
    workloads.attach("host1", "mine")
    settled(lab)
    rogue, number = free_address(lab, "host1"), number_of(lab, "host2")
    with announced(lab, "host2", rogue) as began:
        alarmed(lab, figures, began, f"{rogue}/32", f"AS {number} ", "seen at tor")
        assert gauges(lab, "host1")["conflict"] == 1
        text = listed(lab)
        assert f"nodes/host1: found: AddressConflict: nodes/host1: {rogue}/32" in text
        text = listed(lab, "host1")
        assert f"nodes/host2: announces {rogue}/32" in text
        assert "of host1" in text
        text = listed(lab, "host2")
        assert f"nodes/host2: announces {rogue}/32, which it does not own" in text
        log = (lab.directory / "host1-agent.log").read_text(encoding="utf-8")
        assert f"why={rogue}/32, of block" in log
    gone = time.monotonic()
    wait_for("the end of the alarm", lambda: says(lab, "True"), 20)
    assert time.monotonic() - gone <= ALARM_SECONDS
    agree(lab)


@contextmanager
def preferring_outside(lab: Lab) -> Iterator[None]:
    """The first switch prefers what the client announces, whoever else does."""
    tor = lab.tor_namespaces[0]
    path = lab.directory / f"{tor}.conf"
    before = path.read_text(encoding="ascii")
    head, outside = before.split("protocol bgp outside")
    prefer = "import filter { bgp_local_pref = 200; accept; };"
    path.write_text(f"{head}protocol bgp outside{outside.replace('import all;', prefer)}")
    ask(lab.directory, tor, "configure")
    try:
        yield
    finally:
        path.write_text(before, encoding="ascii")
        ask(lab.directory, tor, "configure")


def test_a_duplicate_of_an_address_in_use_is_alarmed(
    lab: Lab, workloads: Workloads, figures: Figures
) -> None:
    """By somebody who is no host of ours, and whom one of two switches believes."""
    _, address = workloads.attach("host1", "twice")
    settled(lab)
    with preferring_outside(lab):
        began = time.monotonic()
        command("ip", "-n", lab.top.client, "addr", "add", f"{address}/32", "dev", "lo")
        try:
            alarmed(lab, figures, began, f"{address}/32", f"AS {lab.top.client_as} ")
            text = listed(lab, "host2")
            assert f"AS {lab.top.client_as} (of no node) announces {address}/32" in text
        finally:
            command("ip", "-n", lab.top.client, "addr", "del", f"{address}/32", "dev", "lo")
    wait_for("the end of the alarm", lambda: says(lab, "True"), 20)
    agree(lab)


def test_an_announcement_that_is_missing_is_found_from_everywhere(
    lab: Lab, workloads: Workloads
) -> None:
    _, address = workloads.attach("host1", "unheard")
    workloads.attach("host1", "heard")  # a table with nothing at all is not compared
    settled(lab)
    one = host_prefix(parse_address(address))
    record = lab.local("host1").get("/v1/attachments/unheard").json()
    tell(lab, "host1", wire.Withdraw(one))
    try:
        text = listed(lab, "host1")
        assert f"workloads/unheard.host1: {address} is not announced by host1" in text
        text = listed(lab, "host2")
        assert f"workloads/unheard.host1: {address}/32 is not announced by host1 at " in text
        wanted = ("AddressesDiffer", f"does not announce {address}/32")
        wait_for("the agent's word", lambda: says(lab, "False", *wanted), 60)
        text = listed(lab)
        assert f"its speaker does not announce {address}/32" in text
    finally:
        tell(lab, "host1", Advertisement(one, link=record["hostInterface"]))
    agree(lab)


def test_an_announcement_without_a_workload_is_found(lab: Lab, workloads: Workloads) -> None:
    workloads.attach("host1", "other")
    settled(lab)
    address = free_address(lab, "host1")
    with announced(lab, "host1", address):
        text = listed(lab, "host1")
        assert f"nodes/host1: announces {address}/32, which nothing here has" in text
        text = listed(lab, "host2")
        assert f"nodes/host1: announces {address}/32, at " in text
        assert "no workload has it" in text
        wanted = ("AddressesDiffer", f"its speaker announces {address}/32")
        wait_for("the agent's word", lambda: says(lab, "False", *wanted), 60)
    agree(lab)


def test_a_route_that_is_not_ours_is_found(lab: Lab, workloads: Workloads) -> None:
    workloads.attach("host1", "routed")
    settled(lab)
    address, namespace = free_address(lab, "host1"), f"{lab.top.name}-host1"
    route = (f"{address}/32", "dev", "lo", "proto", "static")
    command("ip", "-n", namespace, "route", "add", *route)
    try:
        text = listed(lab, "host1")
        assert f"nodes/host1: has a route to {address}, of its block" in text
    finally:
        command("ip", "-n", namespace, "route", "del", *route)
    agree(lab)


def test_what_the_store_has_of_nobody_is_found_and_taken_away(lab: Lab, tmp_path: Path) -> None:
    settled(lab)
    for kind, name, spec in (
        ("Node", "gone", {}),
        ("Workload", "w.gone", {"node": "gone", "origin": "Node"}),
    ):
        path = tmp_path / "object.json"
        document = {"apiVersion": "routed.dev/v1", "kind": kind, "metadata": {"name": name}}
        path.write_text(json.dumps({**document, "spec": spec}))
        ctl(lab, "create", "-f", str(path))
    text = listed(lab)
    assert "nodes/gone: never reported: what it has is not known" in text
    ctl(lab, "delete", "node", "gone")
    text = listed(lab, "", "-o", "json")
    assert [(one["name"], one["garbage"]) for one in json.loads(text)["findings"]] == [
        ("w.gone", True)
    ]
    code, text = check(lab, "", "--fix")
    assert code == 0
    assert "; deleted" in text
    agree(lab)


def test_a_silent_node_is_said_to_be_unknown(lab: Lab) -> None:
    settled(lab)
    lab.agents["host2"].stop()
    try:
        wait_for(
            "its silence being heard", lambda: condition(lab, "host2")["status"] == "Unknown", 120
        )
        text = listed(lab)
        assert "nodes/host2: does not know: NodeSilent: its agent says nothing any more" in text
    finally:
        lab.agents["host2"].start()
        wait_for("host2's agent being ready", lambda: lab.ready("host2"))
    agree(lab)
