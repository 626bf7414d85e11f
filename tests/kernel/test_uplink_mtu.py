"""The MTU that workloads get: of all links that lead off, as it is now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from support.netns import in_fresh_namespace, run

from routed.kernel.linux import LinuxKernel
from routed.state import Endpoint, HostState, LearnedRoute, Limits, NextHop

pytestmark = pytest.mark.root
DEFAULT = ip_network("0.0.0.0/0")
NOTHING = HostState()


def link(name: str, address: str, mtu: int) -> None:
    run("ip", "link", "add", name, "mtu", str(mtu), "type", "veth", "peer", "name", f"{name}p")
    for one in (name, f"{name}p"):
        run("ip", "link", "set", one, "up")
    run("ip", "addr", "add", address, "dev", name)


def host() -> None:
    link("up0", "172.31.1.1/24", 9000)
    link("up1", "172.31.2.1/24", 8000)
    link("mgmt0", "172.30.0.1/24", 1400)
    run("ip", "link", "set", "mgmt0p", "mtu", "1400")


async def settled(kernel: LinuxKernel, desired: HostState, expected: int) -> None:
    """It becomes so by itself, as events wake the agent."""
    async with asyncio.timeout(10):
        async for _ in kernel.watch():
            await kernel.sync(desired)
            if kernel.uplink_mtu() == expected:
                return


def test_links_of_all_learned_next_hops_count_and_others_do_not() -> None:
    async def body() -> None:
        host()
        kernel = LinuxKernel()
        both = (NextHop(ip_address("172.31.1.7")), NextHop(ip_address("172.31.2.7")))
        desired = HostState(
            learned={DEFAULT: LearnedRoute(DEFAULT, both)}, sweep=True, sweep_learned=True
        )
        await kernel.sync(desired)
        assert kernel.uplink_mtu() == 8000
        run("ip", "link", "set", "up1", "mtu", "7000")
        await settled(kernel, desired, 7000)
        run("ip", "link", "set", "up1", "mtu", "9500")
        await settled(kernel, desired, 9000)
        run("ip", "link", "set", "up0", "mtu", "1500")
        await settled(kernel, desired, 1500)
        await kernel.close()

    in_fresh_namespace(body)


def test_every_way_of_somebody_elses_default_route_counts() -> None:
    async def body() -> None:
        host()
        hops = [word for gateway in ("172.31.1.7", "172.31.2.7")
                for word in ("nexthop", "via", gateway)]  # fmt: skip
        run("ip", "route", "add", "default", *hops)
        kernel = LinuxKernel()
        await kernel.sync(NOTHING)
        assert kernel.uplink_mtu() == 8000
        run("ip", "link", "set", "up0", "mtu", "1600")
        await settled(kernel, NOTHING, 1600)
        run("ip", "route", "change", "default", "via", "172.31.2.7")
        await kernel.sync(NOTHING)
        assert kernel.uplink_mtu() == 8000
        await kernel.close()

    in_fresh_namespace(body)


def test_without_any_route_the_limit_of_a_workload_does_not_count(
    namespaces: Callable[[str], str],
) -> None:
    inside = namespaces("a")

    async def body() -> None:
        link("up0", "172.31.1.1/24", 9000)
        run("ip", "link", "set", "up0p", "mtu", "9000")
        one = Endpoint("a.h", "eth0", (ip_address("10.65.0.1"),), f"/run/netns/{inside}", mtu=1300)
        limited = replace(one, limits=Limits(1_000_000, 1_000_000, 1_000_000, 1_000_000))
        kernel = LinuxKernel()
        await kernel.attach(limited)
        await kernel.sync(HostState(endpoints={"a.h": limited}))
        assert kernel.uplink_mtu() == 9000
        await kernel.close()

    in_fresh_namespace(body)


def test_without_any_route_bridges_of_containers_do_not_count() -> None:
    async def body() -> None:
        link("up0", "172.31.1.1/24", 9000)
        run("ip", "link", "add", "docker0", "mtu", "1500", "type", "bridge")
        run("ip", "link", "set", "docker0", "up")
        run("ip", "link", "set", "up0p", "mtu", "9000")
        kernel = LinuxKernel()
        await kernel.sync(NOTHING)
        assert kernel.uplink_mtu() == 9000
        await kernel.close()

    in_fresh_namespace(body)
