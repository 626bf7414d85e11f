"""Modes host, none and tap with the real programs and switches."""

from __future__ import annotations

import subprocess
from functools import partial

import pytest
from support.flows import connected, listen
from support.labs import Workloads, ctl
from support.taps import check_taps

from routed.lab.fabric import command, inside
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab


def answered(source: str, address: str, port: int) -> bool:
    try:
        connected(source, address, port, seconds=1).close()
    except OSError:
        return False
    return True


def test_an_address_of_the_hosts_own_namespace_is_announced_and_reached(
    lab: Lab, workloads: Workloads, serving: list[subprocess.Popen[str]]
) -> None:
    api = lab.local("host1")
    # its block has to be claimed
    wait_for("the control plane", lambda: api.get("/v1/status").json()["controlPlane"] == "in sync")
    body = {"name": "dns", "mode": "host", "addresses": ["10.65.7.53"]}
    made = api.post("/v1/attachments", json=body, params={"wait": "announced"})
    assert made.status_code == 201, made.text
    try:
        assert made.json()["netns"] == made.json()["gateway"] == ""
        wait_for("the switches knowing it", lambda: lab.tor_has("10.65.7.53/32"))
        wait_for("the client", lambda: lab.ping(lab.top.client, "10.65.7.53"), 10)
        assert inside(lab.top.hosts[0].namespace, "ping", "-c1", "-W1", "10.65.7.53")
        serving.append(listen(lab.top.hosts[0].namespace, "10.65.7.53", 53))
        far, near = workloads.attach("host2", "far"), workloads.attach("host1", "near")
        for source in (lab.top.client, far[0], lab.top.hosts[0].namespace):
            wait_for("the way there", lambda s=source: answered(s, "10.65.7.53", 53))
        assert lab.ping(near[0], "10.65.7.53")
        assert not answered(near[0], "10.65.7.53", 53), "to its own host a workload has no way"
        assert "disagree" not in ctl(lab, "ipam", "check")
    finally:
        gone = api.delete("/v1/attachments/dns")
    assert gone.status_code == 200
    wait_for("the withdrawal", partial(lab.tor_lacks, "10.65.7.53/32"))
    assert not lab.ping(lab.top.client, "10.65.7.53")


def test_none_has_a_loopback_and_reaches_nothing(lab: Lab) -> None:
    namespace, api = lab.workload_namespace("host1", "alone"), lab.local("host1")
    try:
        made = api.post(
            "/v1/attachments", json={"name": "alone", "netns": namespace, "mode": "none"}
        )
        assert made.status_code == 201, made.text
        assert made.json()["addresses"] == []
        assert lab.ping(namespace, "127.0.0.1")
        assert not lab.ping(namespace, "172.30.0.1")
        assert api.get("/v1/status").json()["failed"] == {}
        command("ip", "netns", "del", namespace)
        wait_for("its end", lambda: api.get("/v1/attachments/alone").status_code == 404, 10)
    finally:
        api.delete("/v1/attachments/alone")
        command("ip", "netns", "del", namespace, check=False)


def test_a_tap_is_announced_and_goes_with_its_detach(lab: Lab) -> None:
    check_taps()
    api = lab.local("host1")
    body = {"name": "vm", "mode": "tap", "handOver": True}
    made = api.post("/v1/attachments", json=body, params={"wait": "announced"})
    assert made.status_code == 201, made.text
    address, link = made.json()["addresses"][0], made.json()["peerInterface"]
    namespace = lab.top.hosts[0].namespace
    try:
        wait_for("the switches knowing it", lambda: lab.tor_has(f"{address}/32"))
        assert f"{address} dev {link} proto 82" in inside(namespace, "ip", "route")
    finally:
        api.delete("/v1/attachments/vm")
    wait_for("the withdrawal", lambda: lab.tor_lacks(f"{address}/32"))
    wait_for("the tap's end", lambda: link not in inside(namespace, "ip", "-br", "link"))


def test_who_shares_a_namespace_is_reached_at_its_holders_address_until_the_last_has_left(
    lab: Lab, workloads: Workloads, serving: list[subprocess.Popen[str]]
) -> None:
    namespace, address = workloads.attach("host1", "holder")
    source, _ = workloads.attach("host2", "asking")
    api = lab.local("host1")
    made = api.post(
        "/v1/attachments", json={"name": "sidecar", "mode": "shared", "sharedWith": "holder"}
    )
    assert made.status_code == 201, made.text
    serving.append(listen(namespace, "0.0.0.0", 7002))

    def reached() -> bool:
        return answered(source, address, 7002)

    wait_for("the way there", reached)
    assert api.delete("/v1/attachments/holder").status_code == 200
    assert reached(), "another is in it"
    assert lab.tor_has(f"{address}/32")
    assert api.delete("/v1/attachments/sidecar").status_code == 200
    wait_for("the withdrawal", lambda: lab.tor_lacks(f"{address}/32"))
    assert not reached()
    wait_for("its link's end", lambda: "eth0" not in inside(namespace, "ip", "-br", "link"))
