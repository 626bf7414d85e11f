"""How long the kernel part of an attach of an IPv6 workload takes, and whether it stays so.

A host namespace holds 10, then 1 000, then 4 000 endpoints that have IPv6: up, with fe80::1 and a
/128 route each, at both ends of a carrier. In it our kernel driver attaches twenty workloads with
an IPv6 address, then twenty with an IPv4 one, into namespaces made beforehand, in turn, and undoes
it, untimed. IPv6 of a link costs the kernel work that grows with the links that have it (linkwatch,
fib6): that is what the figure at 4 000 is about. Timed is a whole attach, with its read-back, which
waits for linkwatch. `--disabled`: on a host where new links begin without IPv6
(net.ipv6.conf.default.disable_ipv6).

    sudo -E python benchmarks/attach_v6.py [--rounds 5] [--endpoints 10,1000,4000] [--disabled]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from figures import figure, say
from programs import command, own_network

from routed.kernel.linux import LinuxKernel
from routed.state import Endpoint

SPACES = 20  # namespaces to attach into
DISABLED = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


def fill(count: int, held: int) -> None:
    """Have `count` endpoints' worth of links with IPv6, and their host routes."""
    space, numbers = os.environ["FILLER"], range(held, count)
    command("ip", "-batch", "-", given="".join(
        f"link add f{n} numtxqueues 1 numrxqueues 1 type veth peer name g{n}"
        f" numtxqueues 1 numrxqueues 1 netns {space}\n"
        f"link set f{n} addrgenmode none\n"
        for n in numbers
    ))  # fmt: skip
    command("ip", "-n", space, "-batch", "-", given="".join(f"link set g{n} up\n" for n in numbers))
    command("ip", "-batch", "-", given="".join(
        f"link set f{n} up\naddr add fe80::1/64 dev f{n} nodad\n"
        f"route add fd00:66::{n:x}/128 dev f{n} proto 82\n"
        for n in numbers
    ))  # fmt: skip


@dataclass
class Times:
    """Seconds, one of each a workload."""

    six: list[float] = field(default_factory=list)
    four: list[float] = field(default_factory=list)


class Bench:
    def __init__(self, spaces: list[str]) -> None:
        self.kernel = LinuxKernel()
        self.six = [self.endpoint(n, space, f"fd00:65::{n:x}") for n, space in enumerate(spaces, 1)]
        self.four = [self.endpoint(n, space, f"10.65.0.{n}") for n, space in enumerate(spaces, 1)]

    @staticmethod
    def endpoint(number: int, space: str, address: str) -> Endpoint:
        where = f"/run/netns/{space}"
        return Endpoint(f"w{number}.bench", "eth0", (ip_address(address),), where)

    async def turn(self, times: Times) -> None:
        for ends, told in ((self.six, times.six), (self.four, times.four)):
            for end in ends:
                began = time.perf_counter()
                await self.kernel.attach(end)
                told.append(time.perf_counter() - began)
            await self.kernel.detach([end.workload for end in ends])
            await self.kernel.reaped()


async def measure(spaces: list[str], rounds: int) -> Times:
    bench, times = Bench(spaces), Times()
    try:
        await bench.turn(Times())  # warms up
        for _ in range(rounds):
            await bench.turn(times)
    finally:
        await bench.kernel.close()
    return times


def figures(found: dict[int, Times]) -> list[dict[str, object]]:
    told = []
    least, most = min(found), max(found)
    for count, times in found.items():
        six, four = statistics.median(times.six), statistics.median(times.four)
        suffix = "" if count == least else f".at{count}"
        to = ("the same with IPv4", six / four)
        told.append(figure(f"attach.kernel.v6.p50{suffix}", six * 1e6, "us", len(times.six), to))
    if least != most:
        six = statistics.median(found[most].six)
        to = (f"the same with {least} endpoints", six / statistics.median(found[least].six))
        n = len(found[most].six)
        told.append(figure(f"attach.kernel.v6.p50.{most}", six * 1e6, "us", n, to))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--endpoints", default="10,1000,4000")
    parser.add_argument("--disabled", action="store_true")
    given = parser.parse_args()
    own_network()
    command("ip", "link", "set", "lo", "up")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
    mark = f"r6{os.getpid() % 100_000}"
    spaces = [f"{mark}-{number}" for number in range(SPACES)]
    os.environ["FILLER"] = f"{mark}-filler"
    found: dict[int, Times] = {}
    held = 0
    try:
        for space in (*spaces, os.environ["FILLER"]):
            command("ip", "netns", "add", space)
        for count in map(int, given.endpoints.split(",")):
            DISABLED.write_text("0")
            fill(count, held)
            held = count
            DISABLED.write_text("1" if given.disabled else "0")
            found[count] = asyncio.run(measure(spaces, given.rounds))
    finally:
        for space in (*spaces, os.environ["FILLER"]):
            subprocess.run(["ip", "netns", "del", space], check=False)
    say("attach_v6_disabled.jsonl" if given.disabled else "attach_v6.jsonl", list(figures(found)))


if __name__ == "__main__":
    main()
