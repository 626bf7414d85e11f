"""Workloads with IPv4, IPv6 and both, in a lab whose sessions carry both families."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from support.labs import EXAMPLES, Workloads, blocks, draining_pool
from support.rig import IGNORED, Churn, wait_agreed
from support.rogue import announced, tell

from api.resources.net import host_prefix, parse_address
from bgp import wire
from routed.lab.fabric import command, inside
from routed.lab.lab import Lab
from routed.lab.prober import Probe
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

FIRST_SECONDS = 1.0  # promised: from the answer of attach to the first packet


@pytest.fixture
def six(lab: Lab, tmp_path: Path) -> Iterator[str]:
    manifest = (EXAMPLES / "ipv6" / "ippool.yaml").read_text() + "  cooldownSeconds: 1\n"
    with draining_pool(lab, manifest, tmp_path / "six.yaml") as name:
        for host in lab.top.hosts:
            wait_for(
                "its first block",
                lambda node=host.name: any(  # type: ignore[misc]
                    one["spec"]["node"] == node for one in blocks(lab, "six").values()
                ),
            )
        yield name


def addresses_of(lab: Lab, host: str, name: str) -> list[str]:
    held: list[str] = lab.local(host).get(f"/v1/attachments/{name}").json()["addresses"]
    return held


def inside_addresses(namespace: str) -> list[str]:
    """Of global scope, with their flags."""
    said = json.loads(command("ip", "-n", namespace, "-j", "addr", "show", "dev", "eth0"))
    return [one["local"] for one in said[0]["addr_info"] if one["scope"] == "global"]


def answered(lab: Lab, namespace: str, address: str, seconds: int) -> bool:
    """Whether one of many echo requests is answered in time: one every 20 ms. A switch that does
    not know the address yet says so, which ends a ping."""
    words = ["ping", "-n", "-c", "1", "-i", "0.02", "-w", str(seconds), address]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if " 1 received" in inside(namespace, *words, check=False):
            return True
    return False


def test_an_address_of_each_family(lab: Lab, six: str, workloads: Workloads) -> None:
    here, _ = workloads.attach("host1", "pair", ipFamilies=["IPv4", "IPv6"])
    there, _ = workloads.attach("host2", "pair2", ipFamilies=["IPv4", "IPv6"])
    mine, other = addresses_of(lab, "host1", "pair"), addresses_of(lab, "host2", "pair2")
    assert [":" in one for one in mine] == [False, True]
    for address in (*mine, *other):
        prefix = f"{address}/{128 if ':' in address else 32}"
        wait_for(f"the switches knowing {prefix}", lambda p=prefix: lab.tor_has(p))  # type: ignore[misc]
    for source, targets in ((here, other), (there, mine), (lab.top.client, [*mine, *other])):
        for address in targets:
            wait_for(f"a ping to {address}", lambda s=source, a=address: lab.ping(s, a))  # type: ignore[misc]
    for tor in lab.top.tors:
        hops = lab.tor_prefixes(tor.namespace)
        assert hops[f"{mine[0]}/32"] == [lab.top.hosts[0].address(tor)]
        assert hops[f"{mine[1]}/128"] == [lab.top.hosts[0].address6(tor)]
    assert lab.ping(f"{lab.top.name}-host1", mine[1]), "from the host itself"
    lab.local("host1").delete("/v1/attachments/pair")
    wait_for("the withdrawal", lambda: lab.tor_lacks(f"{mine[1]}/128"), 10)
    assert lab.tor_has(f"{other[1]}/128")


def test_a_workload_with_ipv6_alone(lab: Lab, six: str, workloads: Workloads) -> None:
    namespace, address = workloads.attach("host1", "alone", ipFamilies=["IPv6"])
    assert inside_addresses(namespace) == [address]
    assert json.loads(command("ip", "-n", namespace, "-4", "-j", "route") or "[]") == []
    wait_for("a ping from outside", lambda: lab.ping(lab.top.client, address))
    own = lab.top.client_own[6]
    wait_for("a ping to outside", lambda: lab.ping(namespace, own))


def test_the_first_packet_over_ipv6_comes_within_a_second(
    lab: Lab, six: str, workloads: Workloads
) -> None:
    """Neither duplicate address detection nor neighbour discovery is waited for, either way: that
    would take each time what a busy machine may take once."""
    took: dict[bool, list[float]] = {True: [], False: []}
    for name, reached in (("in1", True), ("out1", False), ("in2", True), ("out2", False)):
        answer = workloads.ask("host1", name, ipFamilies=["IPv6"])
        assert answer.status_code == 201, answer.text
        (address,), namespace = answer.json()["addresses"], workloads.namespace("host1", name)
        source, target = (
            (lab.top.client, address) if reached else (namespace, lab.top.client_own[6])
        )
        began = time.monotonic()
        assert answered(lab, source, target, 10), f"{name}: nothing in 10 seconds"
        took[reached].append(time.monotonic() - began)
    assert min(took[True]) < FIRST_SECONDS, took
    assert min(took[False]) < FIRST_SECONDS, took


def test_what_is_compared_has_both_families(lab: Lab, six: str, workloads: Workloads) -> None:
    """`ipam check` on a host sees another's /128 in the switches' tables, and misses one."""
    workloads.attach("host1", "a", ipFamilies=["IPv4", "IPv6"])
    workloads.attach("host2", "b", ipFamilies=["IPv4", "IPv6"])
    theirs = addresses_of(lab, "host2", "b")[1]

    def check() -> str:
        words = ["ipam", "check", "--agent", str(lab.socket("host1"))]
        whole = lab.ctl("--kubeconfig", str(lab.admin), *words)
        return inside(f"{lab.top.name}-host1", *whole, check=False)

    wait_for("agreement", lambda: "agree" in check() and theirs not in check(), 40)
    tell(lab, "host2", wire.Withdraw(host_prefix(parse_address(theirs))))
    assert f"{theirs}/128 is not announced by host2 at tor1, tor2" in check()
    with announced(lab, "host2", theirs):
        wait_for("agreement", lambda: theirs not in check())
        mine = parse_address(addresses_of(lab, "host1", "a")[1])
        free = str(IPv6Address(int(mine) | 0x3E))  # of the same block, a /122
        with announced(lab, "host2", free):
            wait_for("the alarm", lambda: any(
                free in one for one in lab.local("host1").get("/v1/status").json()["findings"]
            ))  # fmt: skip


@IGNORED
def test_agents_killed_while_both_families_come_and_go(
    lab: Lab, six: str, workloads: Workloads
) -> None:
    """A stream over IPv6 loses nothing; afterwards kernel, store and switches agree on both."""
    namespace, _ = workloads.attach("host1", "steady", ipFamilies=["IPv4", "IPv6"])
    (address,) = [one for one in addresses_of(lab, "host1", "steady") if ":" in one]
    own = lab.top.client_own[6]
    wait_for("a ping from outside", lambda: lab.ping(lab.top.client, address))
    churn = Churn(lab, "host1", rate=10.0, count=6, ipFamilies=["IPv4", "IPv6"])
    probe = Probe((lab.top.client, own), (namespace, address), rate=200)
    try:
        churn.start()
        for _ in range(3):
            churn.wait_operations(8)
            lab.agents["host1"].kill()
            lab.agents["host1"].start()
            wait_for("the agent being ready", lambda: lab.ready("host1"))
        with churn.paused():
            wait_agreed(lab, "host1", 20)
        down, back = probe.finish()
    except BaseException:
        probe.abort()
        raise
    finally:
        churn.finish()
    assert not churn.refused
    assert (down.lost, back.lost) == (0, 0)
    assert min(down.sent, back.sent) > 200


def test_a_session_that_carries_both_says_so(lab: Lab) -> None:
    status = lab.local("host1").get("/v1/status").json()
    assert [one["families"] for one in status["bgp"]["sessions"]] == [["IPv4", "IPv6"]] * 2
    assert [one["error"] for one in status["bgp"]["sessions"]] == ["", ""]
