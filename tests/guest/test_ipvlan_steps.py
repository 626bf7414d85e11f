"""An agent that dies at each step of an ipvlan attach, which the next one mends; indexes taken."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from support.kernels import RealWorld, endpoint

from api.resources.workload import Mode
from routed.state import HostState
from routed.steps import Point

DIES = """
import asyncio, os
from ipaddress import ip_address
from api.resources.workload import Mode
from routed import steps
from routed.kernel.linux import LinuxKernel
from routed.state import Endpoint

def observer(point):
    if point is steps.Point.{point}:
        os._exit(9)

async def main():
    await LinuxKernel().attach(Endpoint(
        "a.h", "eth0", (ip_address("10.65.0.1"),), "/run/netns/{netns}",
        mode=Mode.IPVLAN_L3S, parent="up0"))

steps.observer = observer
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("point", "way"),
    [
        (Point.LINK_MADE, "sync"),
        (Point.LINK_MADE, "attach"),
        (Point.INSIDE_DONE, "sync"),
        (Point.HOST_SIDE_DONE, "sync"),
    ],
)
def test_killed_at(point: Point, way: str) -> None:
    async def body(world: RealWorld) -> None:
        one, two = world.netns("a"), world.netns("b")
        code = DIES.format(point=point.name, netns=one)
        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
        assert done.returncode == 9, done.stderr
        ends = [
            replace(endpoint(name, netns, address), mode=Mode.IPVLAN_L3S, parent="up0")
            for name, netns, address in (("a.h", one, "10.65.0.1"), ("b.h", two, "10.65.0.2"))
        ]
        desired = HostState(endpoints={each.workload: each for each in ends})
        if way == "attach":
            await world.kernel.attach(ends[0])
        report = await world.kernel.sync(desired)
        assert set(report.ready) == {"a.h", "b.h"}, report.failed
        assert world.inner_links(one) == {"lo", "eth0"}
        assert world.reaches(two, "10.65.0.1")
        assert world.host_reaches("10.65.0.1")
        assert (await world.kernel.sync(desired)).changed == 0

    RealWorld.play(body)


@pytest.mark.parametrize("mode", [Mode.VETH, Mode.IPVLAN_L3S])
def test_an_index_that_somebody_has_is_passed_over(mode: Mode) -> None:
    async def body(world: RealWorld) -> None:
        one, other = world.netns("a"), world.netns("b")
        first, second = world.kernel, world.new_kernel()  # which both begin at the same index
        parent = "up0" if mode is Mode.IPVLAN_L3S else ""
        a = replace(endpoint("a.h", one, "10.65.0.1"), mode=mode, parent=parent)
        b = replace(endpoint("b.h", other, "10.65.0.2"), mode=mode, parent=parent)
        await second.attach(a)
        await first.attach(b)
        report = await first.sync(HostState(endpoints={a.workload: a, b.workload: b}))
        assert len(report.ready) == 2, report.failed
        assert world.reaches(one, "10.65.0.2")
        await first.close()

    RealWorld.play(body)
