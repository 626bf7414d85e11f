"""What a path through the network costs: a round trip, and a packet of 64 bytes, of each in turn.

All paths of `paths.py` are there at the same time, and each round asks every one. Both ends of a
round trip stay on one processor, so that it is the path that is measured and not how long a
processor sleeps. A packet's figure is the sender's time until it is in the other's socket, whom
another processor serves. Only the ratios count, to routed's own path between two workloads of one
host. Those of ipvlan are measured in the guest kernel (scripts/guest), beside a veth without our
filter there, as that kernel has none: `datapath.rr.guest.ipvlan-l3`.

    sudo -E python benchmarks/datapath.py [--rounds 9] [--only routed,bridge]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from figures import figure, say
from paths import GUEST_PATHS, IN_GUEST, PATHS, Spaces, Way
from programs import Compiled, command, own_network

ROUND_TRIPS = 1_000 if IN_GUEST else 3_000
PACKETS = 5_000 if IN_GUEST else 30_000  # in the guest, one processor sends and takes them
PATIENCE = 2.0  # seconds, until the receiver has taken what has come
ARRIVED = 0.95  # of the packets, at least
BASE = "routed"
GUEST = Path(__file__).resolve().parents[1] / "scripts" / "guest"


class End(Compiled):
    """`floor/path.c` in a namespace."""

    def __init__(self, directory: Path, space: str) -> None:
        last = os.cpu_count() or 1
        arguments = (f"/run/netns/{space}", "0", str(min(1, last - 1)))
        super().__init__("path", directory, arguments=arguments)

    def number(self, line: str) -> int:
        said = self.ask(line)
        if not said.isdigit():
            raise RuntimeError(f"{line}: {said or 'the program has ended'}")
        return int(said)


@dataclass
class Times:
    """Nanoseconds, one of each a round."""

    rr: list[int] = field(default_factory=list)
    pkt: list[int] = field(default_factory=list)


@dataclass
class Measured:
    """A path with its two ends, and what they have said so far."""

    way: Way
    client: End
    server: End
    times: Times = field(default_factory=Times)

    def turn(self, *, warm: bool = False) -> None:
        rr = self.client.number(f"rr {self.way.address} {ROUND_TRIPS}")
        pkt = self.packets(PACKETS)
        if not warm:
            self.times.rr.append(rr)
            self.times.pkt.append(pkt)

    def packets(self, count: int) -> int:
        """Nanoseconds of one of so many, which came."""
        self.server.number("count")
        took = self.client.number(f"pkt {self.way.address} {count}")
        came, deadline = 0, time.monotonic() + PATIENCE
        while came < ARRIVED * count and time.monotonic() < deadline:
            came += self.server.number("count")
        if came < ARRIVED * count:
            raise RuntimeError(f"{self.way}: {came} of {count} packets came")
        return took


@contextmanager
def opened(names: list[str], directory: Path) -> Iterator[dict[str, Measured]]:
    """All paths, which are gone afterwards."""
    spaces = Spaces(f"rd{os.getpid() % 100_000}")
    with ExitStack() as stack:
        stack.callback(spaces.remove)
        found = {}
        for name in names:
            way = (GUEST_PATHS if IN_GUEST else PATHS)[name](spaces)
            client, server = (End(directory, space) for space in (way.here, way.there))
            for end in (client, server):
                stack.callback(end.close)
            server.number(f"listen {way.address}")
            found[name] = Measured(way, client, server)
        yield found


def figures(found: dict[str, Times], rounds: int) -> list[dict[str, object]]:
    """Each with the median of its rounds' ratios to routed's."""
    told = []
    where = "guest." if IN_GUEST else ""
    for name, times in found.items():
        for what, values, base in (
            ("rr", times.rr, found[BASE].rr),
            ("pkt", times.pkt, found[BASE].pkt),
        ):
            ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
            to = None if name == BASE else ("routed veth", ratio)
            us = statistics.median(values) / 1e3
            told.append(figure(f"datapath.{what}.{where}{name}", us, "us", rounds, to))
    return told


def measured(names: list[str], rounds: int) -> list[dict[str, object]]:
    own_network()
    command("ip", "link", "set", "lo", "up")
    with tempfile.TemporaryDirectory() as directory, opened(names, Path(directory)) as paths:
        for path in paths.values():
            path.turn(warm=True)
        for _ in range(rounds):
            for path in paths.values():
                path.turn()
        return figures({name: path.times for name, path in paths.items()}, rounds)


def in_guest(rounds: int) -> list[dict[str, object]]:
    """What this program finds in the guest kernel."""
    with tempfile.TemporaryDirectory() as share:
        said = Path(share) / "figures"
        words = [str(GUEST), "--share", share, sys.executable, __file__]
        subprocess.run([*words, "--rounds", str(rounds), "--to", str(said)], check=True)
        return [json.loads(line) for line in said.read_text(encoding="ascii").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default=",".join(GUEST_PATHS if IN_GUEST else PATHS))
    parser.add_argument("--to", type=Path, help="write the figures there, say nothing")
    given = parser.parse_args()
    guest = [] if IN_GUEST else in_guest(given.rounds)
    names = [BASE, *(name for name in given.only.split(",") if name != BASE)]
    found = measured(names, given.rounds)
    if given.to is None:
        say("datapath.jsonl", [*found, *guest])
    else:
        given.to.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="ascii")


if __name__ == "__main__":
    main()
