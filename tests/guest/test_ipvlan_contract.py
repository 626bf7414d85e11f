"""What callers of `Kernel` may rely on with ipvlan, checked against the fake and the real one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from support.kernels import FakeWorld, RealWorld, endpoint, quiet_watcher
from support.netns import run

from api.resources.errors import ApplyError, Conflict, Invalid
from api.resources.workload import Mode
from routed.state import Endpoint, HostState, slave_name

Play = Callable[[Callable[[Any], Awaitable[None]]], None]
MODES = [Mode.IPVLAN_L3, Mode.IPVLAN_L3S]


@pytest.fixture(params=["fake", "real"])
def play(request: pytest.FixtureRequest) -> Play:
    return FakeWorld.play if request.param == "fake" else RealWorld.play


def ipvlan(name: str, netns: str, *addresses: str, mode: Mode = MODES[1]) -> Endpoint:
    return replace(endpoint(name, netns, *addresses), mode=mode, parent="up0")


def state(*endpoints: Endpoint, **more: Any) -> HostState:
    return HostState(endpoints={each.workload: each for each in endpoints}, **more)


@pytest.mark.parametrize("mode", MODES)
def test_a_sync_reaches_what_is_desired_and_a_second_one_changes_nothing(
    play: Play, mode: Mode
) -> None:
    async def body(world: Any) -> None:
        one, two = world.netns("a"), world.netns("b")
        a = ipvlan("a.h", one, "10.65.0.1", "fd00::1", mode=mode)
        b = ipvlan("b.h", two, "10.65.0.2", "fd00::2", mode=mode)
        desired = state(a, b, blackholes=frozenset([ip_network("10.65.0.0/26")]))
        report = await world.kernel.sync(desired)
        assert not report.failed
        assert report.ready == {"a.h": a.addresses, "b.h": b.addresses}
        for own, other, host in (
            ("10.65.0.1", "10.65.0.2", "192.0.2.1"),
            ("fd00::1", "fd00::2", "2001:db8:1::1"),
        ):
            assert world.reaches(one, other)
            assert world.reaches(two, own)
            assert world.reaches(one, host), "a workload reaches its host"
            assert world.host_reaches(own)
        assert (await world.kernel.sync(desired)).changed == 0
        other = world.new_kernel()
        assert (await other.sync(desired)).changed == 0, "marks in the kernel are memory enough"

    play(body)


DAMAGE: dict[str, Callable[[Any, str], None]] = {
    "host route": lambda w, n: w.delete_route("10.65.0.1/32"),
    "the host's slave": lambda w, n: w.delete_named(slave_name("up0")),
    "the host's slave down": lambda w, n: w.uplink_down(slave_name("up0")),
    "inner address": lambda w, n: w.inner_address_gone(n, "10.65.0.1"),
    "inner routes": lambda w, n: w.inner_routes_gone(n),
    "mode": lambda w, n: w.flip(n, "l3"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_wakes_the_watcher_and_a_sync_mends_it(play: Play, damage: str) -> None:
    async def body(world: Any) -> None:
        one, two = world.netns("a"), world.netns("b")
        a, b = ipvlan("a.h", one, "10.65.0.1"), ipvlan("b.h", two, "10.65.0.2")
        desired = state(a, b)
        await world.kernel.sync(desired)
        woken = await quiet_watcher(world.kernel, desired, 5)
        DAMAGE[damage](world, one)
        await asyncio.wait_for(anext(woken), 10)
        report = await world.kernel.sync(desired)
        assert report.changed > 0
        assert set(report.ready) == {"a.h", "b.h"}, report.failed
        assert report.restored == ({"up0": "l3"} if damage == "mode" else {})
        assert world.reaches(two, "10.65.0.1")
        assert world.host_reaches("10.65.0.1")
        assert world.mode("up0") == "l3s"
        while (again := await world.kernel.sync(desired)).changed:
            assert not again.restored

    play(body)


def test_a_namespace_that_vanishes_is_heard_of_and_nothing_of_it_stays(play: Play) -> None:
    async def body(world: Any) -> None:
        one, two = world.netns("a"), world.netns("b")
        a, b = ipvlan("a.h", one, "10.65.0.1"), ipvlan("b.h", two, "10.65.0.2")
        await world.kernel.sync(state(a, b))
        woken = await quiet_watcher(world.kernel, state(a, b), 5)
        world.delete_netns(one)
        await asyncio.wait_for(anext(woken), 5)
        report = await world.kernel.sync(state(a, b))
        assert report.lost == {"a.h"}
        assert set(report.ready) == {"b.h"}
        assert not [line for line in world.routes() if line.startswith("10.65.0.1 ")]
        three = world.netns("c")
        await world.kernel.attach(ipvlan("c.h", three, "10.65.0.1"))
        assert world.reaches(two, "10.65.0.1")

    play(body)


def test_detach_leaves_nothing_and_the_last_one_takes_the_hosts_slave_along(play: Play) -> None:
    async def body(world: Any) -> None:
        one = world.netns("a")
        a = ipvlan("a.h", one, "10.65.0.1")
        await world.kernel.attach(a)
        assert world.host_reaches("10.65.0.1")
        await world.new_kernel().detach(["a.h"], {"a.h": a})
        assert world.inner_links(one) == {"lo"}
        assert not [line for line in world.routes() if line.startswith("10.65.0.1 ")]
        await world.kernel.sync(HostState())
        await world.kernel.close()
        assert slave_name("up0") not in world.links()
        again = world.new_kernel()
        await again.attach(ipvlan("a.h", one, "10.65.0.1", mode=Mode.IPVLAN_L3))

    play(body)


def test_what_cannot_be_is_refused_and_leaves_nothing(play: Play) -> None:
    async def body(world: Any) -> None:
        one, two = world.netns("a"), world.netns("b")
        with pytest.raises(Invalid, match="there is no link up9") as caught:
            await world.kernel.attach(replace(ipvlan("a.h", one, "10.65.0.1"), parent="up9"))
        assert caught.value.causes[0].field == "mode"
        with pytest.raises(Invalid, match="no hand-over form"):
            await world.kernel.attach(replace(ipvlan("a.h", one, "10.65.0.1"), netns=None))
        world.foreign_inner_link(one, "eth0")
        with pytest.raises(Conflict, match="its namespace has a eth0 already"):
            await world.kernel.attach(ipvlan("a.h", one, "10.65.0.1"))
        world.foreign_route("10.65.0.3/32")
        with pytest.raises(ApplyError, match="host route"):
            await world.kernel.attach(ipvlan("c.h", two, "10.65.0.3"))
        assert world.inner_links(one) == {"lo", "eth0"}
        assert world.inner_links(two) == {"lo"}
        assert slave_name("up0") not in world.links()
        await world.kernel.attach(ipvlan("a.h", two, "10.65.0.1"))
        three = world.netns("c")
        with pytest.raises(Conflict, match="up0 carries workloads of mode ipvlan-l3s; use"):
            await world.kernel.attach(ipvlan("b.h", three, "10.65.0.2", mode=Mode.IPVLAN_L3))
        with pytest.raises(Conflict, match="another slave of up0 has that address"):
            await world.kernel.attach(ipvlan("b.h", three, "10.65.0.1"))
        with pytest.raises(Conflict, match="default route"):
            other = replace(ipvlan("b.h", two, "10.65.0.2"), if_name="eth1")
            await world.kernel.attach(other)
        assert world.inner_links(two) == {"lo", "eth0"}
        assert world.inner_links(three) == {"lo"}
        assert world.host_reaches("10.65.0.1")

    play(body)


@pytest.mark.parametrize(
    ("commands", "says", "remedy"),
    [
        (
            ["link add br0 type bridge", "link set up0 master br0"],
            "up0 is a member of the bridge br0",
            "use br0 as ipvlanParent, or mode veth",
        ),
        (
            ["link add link up0 name m0 type macvlan"],
            "up0 carries m0, a macvlan: it never shares with ipvlan",
            "use a VLAN sub-interface of up0 as ipvlanParent, or mode veth",
        ),
        (
            ["link add link up0 name c0 type ipvlan mode l2"],
            "up0 carries c0, an ipvlan of mode l2: all have one mode",
            "use a VLAN sub-interface of up0 as ipvlanParent, or mode veth",
        ),
    ],
)
def test_a_parent_that_somebody_has_is_refused_and_nothing_is_left(
    commands: list[str], says: str, remedy: str
) -> None:
    async def body(world: RealWorld) -> None:
        one = world.netns("a")
        for command in commands:
            run("ip", *command.split())
        before = world.links(), world.routes()
        with pytest.raises(Conflict, match=f"by ipvlan-l3s: {says}; {remedy}") as caught:
            await world.kernel.attach(ipvlan("a.h", one, "10.65.0.1"))
        assert [cause.field for cause in caught.value.causes] == ["mode"]
        assert (world.links(), world.routes()) == before
        assert world.inner_links(one) == {"lo"}

    RealWorld.play(body)


def test_a_mode_is_kept_for_workloads_whose_routes_are_gone(play: Play) -> None:
    async def body(world: Any) -> None:
        one, two = world.netns("a"), world.netns("b")
        a = ipvlan("a.h", one, "10.65.0.1")
        await world.kernel.attach(a)
        world.delete_route("10.65.0.1/32")
        with pytest.raises(Conflict, match="up0 carries workloads of mode ipvlan-l3s; use"):
            await world.kernel.attach(ipvlan("b.h", two, "10.65.0.2", mode=Mode.IPVLAN_L3))
        await world.kernel.sync(state(a))
        assert world.host_reaches("10.65.0.1")
        assert world.mode("up0") == "l3s"

    play(body)


def test_a_slave_is_removed_by_the_id_of_its_namespace_and_nobody_elses_is() -> None:
    """The id of a namespace that ended is the next one's, and so is perhaps the index."""

    async def body(world: RealWorld) -> None:
        one, two = world.netns("a"), world.netns("b")
        a, b = ipvlan("a.h", one, "10.65.0.1"), ipvlan("b.h", two, "10.65.0.2")
        await world.kernel.attach(a)
        await world.kernel.attach(b)
        held = world.kernel._drivers._of[MODES[1]]._held  # type: ignore[attr-defined]
        with open(f"/run/netns/{one}", "rb") as kept:  # noqa: ASYNC230, PTH123
            world.delete_netns(one)
            true = held["a.h"]
            held["a.h"] = replace(true, space=held["b.h"].space, index=held["b.h"].index)
            await world.kernel.detach(["a.h"], {"a.h": a})
            assert world.inner_links(two) == {"lo", "eth0"}
            held["a.h"] = true
            await world.kernel.detach(["a.h"], {"a.h": a})
            inside = f"/proc/self/fd/{kept.fileno()}"
            shown = subprocess.run(
                ["nsenter", f"--net={inside}", "ip", "-br", "link"],
                check=True, capture_output=True, text=True, pass_fds=[kept.fileno()],
            )  # fmt: skip
            assert [line.split()[0] for line in shown.stdout.splitlines()] == ["lo"]

    RealWorld.play(body)


