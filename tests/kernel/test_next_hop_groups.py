"""Learned routes over next hop groups, against the real kernel, each in a namespace of its own."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from support.kernels import RealWorld, quiet_watcher, until
from support.netns import run

from routed.kernel import learned, observe
from routed.kernel import messages as m
from routed.kernel.netlink import Netlink
from routed.state import GROUP_IDS, NEXT_HOP_IDS, HostState, LearnedRoute, NextHop

pytestmark = pytest.mark.root

HOPS = NextHop(ip_address("192.0.2.9")), NextHop(ip_address("198.51.100.9"))
SIX = NextHop(ip_address("2001:db8:1::9")), NextHop(ip_address("2001:db8:2::9"))
FOUR_WAYS = {("192.0.2.9", "up0"), ("198.51.100.9", "up1")}
SIX_WAYS = {("2001:db8:1::9", "up0"), ("2001:db8:2::9", "up1")}
MANY = 2 * learned.BULK


def desired(count: int, hops: tuple[NextHop, ...], **more: Any) -> HostState:
    prefixes = (ip_network(f"10.66.{n // 250}.{n % 250}/32") for n in range(count))
    return HostState(learned={one: LearnedRoute(one, hops) for one in prefixes}, **more)


def objects() -> str:
    return run("ip", "nexthop", "show", "proto", "82")


def played(body: Callable[[Any], Awaitable[None]]) -> None:
    RealWorld.play(body)


def test_a_gateway_that_all_routes_lose_is_one_change() -> None:
    async def body(world: Any) -> None:
        await world.kernel.sync(desired(50, HOPS))
        assert (await world.kernel.sync(desired(50, HOPS[:1]))).changed == 1
        assert world.hops("10.66.0.7") == {("192.0.2.9", "up0")}
        again = await world.kernel.sync(desired(50, HOPS))
        assert again.changed == 2, "its next hop, and the group"
        assert world.hops("10.66.0.7") == FOUR_WAYS

    played(body)


def test_a_group_without_routes_goes_and_takes_along_what_nobody_wants() -> None:
    async def body(world: Any) -> None:
        await world.kernel.sync(desired(50, HOPS))
        report = await world.kernel.sync(HostState())
        assert (report.failed, report.changed) == ({}, 3), "two next hops and a group"
        assert not objects()
        assert not run("ip", "route", "show", "proto", "82")

    played(body)


@pytest.mark.parametrize("state", [HostState(sweep=False), HostState(sweep_learned=False)])
def test_what_nobody_uses_is_swept_only_when_told(state: HostState) -> None:
    async def body(world: Any) -> None:
        orphan = ("id", str(NEXT_HOP_IDS[7]), "via", "192.0.2.8", "dev", "up0", "proto", "82")
        run("ip", "nexthop", "add", *orphan)
        await world.kernel.sync(desired(3, HOPS, sweep_learned=False))
        before = objects()
        assert str(NEXT_HOP_IDS[7]) in before
        assert (await world.kernel.sync(state)).changed == 0
        assert objects() == before
        assert world.hops("10.66.0.1") == FOUR_WAYS
        await world.kernel.sync(HostState())
        assert not objects()

    played(body)


def test_what_an_older_agent_has_left_is_taken_over() -> None:
    """Routes that name their gateways themselves, of our protocol and metric."""

    async def body(world: Any) -> None:
        four = ("nexthop", "via", "192.0.2.9", "nexthop", "via", "198.51.100.9")
        six = ("nexthop", "via", "2001:db8:1::9", "nexthop", "via", "2001:db8:2::9")
        ours = ("proto", "82", "metric", "512")
        run("ip", "route", "add", "10.66.0.0/32", *ours, *four)
        run("ip", "route", "add", "10.66.9.9/32", *ours, "via", "192.0.2.9")
        run("ip", "-6", "route", "add", "fd00:65::9/128", *ours, *six)
        prefix = ip_network("fd00:65::9/128")
        state = desired(1, HOPS)
        state.learned[prefix] = LearnedRoute(prefix, SIX)
        report = await world.kernel.sync(state)
        assert (report.failed, report.routed) == ({}, set(state.learned))
        assert world.hops("10.66.0.0") == FOUR_WAYS
        assert world.hops("fd00:65::9") == SIX_WAYS
        assert not world.hops("10.66.9.9")
        for family in ("-4", "-6"):
            shown = run("ip", family, "route", "show", "proto", "82").splitlines()
            assert sum("nhid" in line for line in shown) == 1
        assert (await world.kernel.sync(state)).changed == 0

    played(body)


TAMPERING = {
    "a member less": f"ip nexthop replace id {GROUP_IDS[0]} group {NEXT_HOP_IDS[0]} proto 82",
    "other weights": f"ip nexthop replace id {GROUP_IDS[0]} group "
    f"{NEXT_HOP_IDS[0]},9/{NEXT_HOP_IDS[1]} proto 82",
    "a foreign member": f"ip nexthop replace id {GROUP_IDS[0]} group {NEXT_HOP_IDS[0]}/7 proto 82",
    "a next hop deleted": f"ip nexthop del id {NEXT_HOP_IDS[1]}",
    "the group deleted": f"ip nexthop del id {GROUP_IDS[0]}",
    "another gateway": f"ip nexthop replace id {NEXT_HOP_IDS[1]} via 198.51.100.8 dev up1 proto 82",
    "a route over a foreign next hop": "ip route replace 10.66.0.1/32 nhid 7 proto 82 metric 512",
}


@pytest.mark.parametrize("deed", TAMPERING)
def test_what_somebody_changes_is_noticed_and_put_right(deed: str) -> None:
    async def body(world: Any) -> None:
        kernel, state = world.kernel, desired(3, HOPS)
        world.foreign_next_hop(7)
        await kernel.sync(state)
        woken = await quiet_watcher(kernel, state, 1)
        run(*TAMPERING[deed].split())
        await asyncio.wait_for(anext(woken), 1)
        report = await kernel.sync(state)
        assert (report.failed, report.routed) == ({}, set(state.learned))
        assert report.changed > 0
        for place in range(3):
            assert world.hops(f"10.66.0.{place}") == FOUR_WAYS
        shown = run("ip", "nexthop", "show", "id", str(GROUP_IDS[0]))
        assert "," not in shown, "no weights"
        assert (await kernel.sync(state)).changed == 0

    played(body)


def test_ipv4_may_go_by_an_ipv6_gateway() -> None:
    async def body(world: Any) -> None:
        state = desired(2, SIX)
        assert not (await world.kernel.sync(state)).failed
        assert run("ip", "route", "show", "10.66.0.1").count("via inet6") == 2
        assert (await world.kernel.sync(state)).changed == 0
        await world.kernel.sync(HostState())
        assert not objects()

    played(body)


def test_many_are_changed_without_hearing_of_each() -> None:
    async def body(world: Any) -> None:
        kernel = world.kernel
        for hops in (HOPS, HOPS[:1], HOPS, HOPS[1:]):
            state = desired(MANY, hops)
            report = await kernel.sync(state)
            assert (report.failed, report.routed) == ({}, set(state.learned))
            assert (await kernel.sync(state)).changed == 0
            assert kernel.overflows == 0
        world.delete_route("10.66.0.7/32")
        async with asyncio.timeout(1):
            async for _ in kernel.watch():
                if (await kernel.sync(state)).changed:
                    break
        await kernel.sync(desired(1, HOPS))
        assert len(run("ip", "route", "show", "proto", "82").splitlines()) == 3

    played(body)


def test_many_refusals_are_told_one_by_one() -> None:
    async def body(world: Any) -> None:
        batch = "".join(
            f"route add 10.66.{n // 250}.{n % 250}/32 via 192.0.2.8 metric 512\n"
            for n in range(MANY)
        )
        run("ip", "-batch", "-", input=batch)
        state = desired(MANY + 1, HOPS)
        report = await world.kernel.sync(state)
        assert len(report.failed) == MANY
        assert {error.errno for error in report.failed.values()} == {errno.EEXIST}
        assert len(report.routed) == 1
        assert (await world.kernel.sync(state)).changed == 0

    played(body)


def test_a_group_that_goes_meanwhile_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(world: Any) -> None:
        whole = learned.Learned._foreign_twins

        def gone_by_now(one: learned.Learned) -> Any:
            world.flush_next_hops()
            return whole(one)

        state = desired(5, HOPS)
        prefix = ip_network("10.66.0.0/32")
        run(
            "ip", "route", "add", str(prefix), *["proto", "82", "metric", "512", "via", "192.0.2.9"]
        )
        with monkeypatch.context() as patched:
            patched.setattr(learned.Learned, "_foreign_twins", gone_by_now)
            report = await world.kernel.sync(state)
        assert set(report.failed) == {f"next hop group {GROUP_IDS[0]}"}
        assert not report.routed
        report = await world.kernel.sync(state)
        assert (report.failed, report.routed) == ({}, set(state.learned))

    played(body)


def test_a_route_that_would_have_to_replace_beside_a_foreign_one_is_refused() -> None:
    async def body(world: Any) -> None:
        state = desired(3, HOPS)
        await world.kernel.sync(state)
        run("ip", "route", "append", "10.66.0.1/32", "via", "192.0.2.8", "metric", "512")
        one = LearnedRoute(ip_network("10.66.0.1/32"), HOPS[:1])
        report = await world.kernel.sync(HostState(learned={**state.learned, one.prefix: one}))
        assert set(report.failed) == {"route 10.66.0.1/32"}
        assert "via 192.0.2.8 dev up0 metric 512" in run("ip", "route", "show", "10.66.0.1")
        assert world.hops("10.66.0.0") == FOUR_WAYS

    played(body)


def test_a_kernel_without_next_hop_objects_keeps_everything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As before Linux 5.3: the request is not known."""

    async def body(world: Any) -> None:
        monkeypatch.setattr(m, "RTM_NEWNEXTHOP", 200)
        monkeypatch.setattr(m, "RTM_GETNEXTHOP", 202)
        block = ip_network("10.65.0.0/26")
        report = await world.kernel.sync(desired(2, HOPS, blackholes=frozenset([block])))
        assert set(report.failed) == {f"next hop {hop}" for hop in HOPS}
        assert {error.errno for error in report.failed.values()} == {errno.EOPNOTSUPP}
        assert report.routed == {block}

    played(body)


def test_the_kernel_lets_both_links_carry_flows_and_ip_shows_them() -> None:
    async def body(world: Any) -> None:
        await world.kernel.sync(desired(60, HOPS))
        with Netlink() as netlink:
            used = {observe.leaving(netlink, ip_address(f"10.66.0.{n}")) for n in range(60)}
        assert len(used) == 2
        assert run("ip", "route", "show", "10.66.0.1").count("nexthop via") == 2
        assert "via" in run("ip", "route", "get", "10.66.0.1")

    played(body)


def test_a_flapping_link_ends_with_both() -> None:
    async def body(world: Any) -> None:
        state = desired(3, HOPS)
        kernel = world.kernel
        await kernel.sync(state)

        async def keep() -> None:
            async for _ in kernel.watch():
                await kernel.sync(state)

        keeping = asyncio.create_task(keep())
        for _ in range(5):
            for name in ("up0", "up1"):
                world.carrier(name, on=False)
            for name in ("up0", "up1"):
                world.carrier(name, on=True)
        await until(lambda: world.hops("10.66.0.1") == FOUR_WAYS, 2)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    played(body)
