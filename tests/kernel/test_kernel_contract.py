"""What callers of `Kernel` may rely on, checked against the fake and the real one alike."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from support.kernels import FakeWorld, RealWorld, endpoint, quiet_watcher, until

from api.resources.errors import ApplyError, Conflict, Invalid
from routed.state import Endpoint, HostState, LearnedRoute, NextHop, host_interface_name

Play = Callable[[Callable[[Any], Awaitable[None]]], None]
BLOCK = ip_network("10.65.0.0/26")


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
def play(request: pytest.FixtureRequest) -> Play:
    return FakeWorld.play if request.param == "fake" else RealWorld.play


def state(*endpoints: Endpoint, **more: Any) -> HostState:
    return HostState(endpoints={each.workload: each for each in endpoints}, **more)


def has_route(world: Any, prefix: str) -> bool:
    bare = prefix.removesuffix("/32").removesuffix("/128")
    return any({prefix, bare} & set(line.split()[:2]) for line in world.routes())


def test_a_sync_reaches_what_is_desired_and_a_second_one_changes_nothing(play: Play) -> None:
    async def body(world: Any) -> None:
        one, two = world.netns("a"), world.netns("b")
        a, b = endpoint("a.h", one, "10.65.0.1", "fd00::1"), endpoint("b.h", two, "10.65.0.2")
        desired = state(a, b, blackholes=frozenset([BLOCK, ip_network("fd00::/122")]))
        report = await world.kernel.sync(desired)
        assert report.ready == {"a.h": a.addresses, "b.h": b.addresses}
        assert report.routed == desired.blackholes
        assert not report.failed
        assert report.changed > 0
        assert world.reaches(one, "10.65.0.2")
        assert world.reaches(two, "10.65.0.1")
        assert world.reaches(one, "169.254.1.1")
        again = await world.kernel.sync(desired)
        assert (again.changed, again.ready, again.routed) == (0, report.ready, report.routed)
        other = world.new_kernel()
        assert (await other.sync(desired)).changed == 0, "marks in the kernel are memory enough"

    play(body)


def test_an_attach_equals_a_sync(play: Play) -> None:
    async def body(world: Any) -> None:
        one, two = world.netns("a"), world.netns("b")
        a, b = endpoint("a.h", one, "10.65.0.1"), endpoint("b.h", two, "10.65.0.2")
        await world.kernel.attach(a)
        await world.kernel.attach(b)
        await world.kernel.sync(HostState(sweep=False))  # forwarding
        assert world.reaches(one, "10.65.0.2")
        assert (await world.kernel.sync(state(a, b))).changed == 0

    play(body)


def test_an_attach_of_what_is_there_leaves_it_and_mends_it(play: Play) -> None:
    async def body(world: Any) -> None:
        one = world.netns("a")
        a = endpoint("a.h", one, "10.65.0.1")
        await world.kernel.sync(state(a))
        again = world.new_kernel()
        await again.attach(a)
        assert (await again.sync(state(a))).changed == 0
        world.delete_route("10.65.0.1/32")
        await again.attach(a)
        assert (await again.sync(state(a))).changed == 0

    play(body)


DAMAGE: dict[str, Callable[[Any, str], None]] = {
    "host route": lambda w, n: w.delete_route("10.65.0.1/32"),
    "gateway address": lambda w, n: w.delete_gateway("a.h"),
    "neighbour": lambda w, n: w.delete_neighbour("a.h", "10.65.0.1"),
    "link deleted": lambda w, n: w.delete_link("a.h"),
    "link down": lambda w, n: w.link_down("a.h"),
    "inner link down": lambda w, n: w.inner_link_down(n),
    "inner address": lambda w, n: w.inner_address_gone(n, "10.65.0.1"),
    "inner routes": lambda w, n: w.inner_routes_gone(n),
    "blackhole": lambda w, n: w.delete_blackhole(str(BLOCK)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_wakes_the_watcher_and_a_sync_mends_it(play: Play, damage: str) -> None:
    async def body(world: Any) -> None:
        one, two = world.netns("a"), world.netns("b")
        a, b = endpoint("a.h", one, "10.65.0.1"), endpoint("b.h", two, "10.65.0.2")
        desired = state(a, b, blackholes=frozenset([BLOCK]))
        kernel = world.kernel
        await kernel.sync(desired)
        woken = await quiet_watcher(kernel, desired, 5)
        DAMAGE[damage](world, one)
        await asyncio.wait_for(anext(woken), 1)
        report = await kernel.sync(desired)
        assert report.changed > 0
        assert set(report.ready) == {"a.h", "b.h"}
        assert report.routed == {BLOCK}
        assert world.reaches(two, "10.65.0.1")
        assert world.reaches(one, "10.65.0.2")
        assert has_route(world, str(BLOCK))
        assert (await kernel.sync(desired)).changed == 0

    play(body)


def test_a_namespace_that_vanishes_is_lost_and_nothing_of_it_stays(play: Play) -> None:
    async def body(world: Any) -> None:
        one = world.netns("a")
        a = endpoint("a.h", one, "10.65.0.1")
        await world.kernel.sync(state(a))
        world.delete_netns(one)
        await until(lambda: host_interface_name("a.h") not in world.links())
        report = await world.kernel.sync(state(a))
        assert report.lost == {"a.h"}
        assert not report.ready
        assert not has_route(world, "10.65.0.1/32")

    play(body)


def test_another_namespace_of_the_same_path_is_not_the_one_attached(play: Play) -> None:
    async def body(world: Any) -> None:
        one = world.netns("a")
        seen = world.kernel.check_netns(one)
        a = Endpoint("a.h", "eth0", (ip_address("10.65.0.1"),), seen.path, netns_id=(4, 1))
        assert (await world.kernel.sync(state(a))).lost == {"a.h"}
        with pytest.raises(ApplyError):
            await world.kernel.attach(a)
        assert world.inner_links(one) == {"lo"}
        assert host_interface_name("a.h") not in world.links()

    play(body)


def test_what_nobody_wants_is_swept_only_when_told(play: Play) -> None:
    async def body(world: Any) -> None:
        one = world.netns("a")
        await world.kernel.sync(
            state(endpoint("a.h", one, "10.65.0.1"), blackholes=frozenset([BLOCK]))
        )
        await world.kernel.sync(HostState(sweep=False))
        assert world.reaches(one, "169.254.1.1")
        assert has_route(world, str(BLOCK))
        assert (await world.kernel.sync(HostState(sweep=True))).changed > 0
        assert not has_route(world, "10.65.0.1/32")
        assert not has_route(world, str(BLOCK))
        await until(lambda: host_interface_name("a.h") not in world.links())

    play(body)


def test_an_address_may_move_to_another_workload_in_one_sync(play: Play) -> None:
    async def body(world: Any) -> None:
        one, two = world.netns("a"), world.netns("b")
        await world.kernel.sync(state(endpoint("a.h", one, "10.65.0.1")))
        b = endpoint("b.h", two, "10.65.0.1")
        report = await world.kernel.sync(state(b))
        assert report.ready == {"b.h": b.addresses}
        assert not report.failed
        assert world.reaches(two, "169.254.1.1")

    play(body)


def test_detach_removes_the_route_at_once_and_the_link_soon(play: Play) -> None:
    async def body(world: Any) -> None:
        one = world.netns("a")
        a = endpoint("a.h", one, "10.65.0.1")
        await world.kernel.attach(a)
        await world.kernel.detach(["a.h", "never-there.h"])
        assert not has_route(world, "10.65.0.1/32")
        await until(lambda: host_interface_name("a.h") not in world.links())
        assert world.inner_links(one) == {"lo"}
        await world.kernel.attach(a)
        assert world.reaches(one, "169.254.1.1")

    play(body)


def test_foreign_routes_are_never_replaced_and_the_clash_is_reported(play: Play) -> None:
    async def body(world: Any) -> None:
        one, two = world.netns("a"), world.netns("b")
        prefix = ip_network("10.66.0.0/26")
        world.foreign_route("10.65.0.1/32")
        world.foreign_route(str(prefix), 512)
        world.foreign_route("default")
        before = world.foreign()
        a, b = endpoint("a.h", one, "10.65.0.1"), endpoint("b.h", two, "10.65.0.2")
        route = LearnedRoute(prefix, (NextHop(ip_address("192.0.2.7")),))
        default = ip_network("0.0.0.0/0")
        other = LearnedRoute(default, (NextHop(ip_address("192.0.2.7")),), 1024)
        report = await world.kernel.sync(state(a, b, learned={prefix: route, default: other}))
        assert set(report.failed) == {"a.h", f"route {prefix}"}
        assert report.failed["a.h"].errno == errno.EEXIST
        assert report.failed[f"route {prefix}"].errno == errno.EEXIST
        assert set(report.ready) == {"b.h"}, "what is independent goes on"
        assert report.routed == {default}, "another metric is no clash"
        await world.kernel.sync(HostState())
        assert world.foreign() == before

    play(body)


def test_learned_routes_follow_and_wait_for_the_end_marker(play: Play) -> None:
    async def body(world: Any) -> None:
        for prefix, hops in (
            (ip_network("10.65.9.9/32"), ("192.0.2.9", "198.51.100.9")),
            (ip_network("10.65.9.64/26"), ("192.0.2.9", "198.51.100.9")),
        ):
            both = tuple(NextHop(ip_address(a)) for a in hops)
            desired = HostState(learned={prefix: LearnedRoute(prefix, both)})
            assert (await world.kernel.sync(desired)).routed == {prefix}
            assert (await world.kernel.sync(desired)).changed == 0
            one = HostState(learned={prefix: LearnedRoute(prefix, both[1:])})
            assert (await world.kernel.sync(one)).changed == 1
            assert (await world.kernel.sync(one)).changed == 0
            await world.kernel.sync(HostState(sweep_learned=False))
            assert has_route(world, str(prefix))
            await world.kernel.sync(HostState())
            assert not has_route(world, str(prefix))

    play(body)


def test_a_failed_attach_leaves_nothing(play: Play) -> None:
    async def body(world: Any) -> None:
        one = world.netns("a")
        world.foreign_inner_link(one, "eth0")
        with pytest.raises(Conflict, match="eth0") as caught:
            await world.kernel.attach(endpoint("a.h", one, "10.65.0.1"))
        assert caught.value.causes[0].field == "spec.ifName"
        with pytest.raises(ApplyError):
            await world.kernel.attach(endpoint("b.h", "no-such-namespace", "10.65.0.2"))
        world.foreign_route("10.65.0.3/32")
        clash = Endpoint("c.h", "eth1", (ip_address("10.65.0.3"),), f"/run/netns/{one}")
        with pytest.raises(ApplyError) as refused:
            await world.kernel.attach(clash)
        assert refused.value.errno == errno.EEXIST
        assert not [name for name in world.links() if name.startswith("rt")]
        assert world.inner_links(one) == {"lo", "eth0"}

    play(body)


def test_a_block_of_one_address_keeps_its_blackhole_beside_the_host_route(play: Play) -> None:
    async def body(world: Any) -> None:
        one = world.netns("a")
        block = frozenset([ip_network("10.65.0.1/32"), ip_network("fd00::1/128")])
        await world.kernel.sync(HostState(blackholes=block))
        a = endpoint("a.h", one, "10.65.0.1", "fd00::1")
        await world.kernel.attach(a)
        desired = state(a, blackholes=block)
        await world.kernel.sync(desired)  # IPv6 forwarding is wanted only now
        report = await world.kernel.sync(desired)
        assert (report.changed, report.failed, report.routed) == (0, {}, block)
        assert world.reaches(one, "169.254.1.1")
        assert (await world.kernel.sync(HostState(blackholes=block))).routed == block

    play(body)


def test_the_hand_over_form_leaves_the_inner_end_for_the_runtime(play: Play) -> None:
    async def body(world: Any) -> None:
        a = Endpoint("a.h", "rtp0123456789", (ip_address("10.65.0.1"),), None)
        await world.kernel.attach(a)
        assert {"rtp0123456789", a.host_interface} <= world.links()
        assert has_route(world, "10.65.0.1/32")
        assert (await world.kernel.sync(state(a))).ready == {"a.h": a.addresses}
        await world.kernel.detach(["a.h"])
        await until(lambda: not [name for name in world.links() if name.startswith("rt")])

    play(body)


def test_a_namespace_is_checked_before_it_is_used(play: Play) -> None:
    async def body(world: Any) -> None:
        one = world.netns("a")
        seen = world.kernel.check_netns(one)
        assert seen.path == f"/run/netns/{one}"
        assert world.kernel.check_netns(seen.path) == seen
        with pytest.raises(Invalid) as caught:
            world.kernel.check_netns("no-such-namespace")
        assert caught.value.causes[0].field == "spec.netns"

    play(body)
