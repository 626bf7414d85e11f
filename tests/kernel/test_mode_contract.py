"""What callers of `Kernel` may rely on with modes host, none and tap: the fake and the real one."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from support.kernels import FakeWorld, RealWorld, endpoint, quiet_watcher, until
from support.taps import check_taps

from api.resources.errors import ApplyError, Invalid
from api.resources.workload import Mode
from routed.state import Endpoint, HostState, host_interface_name

Play = Callable[[Callable[[Any], Awaitable[None]]], None]


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
def play(request: pytest.FixtureRequest) -> Play:
    if request.param == "fake":
        return FakeWorld.play
    check_taps()
    return RealWorld.play


def state(*endpoints: Endpoint, **more: Any) -> HostState:
    return HostState(endpoints={each.workload: each for each in endpoints}, **more)


def outside(name: str, mode: Mode, *addresses: str) -> Endpoint:
    return Endpoint(name, "eth0", tuple(map(ip_address, addresses)), None, mode=mode)


def has_route(world: Any, address: str) -> bool:
    return any(line.split()[0] in (address, f"{address}/32") for line in world.routes())


def test_a_sync_reaches_what_is_desired_and_a_second_one_changes_nothing(play: Play) -> None:
    async def body(world: Any) -> None:
        bare, web = world.netns("n"), world.netns("w")
        desired = state(
            outside("db.h", Mode.HOST, "10.65.0.1", "fd00::1"),
            outside("plain.h", Mode.HOST),
            replace(endpoint("none.h", bare), mode=Mode.NONE),
            outside("vm.h", Mode.TAP, "10.65.0.2"),
            endpoint("web.h", web, "10.65.0.3"),
        )
        report = await world.kernel.sync(desired)
        assert not report.failed
        assert report.ready == {name: one.addresses for name, one in desired.endpoints.items()}
        assert world.reaches(web, "10.65.0.1"), "the host's own namespace has it"
        assert not world.reaches(web, "10.65.0.2"), "no machine runs yet"
        assert not world.reaches(bare, "10.65.0.1")
        assert world.inner_links(bare) == {"lo"}
        assert has_route(world, "10.65.0.2")
        assert (await world.kernel.sync(desired)).changed == 0
        other = world.new_kernel()
        assert (await other.sync(desired)).changed == 0, "marks in the kernel are memory enough"
        await other.sync(state(desired.endpoints["web.h"]))
        await until(lambda: len([n for n in world.links() if n.startswith("rt")]) == 1)
        assert not world.reaches(web, "10.65.0.1")
        assert not has_route(world, "10.65.0.2")

    play(body)


DAMAGE: dict[str, Callable[[Any], None]] = {
    "address": lambda w: w.host_address_gone("db.h", "10.65.0.1"),
    "link of an address": lambda w: w.delete_link("db.h"),
    "tap": lambda w: w.delete_link("vm.h"),
    "tap down": lambda w: w.link_down("vm.h"),
    "route to a machine": lambda w: w.delete_route("10.65.0.2/32"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_wakes_the_watcher_and_a_sync_mends_it(play: Play, damage: str) -> None:
    async def body(world: Any) -> None:
        web = world.netns("w")
        desired = state(
            outside("db.h", Mode.HOST, "10.65.0.1"),
            outside("vm.h", Mode.TAP, "10.65.0.2"),
            endpoint("web.h", web, "10.65.0.3"),
        )
        await world.kernel.sync(desired)
        woken = await quiet_watcher(world.kernel, desired, 5)
        DAMAGE[damage](world)
        await asyncio.wait_for(anext(woken), 5)
        report = await world.kernel.sync(desired)
        assert report.changed > 0
        assert set(report.ready) == {"db.h", "vm.h", "web.h"}, report.failed
        assert world.reaches(web, "10.65.0.1")
        assert has_route(world, "10.65.0.2")
        assert (await world.kernel.sync(desired)).changed == 0

    play(body)


def test_the_namespace_of_none_is_heard_of_when_it_goes(play: Play) -> None:
    async def body(world: Any) -> None:
        bare = world.netns("n")
        desired = state(replace(endpoint("none.h", bare), mode=Mode.NONE))
        assert (await world.kernel.sync(desired)).ready == {"none.h": ()}
        woken = await quiet_watcher(world.kernel, desired, 5)
        world.delete_netns(bare)
        await asyncio.wait_for(anext(woken), 5)
        assert (await world.kernel.sync(desired)).lost == {"none.h"}

    play(body)


@pytest.mark.parametrize("mode", [Mode.HOST, Mode.TAP])
def test_an_attach_is_whole_or_leaves_nothing_and_a_detach_takes_all(
    play: Play, mode: Mode
) -> None:
    async def body(world: Any) -> None:
        one = outside("one.h", mode, "10.65.0.1")
        world.foreign_link(host_interface_name("two.h"))
        with pytest.raises(ApplyError):
            await world.kernel.attach(outside("two.h", mode, "10.65.0.2"))
        world.delete_named(host_interface_name("two.h"))
        await world.kernel.attach(one)
        await world.kernel.attach(one)
        assert (await world.kernel.sync(state(one))).ready == {"one.h": one.addresses}
        await world.new_kernel().detach(["one.h"], {"one.h": one})
        await until(lambda: not [name for name in world.links() if name.startswith("rt")])
        assert not has_route(world, "10.65.0.1")

    play(body)


@pytest.mark.parametrize("mode", [Mode.IPVLAN_L3, Mode.IPVLAN_L3S])
def test_a_kernel_without_ipvlan_says_what_would_work(mode: Mode) -> None:
    trial = "ip link add p0 type veth peer p1 && ip link add link p0 name i0 type ipvlan"
    words = ["unshare", "--net", "sh", "-c", trial]
    if subprocess.run(words, capture_output=True, check=False).returncode == 0:
        pytest.skip("this kernel has ipvlan")

    async def body(world: RealWorld) -> None:
        space, before = world.netns("a"), world.links()
        asked = replace(endpoint("a.h", space, "10.65.0.1"), mode=mode, parent="up0")
        said = f"a.h by {mode}: this kernel has no ipvlan; use mode veth, or a kernel with CONFIG_"
        with pytest.raises(Invalid, match=said) as caught:
            await world.kernel.attach(asked)
        assert [cause.field for cause in caught.value.causes] == ["mode"]
        assert world.links() == before
        assert world.inner_links(space) == {"lo"}

    RealWorld.play(body)