def test_the_doctor_finds_what_is_against_it(tmp_path: Path) -> None:
    settings = tmp_path / "agent.yaml"

    def found(parent: str = "up0") -> tuple[int, dict[str, str]]:
        words = ["routed.main", "doctor", "--ipvlan", "--config", str(settings), "-o", "json"]
        settings.write_text(f"node: h1\nipvlanParent: {parent}\n")
        done = subprocess.run(
            [sys.executable, "-m", *words], check=False, capture_output=True, text=True
        )
        listed = json.loads(done.stdout)["findings"]
        return done.returncode, {one["check"]: one["found"] for one in listed}

    async def body(world: Any) -> None:
        assert found()[0] == 0
        code, said = found("up9")
        assert (code, "there is no link up9" in said["parent"]) == (1, True)
        name = world.netns("theirs")
        slave = ("link", "up0", "name", "c0", "netns", name, "type", "ipvlan", "mode", "l2")
        run("ip", "link", "add", *slave)
        run("ip", "-n", name, "addr", "add", "10.65.0.9/32", "dev", "c0")
        code, said = found()
        assert code == 0
        assert "c0 in namespace" in said["other slaves"]
        assert "10.65.0.9" in said["other slaves"]
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "link", "set", "up1", "master", "br0")
        code, said = found("up1")
        assert (code, said["parent: ipvlan-l3"]) == (1, "up1 is a member of the bridge br0")

    RealWorld.play(body)
