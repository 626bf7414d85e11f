"""A receive buffer that overflows: noticed, counted, and a full read takes the events' place."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from support.netns import in_fresh_namespace, run

from routed.kernel import linux
from routed.kernel.monitor import Monitor
from routed.state import Endpoint, HostState

pytestmark = pytest.mark.root

EVENTS = 10_000


def test_lost_events_are_made_up_for(
    namespaces: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = namespaces("a")
    monkeypatch.setattr(linux, "Monitor", lambda: Monitor(receive_buffer=4096))

    async def body() -> None:
        kernel = linux.LinuxKernel()
        end = Endpoint("a.h", "eth0", (ip_address("10.65.0.1"),), f"/run/netns/{one}")
        desired = HostState(endpoints={"a.h": end})
        await kernel.sync(desired)

        async def keep() -> None:
            async for _ in kernel.watch():
                await kernel.sync(desired)

        keeping = asyncio.create_task(keep())
        run("ip", "link", "add", "noise", "type", "bridge")
        run("ip", "link", "set", "noise", "up")
        batch = "".join(
            f"route {verb} 198.18.{n // 250}.{n % 250}/32 dev noise\n"
            for n in range(EVENTS // 2)
            for verb in ("add", "del")
        )
        shout = asyncio.create_task(
            asyncio.to_thread(
                subprocess.run, ["ip", "-batch", "-"], input=batch, text=True, check=True
            )
        )
        run("ip", "route", "del", "10.65.0.1/32")
        await shout
        subprocess.run(["ip", "route", "del", "10.65.0.1/32"], check=False, capture_output=True)
        async with asyncio.timeout(5):
            while "10.65.0.1 dev" not in run("ip", "route"):
                await asyncio.sleep(0.02)
        assert kernel.overflows > 0
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await kernel.close()

    in_fresh_namespace(body)
