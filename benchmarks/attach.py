"""How long the kernel part of an attach takes, beside the floor: the same asked in C.

A host namespace holds 10, then 1 000, then 4 000 endpoints; in it our kernel driver and
`floor/attach` attach in turn, twenty workloads each, into namespaces made beforehand, and undo it,
untimed. Both leave the same state, which is checked in the run: `ip -d -j` of both ends,
addresses, routes and neighbours (names, indexes, MACs, address, alias and group aside). Ours
then reads back link and routes, which is a figure of its own (the whole attach).

    sudo -E python benchmarks/attach.py [--rounds 5] [--endpoints 10,1000,4000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from attach_floor import Floor
from figures import figure, say
from programs import command, own_network

from routed import steps
from routed.kernel.linux import LinuxKernel
from routed.state import Endpoint

SPACES = 20  # namespaces to attach into


def state(end: Endpoint) -> str:
    """What an attach has left, without what must differ."""
    inner = Path(str(end.netns)).name
    found = []
    for where in ([], ["-n", inner]):
        link = end.host_interface if not where else "eth0"
        shown = json.loads(command("ip", *where, "-d", "-j", "link", "show", "dev", link))[0]
        for name in ("ifindex", "link_index", "ifalias", "group", "link_netnsid", "stats64"):
            shown.pop(name, None)
        found.append(json.dumps(shown, sort_keys=True))
        for what in ("addr", "neigh"):
            text = command("ip", *where, "-4", what, "show", "dev", link)
            found.append(re.sub(r"(?m)^\d+: .*$|@if\d+", "", text))
        found.append(command("ip", *where, "route", "show", "dev", link))
        if not where:
            conf = Path("/proc/sys/net/ipv4/conf") / link
            found += [f"{p.name}={p.read_text()}" for p in sorted(conf.iterdir())]
            found.append((Path("/proc/sys/net/ipv6/conf") / link / "disable_ipv6").read_text())
    return "\n".join(found)


def fill(count: int, held: int) -> None:
    """Have `count` endpoints' worth of links and host routes."""
    lines = []
    for number in range(held, count):
        lines.append(f"link add f{number} numtxqueues 1 numrxqueues 1 type veth peer name g{number}"
                     f" numtxqueues 1 numrxqueues 1 netns {os.environ['FILLER']}")  # fmt: skip
    command("ip", "-batch", "-", given="\n".join(lines) + "\n")
    for number in range(held, count):
        Path(f"/proc/sys/net/ipv6/conf/f{number}/disable_ipv6").write_text("1")
    lines = [f"link set f{n} up" for n in range(held, count)]
    lines += [
        f"route add 10.128.{n // 250}.{n % 250}/32 dev f{n} proto 82" for n in range(held, count)
    ]
    command("ip", "-batch", "-", given="\n".join(lines) + "\n")


@dataclass
class Times:
    """Seconds, one of each a turn."""

    ours: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)  # ours, read back
    floor: list[float] = field(default_factory=list)


class Bench:
    """Both attach into the same namespaces, in turn: all of them by the one, then by the other."""

    def __init__(self, spaces: list[str], floor: Floor) -> None:
        self.kernel = LinuxKernel()
        self.floor = floor
        self.ends = [
            Endpoint(
                f"w{number}.bench", "eth0", (ip_address(f"10.65.0.{number + 1}"),),
                f"/run/netns/{space}",
            )
            for number, space in enumerate(spaces)
        ]  # fmt: skip
        self.done = 0.0
        steps.observer = self.observe

    def observe(self, point: steps.Point) -> None:
        if point is steps.Point.HOST_SIDE_DONE:
            self.done = time.perf_counter()

    async def compare(self) -> None:
        """What both leave, which also warms up."""
        for end in self.ends:
            await self.kernel.attach(end)
            ours = state(end)
            await self.kernel.detach([end.workload])
            await self.kernel.reaped()
            self.floor.attach(end)
            floors = state(end)
            self.floor.detach_all()
            assert ours == floors, f"they differ:\n{ours}\n---\n{floors}"

    async def turn(self, times: Times) -> None:
        for end in self.ends:
            began = time.perf_counter()
            await self.kernel.attach(end)
            times.whole.append(time.perf_counter() - began)
            times.ours.append(self.done - began)
        await self.kernel.detach([end.workload for end in self.ends])
        await self.kernel.reaped()
        times.floor += [self.floor.attach(end) for end in self.ends]
        self.floor.detach_all()


async def measure(spaces: list[str], floor: Floor, rounds: int) -> Times:
    bench, times = Bench(spaces, floor), Times()
    try:
        await bench.compare()
        for _ in range(rounds):
            await bench.turn(times)
    finally:
        await bench.kernel.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--endpoints", default="10,1000,4000")
    given = parser.parse_args()
    counts = [int(count) for count in given.endpoints.split(",")]
    own_network()
    command("ip", "link", "set", "lo", "up")
    mark = f"rb{os.getpid() % 100_000}"
    spaces = [f"{mark}-{number}" for number in range(SPACES)]
    os.environ["FILLER"] = f"{mark}-filler"
    found: dict[int, Times] = {}
    with tempfile.TemporaryDirectory() as directory:
        try:
            for space in (*spaces, os.environ["FILLER"]):
                command("ip", "netns", "add", space)
            floor, held = Floor(Path(directory)), 0
            for count in counts:
                fill(count, held)
                held = count
                found[count] = asyncio.run(measure(spaces, floor, given.rounds))
            floor.close()
        finally:
            for space in (*spaces, os.environ["FILLER"]):
                subprocess.run(["ip", "netns", "del", space], check=False)
    say("attach.jsonl", list(figures(found)))


def figures(found: dict[int, Times]) -> list[dict[str, object]]:
    told = []
    least, most = min(found), max(found)
    for count, times in found.items():
        suffix = "" if count == least else f".at{count}"
        floor = statistics.median(times.floor)
        for name, values in (("attach.kernel", times.ours), ("attach.readback", times.whole)):
            ours = statistics.median(values)
            to = ("tuned C floor", ours / floor)
            told.append(figure(f"{name}.p50{suffix}", ours * 1e6, "us", len(values), to))
        told.append(figure(f"attach.floor.p50{suffix}", floor * 1e6, "us", len(times.floor)))
    if least != most:
        ours = statistics.median(found[most].ours)
        to = (f"the same with {least} endpoints", ours / statistics.median(found[least].ours))
        n = len(found[most].ours)
        told.append(figure(f"attach.kernel.p50.{most}", ours * 1e6, "us", n, to))
    return told


if __name__ == "__main__":
    main()
