"""What is promised under fault, on real programs and real BIRD."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.labs import Workloads, ctl, exabgp_of

from routed.lab import bird, fabric
from routed.lab.fabric import LabError, command, inside
from routed.lab.lab import Lab
from routed.lab.prober import Probe
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab


def test_workloads_reach_each_other_across_hosts_and_from_outside(
    lab: Lab, workloads: Workloads
) -> None:
    one, first = workloads.attach("host1", "a")
    other, second = workloads.attach("host2", "b")
    wait_for("the switches knowing both", lambda: lab.tor_has(f"{first}/32"))
    wait_for("the switches knowing both", lambda: lab.tor_has(f"{second}/32"))
    wait_for("a ping across", lambda: lab.ping(one, second), 5)
    assert lab.ping(other, first)
    wait_for("a ping from outside", lambda: lab.ping(lab.top.client, first), 5)
    default = [r for r in fabric.routes(f"{lab.top.name}-host1") if r["dst"] == "default"]
    assert len(default) == 1
    assert len(default[0]["nexthops"]) == 2, "ECMP over both switches"  # type: ignore[arg-type]


def test_a_deleted_host_route_is_back_within_a_second(lab: Lab, workloads: Workloads) -> None:
    _, address = workloads.attach("host1", "a")
    host = f"{lab.top.name}-host1"
    wait_for("the switches knowing it", lambda: lab.tor_has(f"{address}/32"), 5)
    command("ip", "-n", host, "route", "del", f"{address}/32")
    took = wait_for("the route", lambda: f"{address} dev" in command("ip", "-n", host, "route"), 5)
    assert took < 1
    assert lab.tor_has(f"{address}/32")


def test_a_vanished_namespace_is_cleaned_up_within_five_seconds(
    lab: Lab, workloads: Workloads
) -> None:
    namespace, address = workloads.attach("host1", "a")
    command("ip", "netns", "del", namespace)
    took = wait_for("the withdrawal", lambda: lab.tor_lacks(f"{address}/32"), 10)
    assert took < 5
    wait_for(
        "the attachment's end",
        lambda: lab.local("host1").get("/v1/attachments/a").status_code == 404,
        5,
    )
    wait_for("the report's end", lambda: "a.host1" not in ctl(lab, "get", "wl", "-o", "name"), 5)


def test_a_dead_workload_is_withdrawn_without_an_agent(lab: Lab, workloads: Workloads) -> None:
    namespace, address = workloads.attach("host1", "a")
    wait_for("the switches knowing it", lambda: lab.tor_has(f"{address}/32"))
    agent = lab.agents["host1"]
    agent.kill()
    try:
        command("ip", "netns", "del", namespace)
        assert wait_for("the withdrawal", lambda: lab.tor_lacks(f"{address}/32"), 5) < 2
    finally:
        agent.start()
        wait_for("the agent", lambda: lab.ready("host1"))


def test_an_agent_killed_loses_no_packet_and_changes_nothing(
    lab: Lab, workloads: Workloads
) -> None:
    namespace, address = workloads.attach("host1", "a")
    wait_for("the way in", lambda: lab.ping(lab.top.client, address), 5)
    agent = lab.agents["host1"]
    before = bird.ask(lab.directory, lab.tor_namespaces[0], "show", "route", f"{address}/32")
    probe = Probe((lab.top.client, "172.28.0.1"), (namespace, address))
    try:
        for _ in range(3):
            agent.kill()
            agent.start()
            wait_for("the agent", lambda: lab.ready("host1"))
        streams = probe.finish()
    except BaseException:
        probe.abort()
        raise
    assert all(stream.sent > 500 and stream.lost == 0 for stream in streams), streams
    after = bird.ask(lab.directory, lab.tor_namespaces[0], "show", "route", f"{address}/32")
    # BIRD derives the instant from two clocks: its last digit moves
    fraction = re.compile(r"(\d\d:\d\d:\d\d)\.\d+")
    same = fraction.sub(r"\1", after) == fraction.sub(r"\1", before)
    assert same, f"the switch has the very same route, of the same age: {before} {after}"


def test_the_switches_keep_the_routes_while_exabgp_is_killed(
    lab: Lab, workloads: Workloads
) -> None:
    _, address = workloads.attach("host1", "a")
    wait_for("the switches knowing it", lambda: lab.tor_has(f"{address}/32"))
    child = exabgp_of(lab.speakers["host1"].pid)
    assert child, "the speaker has no ExaBGP"
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 20
    back = False
    while not back:
        assert lab.tor_has(f"{address}/32"), "the route was missing"
        assert time.monotonic() < deadline, "no new session in 20 s"
        new = exabgp_of(lab.speakers["host1"].pid)
        back = new not in (0, child) and lab.established()
        time.sleep(0.1)
    later = time.monotonic() + 2
    while time.monotonic() < later:
        assert lab.tor_has(f"{address}/32"), "the route went after the session came back"
        time.sleep(0.1)


def test_a_new_agent_works_from_its_last_intent_while_the_service_is_down(
    lab: Lab, workloads: Workloads, status_of: Callable[[str], dict[str, Any]]
) -> None:
    _, first = workloads.attach("host1", "a")
    wait_for("the report", lambda: bool(status_of("a.host1")["addresses"]))
    lab.server.stop()
    agent = lab.agents["host1"]
    try:
        agent.kill()
        agent.start()
        wait_for("the agent", lambda: lab.ready("host1"))
        namespace, second = workloads.attach("host1", "b")
        wait_for("the announcement", lambda: lab.tor_has(f"{second}/32"))
        assert lab.ping(namespace, first)
        gone = lab.local("host1").delete("/v1/attachments/a")
        assert gone.status_code == 200
        wait_for("the withdrawal", lambda: lab.tor_lacks(f"{first}/32"))
    finally:
        lab.server.start()
        lab.wait_server()
    wait_for("the report of what was attached", lambda: bool(status_of("b.host1")["addresses"]))
    wait_for("no resurrection", lambda: "a.host1" not in ctl(lab, "get", "wl", "-o", "name"), 10)
    assert lab.local("host1").get("/v1/attachments/a").status_code == 404


def test_a_workload_deleted_in_the_service_is_detached(lab: Lab) -> None:
    namespace = lab.workload_namespace("host2", "api")
    ctl(lab, "attach", "api1", "--netns", namespace, "--node", "host2")
    attached = lab.local("host2")
    wait_for("the attachment", lambda: attached.get("/v1/attachments/api1").status_code == 200)
    refused = attached.delete("/v1/attachments/api1")
    assert refused.status_code == 409
    assert "through the service" in refused.json()["message"]
    ctl(lab, "delete", "workload", "api1")
    wait_for("its end", lambda: attached.get("/v1/attachments/api1").status_code == 404)
    wait_for("the link's end", lambda: not has_link(namespace, "eth0"), 2)


def has_link(namespace: str, name: str) -> bool:
    found = subprocess.run(
        ["ip", "-n", namespace, "link", "show", name], check=False, capture_output=True
    )
    return found.returncode == 0


def test_attaching_again_is_idempotent(lab: Lab, workloads: Workloads) -> None:
    namespace = workloads.namespace("host1", "idem")
    body = {"name": "idem", "netns": namespace, "containerID": "c-1"}
    api = lab.local("host1")
    first = api.post("/v1/attachments", json=body)
    second = api.post("/v1/attachments", json=body)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    other = api.post("/v1/attachments", json={**body, "name": "two", "containerID": "c-2"})
    assert other.status_code == 409
    assert "idem.host1" in other.json()["message"]


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"netns": "no-such"}, 422, "spec.netns"),
        ({"netns": "/etc/hostname"}, 422, "spec.netns"),
        ({"ifName": "abcdefghijklmnop"}, 422, "ifName"),
        ({"name": "No_Label"}, 422, "name"),
        ({"addresses": ["10.65.0.1/24"]}, 422, "addresses[0]"),
        ({"addresses": ["192.0.2.1"]}, 422, "addresses"),
        ({"pools": ["none"]}, 422, "pools"),
        ({"mode": "ipvlan-l3"}, 422, "mode"),
        ({"colour": "blue"}, 422, "colour"),
    ],
)
def test_bad_input_is_refused_and_nothing_changes(
    lab: Lab, change: dict[str, Any], code: int, says: str
) -> None:
    namespace = f"{lab.top.name}-bad"
    command("ip", "netns", "add", namespace)
    try:
        api = lab.local("host1")
        before = api.get("/v1/attachments").json()
        body = {"name": "bad", "netns": namespace, **change}
        answer = api.post("/v1/attachments", json=body)
        assert answer.status_code == code, answer.text
        fields = [cause["field"] for cause in answer.json()["details"]["causes"]]
        assert fields == [says]
        assert api.get("/v1/attachments").json() == before
        assert not has_link(namespace, "eth0")
    finally:
        command("ip", "netns", "del", namespace)


def test_a_body_of_two_mebibytes_is_refused(lab: Lab) -> None:
    assert lab.local("host1").post("/v1/attachments", content=b" " * (2 << 20)).status_code == 413


def test_secrets_are_in_files_that_only_root_reads(lab: Lab) -> None:
    for path in lab.directory.rglob("*"):
        if path.suffix in (".kubeconfig", ".key", ".db", ".sock") and "ctl" not in path.name:
            others = 0o007 if path.name == "agent.sock" else 0o077  # its group is routed
            assert path.stat().st_mode & others == 0, path
    token = next(
        line.split()[-1]
        for line in lab.admin.read_text(encoding="utf-8").splitlines()
        if "token:" in line
    )
    for process in (lab.server, *lab.agents.values(), *lab.speakers.values()):
        for file in ("cmdline", "environ"):
            assert token.encode() not in Path(f"/proc/{process.pid}/{file}").read_bytes()
        assert token not in process.log.read_text(encoding="utf-8")


def test_a_clean_stop_of_the_speaker_withdraws_first(lab: Lab, workloads: Workloads) -> None:
    _, address = workloads.attach("host2", "a")
    wait_for("the switches knowing it", lambda: lab.tor_has(f"{address}/32"))
    speaker = lab.speakers["host2"]
    speaker.stop()
    try:
        assert wait_for("the withdrawal", lambda: lab.tor_lacks(f"{address}/32"), 2) < 1
    finally:
        speaker.start()
    wait_for("the announcement", lambda: lab.tor_has(f"{address}/32"), 30)


def test_two_agents_of_one_host_are_kept_apart(lab: Lab) -> None:
    with pytest.raises(LabError, match="another agent"):
        inside(f"{lab.top.name}-host1", *lab.agents["host1"].words[3:], timeout=15)


def test_hand_over_leaves_the_inner_link_for_the_runtime_to_move(lab: Lab) -> None:
    api = lab.local("host1")
    host = f"{lab.top.name}-host1"
    namespace = lab.workload_namespace("host1", "moved")
    made = api.post("/v1/attachments", json={"name": "given", "handOver": True}).json()
    try:
        peer, address = made["peerInterface"], made["addresses"][0]
        command("ip", "-n", host, "link", "set", peer, "netns", namespace)
        command("ip", "-n", namespace, "link", "set", peer, "name", "eth0")
        command("ip", "-n", namespace, "addr", "add", f"{address}/32", "dev", "eth0")
        command("ip", "-n", namespace, "link", "set", "eth0", "up")
        command("ip", "-n", namespace, "route", "add", "169.254.1.1", "dev", "eth0")
        command("ip", "-n", namespace, "route", "add", "default", "via", "169.254.1.1")
        wait_for("the switches knowing it", lambda: lab.tor_has(f"{address}/32"))
        wait_for("a ping from outside", lambda: lab.ping(lab.top.client, address), 5)
    finally:
        assert api.delete("/v1/attachments/given").status_code == 200
        command("ip", "netns", "del", namespace)
    wait_for("the withdrawal", lambda: lab.tor_lacks(f"{address}/32"), 5)


@pytest.mark.parametrize("command_line", ["flush ruleset", "delete table inet routed"])
def test_a_filter_table_that_somebody_flushes_is_back_at_once(lab: Lab, command_line: str) -> None:
    host = f"{lab.top.name}-host1"

    def chains() -> list[str]:
        return sorted(inside(host, "nft", "list", "chains").splitlines())  # in whichever order

    before = chains()
    assert "\tchain antispoof {" in before
    inside(host, "nft", *command_line.split())
    took = wait_for("the table", lambda: chains() == before, 5)
    assert took < 1


def test_a_settings_file_with_three_mistakes_is_told_at_once(lab: Lab) -> None:
    path = lab.directory / "bad.yaml"
    path.write_text("node: Not_A_Name\nlowWater: many\ncolour: blue\n", encoding="ascii")
    words = [*lab.agents["host1"].words[3:6], "agent", "--config", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "3 problem(s)" in done.stderr
    for field in ("node:", "lowWater:", "colour: is not a setting"):
        assert field in done.stderr


def test_a_namespace_holds_one_default_route(lab: Lab, workloads: Workloads) -> None:
    namespace, address = workloads.attach("host1", "first")
    api = lab.local("host1")
    body = {"name": "second", "netns": namespace, "ifName": "eth1"}
    refused = api.post("/v1/attachments", json=body)
    assert refused.status_code == 409, refused.text
    assert "detach the other first" in refused.json()["message"]
    assert not has_link(namespace, "eth1")
    assert api.get("/v1/attachments/second").status_code == 404
    other = api.post("/v1/attachments", json={**body, "name": "first", "ifName": "eth0"})
    assert (other.status_code, other.json()["addresses"]) == (200, [address])
    asked = {**body, "name": "first", "ifName": "eth0", "addresses": ["10.65.255.1"]}
    assert api.post("/v1/attachments", json=asked).status_code == 409
    wait_for("the way in", lambda: lab.ping(lab.top.client, address), 5)
