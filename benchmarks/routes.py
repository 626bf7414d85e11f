"""What many learned routes take: installed, read back and compared, and led another way.

A host namespace has two uplinks, and every route two gateways, one behind each. Our kernel driver,
`floor/routes` (the same asked in C) and `ip -batch` install the same routes in turn, and what they
leave is compared in the run (`ip -j route`). Then the driver syncs again with nothing to change,
beside a dump in C; its memory is the peak of a process of its own that has seen no other sync.

Failover: a sync that wants one gateway less, until the kernel tells that the group has lost it
(heard by a process of its own); and a link whose far end goes down, until the first packet leaves
by the other: there the kernel needs nobody.

    sudo -E python benchmarks/routes.py [--rounds 9] [--routes 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

from figures import figure, say
from programs import Compiled, command, own_network
from uplinks import UPLINKS, child, hearing_of_one_member, lose_a_carrier, uplinks

from routed.kernel.linux import LinuxKernel
from routed.state import (
    GROUP_IDS,
    LEARNED_METRIC,
    NEXT_HOP_IDS,
    ROUTE_PROTOCOL,
    HostState,
    LearnedRoute,
    NextHop,
)

FIRST = IPv4Address("10.128.0.0")


def clear() -> None:
    words = ["ip", "nexthop", "flush", "proto", str(ROUTE_PROTOCOL)]
    subprocess.run(words, capture_output=True, check=False)  # groups go before their turn
    assert not command("ip", "route", "show", "proto", str(ROUTE_PROTOCOL))


class Floor(Compiled):
    """The C program, in this namespace."""

    def __init__(self, directory: Path) -> None:
        super().__init__("routes", directory)

    def timed(self, line: str, count: int) -> float:
        """Seconds."""
        said = self.ask(line).split()
        if said[0] == "error" or int(said[1]) != count:
            raise RuntimeError(f"the floor failed: {said}")
        return int(said[0]) / 1e9

    def install(self, count: int) -> float:
        words = [f"install {count} {FIRST} {GROUP_IDS[0]}"]
        for place, (name, _, gateway) in enumerate(UPLINKS):
            words.append(f"{NEXT_HOP_IDS[place]} {gateway} {socket.if_nametoindex(name)}")
        return self.timed(" ".join(words), count)

    def dump(self, count: int) -> float:
        return self.timed("dump", count)


def ip_batch(path: Path, count: int) -> None:
    ends = f"proto {ROUTE_PROTOCOL}"
    lines = [
        f"nexthop add id {NEXT_HOP_IDS[place]} via {gateway} dev {name} {ends}"
        for place, (name, _, gateway) in enumerate(UPLINKS)
    ]
    lines.append(f"nexthop add id {GROUP_IDS[0]} group {NEXT_HOP_IDS[0]}/{NEXT_HOP_IDS[1]} {ends}")
    ends += f" metric {LEARNED_METRIC}"
    lines += [f"route add {FIRST + n}/32 nhid {GROUP_IDS[0]} {ends}" for n in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def desired(count: int, hops: tuple[NextHop, ...]) -> HostState:
    routes = (LearnedRoute(IPv4Network((int(FIRST) + n, 32)), hops) for n in range(count))
    return HostState(learned={route.prefix: route for route in routes}, manage_sysctls=False)


@dataclass
class Times:
    """Seconds, one of each a round."""

    found: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        self.found.setdefault(name, []).append(seconds)

    def p50(self, name: str) -> float:
        return statistics.median(self.found[name])


async def with_kernel(body: Callable[[LinuxKernel], Awaitable[float]]) -> float:
    """A driver hears of the routes that somebody else installs, so there is none at that time."""
    kernel = LinuxKernel()
    gc.collect()
    try:
        return await body(kernel)
    finally:
        await kernel.close()


async def synced(kernel: LinuxKernel, state: HostState, changes: bool) -> float:
    """Seconds of a sync that must succeed."""
    began = time.perf_counter()
    report = await kernel.sync(state)
    took = time.perf_counter() - began
    assert not report.failed, report.failed
    assert len(report.routed) == len(state.learned)
    assert bool(report.changed) == changes, report.changed
    return took


def peak_memory(state: HostState) -> float:
    """MiB that a sync with nothing to change takes at its peak, in a new process."""

    def body() -> str:
        async def measure() -> int:
            kernel = LinuxKernel()
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
            before = status("VmRSS")
            assert not (await kernel.sync(state)).changed
            return status("VmHWM") - before

        return str(asyncio.run(measure()))

    with child(body) as answer:
        return int(answer()) / 1024


def status(name: str) -> int:
    """KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


async def lose_a_gateway(
    kernel: LinuxKernel, both: HostState, one: HostState
) -> tuple[float, float]:
    """Seconds of a sync until the failed next hop is not used any more, and as a whole."""
    await synced(kernel, both, changes=True)
    with hearing_of_one_member() as heard:
        gc.collect()  # also takes the pages that are shared with the process just forked
        began = time.monotonic_ns()
        whole = await synced(kernel, one, changes=True)
        return (heard() - began) / 1e9, whole


async def measure(count: int, rounds: int, floor: Floor, batch: Path) -> tuple[Times, float]:
    gateways = tuple(NextHop(ip_address(gateway)) for _, _, gateway in UPLINKS)
    both, one = desired(count, gateways), desired(count, gateways[:1])
    ip_batch(batch, count)
    times = Times()
    floor.install(count)
    memory = peak_memory(both)
    left = command("ip", "-j", "route")
    for turn in range(rounds + 1):
        clear()
        began = time.perf_counter()
        command("ip", "-batch", str(batch))
        times.add("install.ip", time.perf_counter() - began)
        assert turn or command("ip", "-j", "route") == left
        clear()
        times.add("install.c", floor.install(count))
        clear()
        times.add("install", await with_kernel(lambda kernel: synced(kernel, both, True)))
        assert turn or command("ip", "-j", "route") == left
        times.add("dump.c", floor.dump(count))
        times.add("dump", await with_kernel(lambda kernel: synced(kernel, both, False)))
        times.add("failover.carrier", lose_a_carrier(str(FIRST + 1)))

        async def fail(kernel: LinuxKernel) -> float:
            until, whole = await lose_a_gateway(kernel, both, one)
            times.add("failover.sync", whole)
            return until

        times.add("failover", await with_kernel(fail))
    for values in times.found.values():
        del values[0]  # to warm up, and to compare
    clear()
    return times, memory


def figures(times: Times, memory: float, count: int) -> list[dict[str, object]]:
    of = f"{count // 1000}k"
    p50 = times.p50
    ratios = {
        "install": ("C floor", p50("install") / p50("install.c")),
        "install.ip": ("ours", p50("install.ip") / p50("install")),
        "dump": ("C floor", p50("dump") / p50("dump.c")),
    }
    told = [
        figure(f"routes.{name}.{of}", p50(name) * 1e3, "ms", len(values), ratios.get(name))
        for name, values in sorted(times.found.items())
    ]
    return [*told, figure(f"routes.dump.memory.{of}", memory, "MiB", 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--routes", type=int, default=100_000)
    given = parser.parse_args()
    own_network()
    uplinks()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        floor = Floor(directory)
        try:
            found = asyncio.run(measure(given.routes, given.rounds, floor, directory / "batch"))
        finally:
            floor.close()
    say("routes.jsonl", figures(*found, given.routes))


if __name__ == "__main__":
    main()
