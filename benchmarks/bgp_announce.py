"""How long 10 000 /32s take from the agent's word to the tables of one and of four switches.

Two racks of namespaces: a host with one switch, and a host with four. Every switch runs BIRD and
takes its neighbours by range; on each host our speaker, gobgpd and BIRD hold sessions of their own
and announce in turn, in every round, so that a busy machine is busy for all. A figure is from the
command to the moment when the last table has all routes; `birdc` is asked every 10 ms, which costs
each announcer the same. Then all are withdrawn, and the tables are empty before the next begins.

    sudo -E python benchmarks/bgp_announce.py [--rounds 5] [--routes 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bgp_racks import Bird, GoBGP, Ours, Rack
from figures import figure, say

IDLE_SECONDS = 20.0


@contextlib.contextmanager
def racks(routes: int) -> Iterator[dict[int, Rack]]:
    directory = Path(tempfile.mkdtemp(prefix="bgp-announce-"))
    made = {count: Rack(count, routes, directory) for count in (1, 4)}
    try:
        for rack in made.values():
            rack.up()
        yield made
    finally:
        for rack in made.values():
            rack.down()
        shutil.rmtree(directory)


async def measure(rounds: int, routes: int) -> list[dict[str, object]]:
    kinds = {"routed": Ours, "gobgpd": GoBGP, "bird": Bird}
    if shutil.which("gobgpd") is None:
        del kinds["gobgpd"]
    with racks(routes) as made:
        announcers = {
            (kind, count): cls(rack) for count, rack in made.items() for kind, cls in kinds.items()
        }
        for one in announcers.values():
            await one.ready()
        times: dict[tuple[str, int], list[float]] = {key: [] for key in announcers}
        gone: dict[tuple[str, int], list[float]] = {key: [] for key in announcers}
        for _ in range(rounds):
            for key, one in announcers.items():
                one.rack.turn = f"{key[0]}'s turn"
                began = time.monotonic()
                await one.announce()
                times[key].append(await one.rack.until(routes, began))
                began = time.monotonic()
                await one.withdraw()
                gone[key].append(await one.rack.until(0, began))
        ours = announcers["routed", 4]
        assert isinstance(ours, Ours)
        before, began = ours.cpu_seconds(), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        idle = (ours.cpu_seconds() - before) / (time.monotonic() - began) * 100
    told: list[dict[str, object]] = []
    for verb, found in (("announce", times), ("withdraw", gone)):
        medians = {key: statistics.median(values) for key, values in found.items()}
        for (kind, count), value in medians.items():
            name = f"bgp.{verb}.{routes // 1000}k" + (count > 1) * f".{count}"
            name += (kind != "routed") * f".{kind}"
            ratio = None
            if kind == "routed" and ("gobgpd", count) in medians:
                ratio = ("gobgpd", value / medians["gobgpd", count])
            told.append(figure(name, value, "s", rounds, ratio))
    told.append(figure("speaker.idle.cpu.4", idle, "%", 1))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--routes", type=int, default=10_000)
    arguments = parser.parse_args()
    say("bgp_announce.jsonl", asyncio.run(measure(arguments.rounds, arguments.routes)))


if __name__ == "__main__":
    main()
