"""What callers of `Kernel` may rely on for learned routes, with the fake and the real one alike."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from support.kernels import FakeWorld, RealWorld, quiet_watcher, until

from routed.state import GROUP_IDS, NEXT_HOP_IDS, HostState, LearnedRoute, NextHop

Play = Callable[[Callable[[Any], Awaitable[None]]], None]
FOUR = ("192.0.2.9", "up0"), ("198.51.100.9", "up1")
SIX = ("2001:db8:1::9", "up0"), ("2001:db8:2::9", "up1")
MIXED = FOUR[0], SIX[1]
# the third and fourth: IPv4 over IPv6 gateways (RFC 8950), as a switch each may have it
BOTH = [
    ("10.65.9.9/32", FOUR),
    ("fd00:65::9/128", SIX),
    ("10.65.9.9/32", SIX),
    ("10.65.9.9/32", MIXED),
]


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
def play(request: pytest.FixtureRequest) -> Play:
    return FakeWorld.play if request.param == "fake" else RealWorld.play


def over(prefix: str, *gateways: str, metric: int = 512) -> LearnedRoute:
    hops = tuple(NextHop(ip_address(gateway)) for gateway in gateways)
    return LearnedRoute(ip_network(prefix), hops, metric)


def state(*routes: LearnedRoute, **more: Any) -> HostState:
    return HostState(learned={route.prefix: route for route in routes}, **more)


@pytest.mark.parametrize(("prefix", "ways"), BOTH)
def test_a_new_driver_recognises_the_routes_and_changes_nothing(
    play: Play, prefix: str, ways: Any
) -> None:
    async def body(world: Any) -> None:
        gateways = [gateway for gateway, _ in ways]
        desired = state(over(prefix, *gateways), over("10.65.9.0/26", "192.0.2.9"))
        report = await world.kernel.sync(desired)
        assert report.routed == set(desired.learned)
        assert world.hops(prefix) == set(ways)
        for kernel in (world.kernel, world.new_kernel()):
            again = await kernel.sync(desired)
            assert (again.changed, again.failed, again.routed) == (0, {}, report.routed)

    play(body)


@pytest.mark.parametrize(("prefix", "ways"), BOTH)
def test_a_link_without_carrier_is_left_at_once_and_taken_up_again(
    play: Play, prefix: str, ways: Any
) -> None:
    async def body(world: Any) -> None:
        desired = state(over(prefix, *(gateway for gateway, _ in ways)))
        kernel = world.kernel
        await kernel.sync(desired)
        world.carrier("up1", on=False)
        await until(lambda: world.hops(prefix) == {ways[0]}, 5)
        report = await kernel.sync(desired)
        assert (report.changed, report.failed, report.routed) == (0, {}, set(desired.learned))
        woken = aiter(kernel.watch())
        await asyncio.wait_for(anext(woken), 5)
        world.carrier("up1", on=True)
        while world.hops(prefix) != set(ways):
            await asyncio.wait_for(anext(woken), 5)
            await kernel.sync(desired)
        assert (await kernel.sync(desired)).changed == 0

    play(body)


@pytest.mark.parametrize(("prefix", "ways"), BOTH)
def test_routes_that_went_with_the_last_carrier_come_back_with_the_first(
    play: Play, prefix: str, ways: Any
) -> None:
    async def body(world: Any) -> None:
        desired = state(over(prefix, *(gateway for gateway, _ in ways)))
        kernel = world.kernel
        await kernel.sync(desired)
        for _, name in ways:
            world.carrier(name, on=False)
        await until(lambda: not world.hops(prefix), 5)
        report = await kernel.sync(desired)
        assert not report.routed
        assert {key: error.errno for key, error in report.failed.items()} == {
            f"next hop {gateway}": errno.ENETDOWN for gateway, _ in ways
        }
        woken = aiter(kernel.watch())
        await asyncio.wait_for(anext(woken), 5)
        for place, (_, name) in enumerate(reversed(ways)):
            world.carrier(name, on=True)
            while world.hops(prefix) != set(ways[1 - place :]):
                await asyncio.wait_for(anext(woken), 5)
                report = await kernel.sync(desired)
            assert not report.failed
        assert report.routed == set(desired.learned)

    play(body)


def test_a_link_set_down_is_left_and_said_to_be_unusable(play: Play) -> None:
    async def body(world: Any) -> None:
        desired = state(over("10.65.9.9/32", "192.0.2.9", "198.51.100.9"))
        await world.kernel.sync(desired)
        world.uplink_down("up1")
        await until(lambda: world.hops("10.65.9.9/32") == {FOUR[0]}, 5)
        report = await world.kernel.sync(desired)
        assert set(report.failed) == {"next hop 198.51.100.9"}
        assert report.failed["next hop 198.51.100.9"].errno == errno.ENETUNREACH
        assert report.routed == set(desired.learned)
        world.uplink_up("up1")
        report = await world.kernel.sync(desired)
        assert not report.failed
        assert world.hops("10.65.9.9/32") == set(FOUR)

    play(body)


def test_next_hops_deleted_by_somebody_come_back(play: Play) -> None:
    async def body(world: Any) -> None:
        desired = state(
            over("10.65.9.9/32", "192.0.2.9", "198.51.100.9"),
            over("10.65.9.10/32", "198.51.100.9"),
            over("fd00:65::9/128", "2001:db8:1::9"),
        )
        kernel = world.kernel
        await kernel.sync(desired)
        woken = await quiet_watcher(kernel, desired, 1)
        world.flush_next_hops()
        assert not world.hops("10.65.9.9/32")
        await asyncio.wait_for(anext(woken), 5)
        report = await kernel.sync(desired)
        assert (report.failed, report.routed) == ({}, set(desired.learned))
        assert world.hops("10.65.9.9/32") == set(FOUR)
        assert world.hops("10.65.9.10/32") == {FOUR[1]}
        assert world.hops("fd00:65::9/128") == {SIX[0]}
        assert (await kernel.sync(desired)).changed == 0

    play(body)


def test_foreign_next_hops_are_never_touched_whatever_their_id(play: Play) -> None:
    async def body(world: Any) -> None:
        for number in (7, NEXT_HOP_IDS[0], GROUP_IDS[0]):
            world.foreign_next_hop(number)
        before = world.foreign()
        desired = state(over("10.65.9.9/32", "192.0.2.9", "198.51.100.9"))
        assert not (await world.kernel.sync(desired)).failed
        assert world.hops("10.65.9.9/32") == set(FOUR)
        assert (await world.kernel.sync(desired)).changed == 0
        await world.kernel.sync(HostState())
        assert world.foreign() == before

    play(body)


def test_routes_part_and_meet_again(play: Play) -> None:
    """Routes that shared their next hops get others, each the right ones at any time."""

    async def body(world: Any) -> None:
        names = [f"10.65.9.{n}/32" for n in range(1, 6)]
        both, one, two = ("192.0.2.9", "198.51.100.9"), ("192.0.2.9",), ("198.51.100.9",)
        plans = [
            [both, both, both, both, both],
            [both, one, both, two, both],
            [one, one, one, one, one],
            [two, two, two, two, both],
            [one, two, one, two, one],
            [both, both, both, both, both],
        ]
        for plan in plans:
            desired = state(*(over(n, *hops) for n, hops in zip(names, plan, strict=True)))
            report = await world.kernel.sync(desired)
            assert (report.failed, report.routed) == ({}, set(desired.learned))
            for name, hops in zip(names, plan, strict=True):
                assert {gateway for gateway, _ in world.hops(name)} == set(hops)
            assert (await world.kernel.sync(desired)).changed == 0

    play(body)


def test_a_gateway_that_is_no_neighbour_is_reported_and_tried_again(play: Play) -> None:
    async def body(world: Any) -> None:
        desired = state(
            over("10.65.9.9/32", "192.0.2.9", "203.0.113.9"), over("10.65.9.10/32", "203.0.113.9")
        )
        report = await world.kernel.sync(desired)
        assert set(report.failed) == {"next hop 203.0.113.9"}
        assert report.failed["next hop 203.0.113.9"].transient
        assert report.routed == {ip_network("10.65.9.9/32")}
        assert world.hops("10.65.9.9/32") == {FOUR[0]}
        world.add_address("203.0.113.1/24", "up1")
        report = await world.kernel.sync(desired)
        assert (report.failed, report.routed) == ({}, set(desired.learned))
        assert world.hops("10.65.9.9/32") == {FOUR[0], ("203.0.113.9", "up1")}

    play(body)


def test_a_gateway_that_moves_to_another_link_is_followed(play: Play) -> None:
    async def body(world: Any) -> None:
        desired = state(over("10.65.9.9/32", "192.0.2.9", "198.51.100.9"))
        await world.kernel.sync(desired)
        world.move_address("198.51.100.1/24", "up1", "up0")
        assert not (await world.kernel.sync(desired)).failed
        assert world.hops("10.65.9.9/32") == {FOUR[0], ("198.51.100.9", "up0")}
        assert (await world.kernel.sync(desired)).changed == 0

    play(body)


def test_a_learned_route_to_a_gateway_does_not_hide_the_link_it_is_on(play: Play) -> None:
    async def body(world: Any) -> None:
        desired = state(
            over("10.65.9.9/32", "192.0.2.9", "198.51.100.9"), over("198.51.100.9/32", "192.0.2.9")
        )
        await world.kernel.sync(desired)
        world.carrier("up1", on=False)
        await until(lambda: world.hops("10.65.9.9/32") == {FOUR[0]}, 5)
        world.carrier("up1", on=True)
        await until(lambda: world.has_carrier("up1"), 5)
        report = await world.kernel.sync(desired)
        assert (report.failed, report.routed) == ({}, set(desired.learned))
        assert world.hops("10.65.9.9/32") == set(FOUR)

    play(body)


def test_a_next_hop_may_name_its_link(play: Play) -> None:
    async def body(world: Any) -> None:
        prefix = ip_network("fd00:65::9/128")
        hops = (NextHop(ip_address("fe80::9"), "nosuch0"), NextHop(ip_address("fe80::9"), "up0"))
        report = await world.kernel.sync(state(LearnedRoute(prefix, hops)))
        assert set(report.failed) == {"next hop fe80::9 dev nosuch0"}
        assert report.failed["next hop fe80::9 dev nosuch0"].errno == errno.ENODEV
        assert report.routed == {prefix}
        assert world.hops(str(prefix)) == {("fe80::9", "up0")}

    play(body)


def test_both_families_over_the_same_gateways_share_a_group(play: Play) -> None:
    async def body(world: Any) -> None:
        gateways = [gateway for gateway, _ in SIX]
        desired = state(
            over("10.65.9.9/32", *gateways), over("fd00:65::9/128", *gateways),
            over("0.0.0.0/0", *gateways, metric=1024), over("::/0", *gateways, metric=1024),
        )  # fmt: skip
        report = await world.kernel.sync(desired)
        assert (report.failed, report.routed) == ({}, set(desired.learned))
        for prefix in ("10.65.9.9/32", "fd00:65::9/128"):
            assert world.hops(prefix) == set(SIX)
        less = state(over("10.65.9.9/32", *gateways), over("fd00:65::9/128", gateways[0]))
        assert not (await world.kernel.sync(less)).failed
        assert world.hops("10.65.9.9/32") == set(SIX)
        assert world.hops("fd00:65::9/128") == {SIX[0]}
        assert (await world.new_kernel().sync(less)).changed == 0

    play(body)


def test_an_ipv4_route_over_a_link_local_gateway(play: Play) -> None:
    async def body(world: Any) -> None:
        prefix = ip_network("10.65.9.9/32")
        hops = (NextHop(ip_address("fe80::9"), "up0"), NextHop(ip_address("fe80::9"), "up1"))
        desired = state(LearnedRoute(prefix, hops))
        report = await world.kernel.sync(desired)
        assert (report.failed, report.routed) == ({}, {prefix})
        assert world.hops(str(prefix)) == {("fe80::9", "up0"), ("fe80::9", "up1")}
        assert (await world.new_kernel().sync(desired)).changed == 0

    play(body)


def test_before_the_end_marker_what_is_not_desired_stays_as_it_is(play: Play) -> None:
    async def body(world: Any) -> None:
        names = [f"10.65.9.{n}/32" for n in range(1, 4)]
        both = ("192.0.2.9", "198.51.100.9")
        await world.kernel.sync(state(*(over(name, *both) for name in names)))
        known = state(over(names[0], both[0]), sweep_learned=False)
        report = await world.kernel.sync(known)
        assert report.routed == {ip_network(names[0])}
        assert world.hops(names[0]) == {FOUR[0]}
        for name in names[1:]:
            assert world.hops(name) == set(FOUR)
        assert (await world.kernel.sync(known)).changed == 0
        await world.kernel.sync(state(over(names[0], both[0])))
        assert not world.hops(names[1])

    play(body)
