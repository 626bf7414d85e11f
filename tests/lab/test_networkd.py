"""A real systemd-networkd on a lab host. It removes routes that it did not make: they are put back,
and the node says who does so and what to configure; and with that configured none is removed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.labs import Workloads, doctor, node_conditions
from support.networkd import Networkd, networkd

from routed.agent.flapping import TIMES
from routed.kernel.removals import BURST_SECONDS
from routed.lab.fabric import LabError, command
from routed.lab.lab import Lab
from routed.lab.processes import wait_for

pytestmark = pytest.mark.lab

BACK_SECONDS = 5.0  # it takes 0.1; a busy machine takes its time to start networkctl and to look
KEEPS_THEM = 255  # the first release seen that leaves routes by next hop objects alone
DROP_IN = Path(__file__).resolve().parents[2] / "deploy" / "networkd.conf"


def files(lab: Lab, keep: str = "") -> dict[str, str]:
    """networkd has the uplinks of host1, as the lab made them (252 spins over an address that is
    there without a broadcast address, unless told so)."""
    host = lab.top.hosts[0]
    return {
        f"network/tor{tor.number}.network": f"[Match]\nName=tor{tor.number}\n[Network]\n"
        f"LinkLocalAddressing=ipv6\nIPv6AcceptRA=no\n{keep}\n"
        f"[Address]\nAddress={host.address(tor)}/24\nBroadcast=no\n"
        f"[Address]\nAddress={host.address6(tor)}/64\nDuplicateAddressDetection=none\n"
        for tor in lab.top.tors
    }


def ours(lab: Lab) -> set[str]:
    """The routes of routed on host1."""
    host = f"{lab.top.name}-host1"
    found = set()
    for family in "46":
        said = command("ip", f"-{family}", "-n", host, "route", "show", "proto", "82")
        found |= {
            f"{family} {' '.join(line.split()[:2])}"
            for line in said.splitlines()
            if line[0] != "\t"
        }
    return found


def defaults(lab: Lab) -> list[str]:
    """Of each family, the learned one."""
    return [route for route in ours(lab) if route[2:].startswith("default")]


def configured(lab: Lab, daemon: Networkd) -> None:
    for tor in lab.top.tors:
        wait_for("a link being configured", lambda n=tor.number: daemon.configured(f"tor{n}"))


@pytest.fixture
def settled(lab: Lab, workloads: Workloads) -> Iterator[set[str]]:
    """All routes of host1 with a workload; the sessions are up before and after."""
    wait_for("every session being up", lab.established, 20)
    _, address = workloads.attach("host1", "managed")
    wait_for("the learned default", lambda: len(defaults(lab)) == 2)
    assert any(address in route for route in ours(lab))
    yield ours(lab)
    wait_for("every session being up", lab.established, 30)


def removed(lab: Lab) -> int:
    """How often networkd has removed routes, as far as the agent has said so."""
    lines = lab.local("host1").get("/metrics").text.splitlines()
    found = [one for one in lines if one.startswith('routed_routes_removed{program="systemd-netw')]
    return int(float(found[0].split()[-1])) if found else 0


def run(lab: Lab, extra: Mapping[str, str], times: int, keep: str = "") -> float:
    """Let networkd configure an uplink anew `times` times; the longest time without a route."""
    longest = 0.0
    whole = ours(lab)
    with networkd(f"{lab.top.name}-host1", files(lab, keep) | extra) as daemon:
        configured(lab, daemon)
        wait_for("all routes after its start", lambda: ours(lab) >= whole, 20)
        wait_for("every session being up", lab.established, 30)
        for _ in range(times):
            before = removed(lab)
            began = time.monotonic()
            daemon.reconfigure("tor1")
            if not extra:
                try:
                    wait_for("the agent having heard of it", lambda n=before: removed(lab) > n)
                except LabError:
                    if daemon.release < KEEPS_THEM:
                        raise
                    pytest.skip(f"networkd {daemon.release} removes none of ours")
            wait_for("all routes being back", lambda: ours(lab) >= whole)
            longest = max(longest, time.monotonic() - began)
            configured(lab, daemon)
            time.sleep(BURST_SECONDS)  # the next is another time, and not a longer one
    return longest


def test_who_removes_routes_is_named_and_what_stops_it(lab: Lab, settled: set[str]) -> None:
    keep = "KeepConfiguration=yes"
    before = removed(lab)
    run(lab, {"networkd.conf.d/routed.conf": DROP_IN.read_text()}, 2, keep)
    assert removed(lab) == before, "the shipped drop-in, and what older ones need, stop it"
    assert node_conditions(lab)["RouteFlapping"]["status"] == "False"

    longest = run(lab, {}, TIMES)
    wait_for("all that was there being there", lambda: ours(lab) >= settled)  # others may come
    print(f"the longest time until all routes were back: {longest:.2f} s")
    assert longest < BACK_SECONDS
    wait_for(
        "the node saying so", lambda: node_conditions(lab)["RouteFlapping"]["status"] == "True", 30
    )
    said = node_conditions(lab)["RouteFlapping"]["message"]
    assert said.startswith("systemd-network (pid ")
    assert "ManageForeignRoutes=no" in said
    assert keep in said
    wait_for("readiness", lambda: node_conditions(lab)["Ready"]["status"] == "True")
    code, found = doctor(lab)
    assert code == 0
    assert found["routes"]["verdict"] == "warn"
    assert found["routes"]["remedy"] in said
