"""ipvlan in a rack: two hosts with agent and speaker, a switch that runs BIRD, every direction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.headless import HeadlessRack, bonded_rack, small_rack
from support.netns import run

from routed.lab.processes import wait_for
from routed.state import slave_name

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
SLAVE = slave_name("up0")


@pytest.fixture(scope="module", params=["l3", "l3s"])
def rack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HeadlessRack]:
    found = small_rack("ir", tmp_path_factory.mktemp("rack"))
    try:
        mode = f"ipvlan-{request.param}"
        for host, name in (("host1", "a"), ("host1", "b"), ("host2", "c")):
            found.attach(host, name, mode=mode)
        found.attach("host1", "v")
        found.mode = mode
        for name in found.attached:
            wait_for(f"the switch knowing {name}", lambda name=name: found.knows("tor", name), 20)
        yield found
    finally:
        found.stop()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("tor", "a"),
        ("a", "b"),
        ("a", "c"),
        ("c", "a"),
        ("host1", "a"),
        ("side", "a"),
        ("v", "c"),
        ("c", "v"),
    ],
)
def test_from_here_to_a_workload(rack: HeadlessRack, source: str, target: str) -> None:
    assert rack.reaches(source, rack.attached[target])


@pytest.mark.parametrize(("source", "target"), [("v", "a"), ("a", "v")])
def test_veth_and_ipvlan_of_one_host_do_not_meet(
    rack: HeadlessRack, source: str, target: str
) -> None:
    """What a slave sends is routed out of its parent only, and there the block's blackhole is met
    (docs/modes.md)."""
    assert rack.reaches("host1", rack.attached[target])
    assert not rack.pings(source, rack.attached[target])


@pytest.mark.parametrize("address", ["10.1.1.2", "10.1.1.1", "10.1.2.2", "10.1.4.2"])
def test_from_a_workload_to_hosts_and_the_switch(rack: HeadlessRack, address: str) -> None:
    assert rack.reaches("a", address)


def test_an_agent_that_is_killed_changes_nothing_and_the_next_goes_on(rack: HeadlessRack) -> None:
    host = rack.hosts["host1"]
    before = rack.inside("host1", "ip", "route", "show", "proto", "82")
    links = (
        rack.inside("host1", "ip", "-br", "link"),
        rack.inside("a", "ip", "addr", "show", "eth0"),
    )
    host.agent.kill()
    assert rack.pings("tor", rack.attached["a"])
    host.agent.start()
    wait_for("the next agent", lambda: host.status().get("workloads") == 3, 30)
    wait_for("what it had announced", lambda: host.status()["bgp"]["advertised"] == 3, 30)
    assert rack.inside("host1", "ip", "route", "show", "proto", "82") == before
    assert links == (rack.inside("host1", "ip", "-br", "link"),
                     rack.inside("a", "ip", "addr", "show", "eth0"))  # fmt: skip
    assert host.status()["failed"] == {}
    assert rack.pings("tor", rack.attached["a"])


def test_a_mode_that_somebody_changes_is_restored_and_said(rack: HeadlessRack) -> None:
    other = "l3" if rack.mode == "ipvlan-l3s" else "l3s"

    def is_ours() -> bool:
        shown = rack.inside("host1", "ip", "-d", "link", "show", "dev", SLAVE)
        return f"mode {rack.mode.removeprefix('ipvlan-')} bridge" in shown

    assert is_ours()
    rack.inside("host1", "ip", "link", "add", "link", "up0", "name", "their0", "type", "ipvlan",
                "mode", other)  # fmt: skip
    try:
        wait_for("our mode being back", is_ours, 10)
    finally:
        rack.inside("host1", "ip", "link", "del", "their0")

    def said() -> bool:
        conditions = {one["type"]: one for one in rack.hosts["host1"].status()["conditions"]}
        condition = conditions["ParentModeSwitched"]
        told = f"up0 to mode {other}" in condition["message"]
        return condition["status"] == "True" and told

    wait_for("it being said", said, 10)
    assert rack.reaches("tor", rack.attached["a"])


def test_a_namespace_that_goes_is_withdrawn_and_the_address_free(rack: HeadlessRack) -> None:
    address = rack.attach("host2", "gone", mode=rack.mode)
    wait_for("the switch knowing it", lambda: rack.knows("tor", "gone"), 20)
    run("ip", "netns", "del", f"{rack.mark}-gone")
    wait_for("the withdrawal", lambda: not rack.knows("tor", "gone"), 10)
    assert f"{address} " not in rack.inside("host2", "ip", "route")
    assert rack.reaches("tor", rack.attached["c"])
    rack.spaces.remove(f"{rack.mark}-gone")


def test_a_namespace_that_goes_while_the_agent_is_dead_is_withdrawn(rack: HeadlessRack) -> None:
    """By the speaker alone; the link that its route leads over is that of all on the parent."""
    host = rack.hosts["host2"]
    address = rack.attach("host2", "alone", mode=rack.mode)
    wait_for("the switch knowing it", lambda: rack.knows("tor", "alone"), 20)
    host.agent.kill()
    run("ip", "netns", "del", f"{rack.mark}-alone")
    wait_for("the withdrawal", lambda: not rack.knows("tor", "alone"), 10)
    assert rack.knows("tor", "c")
    assert f"{address} " in rack.inside("host2", "ip", "route"), "nobody else has done it"
    host.agent.start()
    wait_for("the next agent", lambda: host.status().get("workloads") == 1, 30)
    wait_for(
        "its host route being gone",
        lambda: f"{address} " not in rack.inside("host2", "ip", "route"),
    )
    assert rack.reaches("tor", rack.attached["c"])
    rack.spaces.remove(f"{rack.mark}-alone")


def test_a_bond_as_parent_has_two_switches(tmp_path: Path) -> None:
    rack = bonded_rack("ib", tmp_path)
    try:
        address = rack.attach("host1", "w", mode="ipvlan-l3s")
        held = rack.hosts["host1"].api.get("/v1/attachments/w").json()
        assert held["hostInterface"] == slave_name("bond0")
        for tor in ("tor1", "tor2"):
            wait_for(f"{tor} knowing it", lambda tor=tor: rack.knows(tor, "w"), 20)
            assert rack.reaches(tor, address)
        rack.inside("tor1", "ip", "link", "set", "h1", "down")
        for tor in ("tor1", "tor2"):
            assert rack.reaches(tor, address, 20), f"{tor}, over the other cable"
        assert rack.hosts["host1"].status()["failed"] == {}
    finally:
        rack.stop()
