"""A thousand agents without hosts (`routed lab hollow`) at one control plane on one CPU: how long
they take to join all at once with a hundred workloads each, what the service uses while nothing
happens, and how they come back when it was killed.

    python benchmarks/hollow.py [--agents 1000] [--workloads 100] [--quiet 60]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from figures import figure, say, workplace
from ipam_claim import CLIENT_CPU, SERVER_CPU

from routed.lab.hollow.run import HollowLab, Phase, shown
from routed.lab.processes import resident


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--workloads", type=int, default=100)
    parser.add_argument("--quiet", type=float, default=60.0)
    given = parser.parse_args()
    with workplace("hollow") as place:
        lab = Pinned(place, given.agents, given.workloads)
        try:
            found = shown(lab, given.quiet, lambda line: print(line, file=sys.stderr, flush=True))
            memory = resident(lab.pid)
        finally:
            lab.down()
    say("hollow.jsonl", figures(found, memory, given.agents, given.workloads))


class Pinned(HollowLab):
    """The service on one CPU, what asks it on another."""

    def up(self) -> None:
        os.sched_setaffinity(0, {CLIENT_CPU})
        self.server.words = ["taskset", "-c", str(SERVER_CPU), *self.server.words]
        super().up()


def figures(
    found: dict[str, Phase], memory: int, agents: int, workloads: int
) -> Iterator[dict[str, object]]:
    join, quiet, crash = (found[name] for name in ("join", "quiet", "crash"))
    count = agents * workloads
    yield figure("hollow.join", join.seconds, "s", agents)
    yield figure("hollow.join.workloads", count / join.seconds, "1/s", count)
    yield figure("hollow.join.cpu", join.cpu_seconds / join.seconds * 100, "%", 1)
    errors = sum(phase.server_errors for phase in found.values())
    yield figure("hollow.5xx", errors, "", sum(phase.requests for phase in found.values()))
    yield figure("hollow.refused", sum(phase.refused for phase in found.values()), "", agents)
    yield figure("hollow.quiet.cpu", quiet.cpu_seconds / quiet.seconds * 100, "%", 1)
    yield figure("hollow.quiet.requests", quiet.requests / quiet.seconds, "1/s", quiet.requests)
    yield figure("hollow.rss", memory / 1024, "MiB", agents)
    for name, cut in (("p50", 0.5), ("p99", 0.99)):
        yield figure(f"hollow.back.{name}", crash.part(cut), "s", agents)
    yield figure("hollow.back.cpu", crash.cpu_seconds, "s", 1)


if __name__ == "__main__":
    main()
