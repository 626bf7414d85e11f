"""What somebody who lists everything costs the others, and the service in memory.

The real service on one CPU with 100 000 workloads, one client on another that reads a Node 5 000
times in a turn, one request after the other; in every second turn a third process lists all
workloads, again and again, as fast as it is answered. In every third it lists those with a label
that few have, for which every object is looked at.

    python benchmarks/full_lists.py [--rounds 5] [--objects 100000]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from figures import figure, say, workplace
from http_load import Found, request
from ipam_claim import BASE, Server, service

from api.resources import Workload
from api.service.codec import encoded, stored
from api.store.sqlite.store import SqliteStore

TURN = 5_000
ALL, RARE = "/workloads", "/workloads?labelSelector=rare"


async def workloads(path: Path, count: int) -> None:
    store, puts = SqliteStore(path), dict[str, bytes | None]()
    for number in range(count):
        name, node = f"w{number:07}.n{number % 200}", f"n{number % 200}"
        status = {"phase": "Ready", "hostInterface": "rt0123456789", "gateway": "169.254.1.1"}
        status["addresses"] = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"]
        labels = {"rare": "yes"} if number % 1000 == 0 else {"app": "web"}
        metadata = {"name": name, "uid": f"{number:036}", "labels": labels}
        spec = {"node": node, "origin": "Node", "netns": "/run/netns/of-this-workload"}
        whole = {"metadata": metadata, "spec": spec, "status": status}
        puts[f"/workloads/{name}"] = encoded(stored(Workload.model_validate(whole)))
        if len(puts) == 5_000:
            await store.commit({}, puts)
            puts = {}
    await store.commit({}, puts)
    await store.close()


def listing(port: int, trusted: str, token: str, path: str) -> None:
    """List again and again until somebody ends this process; a line says how long each took."""
    with httpx.Client(verify=trusted, timeout=300) as client:
        url, headers = f"https://localhost:{port}{BASE}{path}", {"authorization": f"Bearer {token}"}
        while True:
            began, size = time.perf_counter(), 0
            with client.stream("GET", url, headers=headers) as answer:
                answer.raise_for_status()
                for part in answer.iter_raw():
                    size += len(part)
            print(time.perf_counter() - began, size, flush=True)


@contextlib.contextmanager
def listed(server: Server, path: str) -> Iterator[list[tuple[float, int]]]:
    """While a process lists; how long each list took, and its size, is known afterwards."""
    words = [sys.executable, __file__, "--list", path, "--port", str(server.port)]
    child = subprocess.Popen(
        [*words, "--trusted", str(server.ca)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: list[tuple[float, int]] = []
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(server.tokens[-1] + "\n")
        child.stdin.close()
        child.stdout.readline()  # it is under way
        yield found
    finally:
        child.terminate()
        assert child.stdout is not None
        for line in child.stdout.read().splitlines():
            seconds, size = line.split()
            found.append((float(seconds), int(size)))
        child.wait()


def reads(server: Server) -> Found:
    return server.load([[request("GET", f"{BASE}/nodes/n0", server.tokens[-1])]], TURN)


def peak(pid: int) -> float:
    """MiB that the process has had at most."""
    status = Path(f"/proc/{pid}/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) / 1024


def figures(
    turns: dict[str, list[Found]], took: list[tuple[float, int]], grown: float
) -> Iterator[dict[str, object]]:
    def part(name: str, cut: float) -> float:
        every = turns[name]
        return statistics.median(sorted(one.latencies)[int(TURN * cut)] * 1e3 for one in every)

    for name, cut in (("p50", 0.5), ("p99", 0.99), ("max", 1 - 1 / TURN)):
        quiet = part("", cut)
        yield figure(f"api.read.alone.{name}", quiet, "ms", len(turns[""]) * TURN)
        for label, path in (("lists", ALL), ("selects", RARE)):
            beside = part(path, cut)
            ratio = ("without them", beside / quiet)
            yield figure(f"api.{label}.{name}", beside, "ms", len(turns[path]) * TURN, ratio)
    seconds, size = statistics.median(one for one, _ in took), took[0][1]
    yield figure("api.list.seconds", seconds, "s", len(took))
    yield figure("api.list.size", size / 2**20, "MiB", 1)
    yield figure("api.list.memory", grown, "MiB", 1, ("its answer", grown / (size / 2**20)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objects", type=int, default=100_000)
    for name in ("--list", "--trusted"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.list:
        listing(given.port, given.trusted, sys.stdin.readline().strip(), given.list)
    turns: dict[str, list[Found]] = {"": [], ALL: [], RARE: []}
    took: list[tuple[float, int]] = []
    with (
        workplace("full-lists") as place,
        service(place / "server", 0, lambda path: workloads(path, given.objects)) as server,
    ):
        reads(server)
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # the peak is from now on
        before = peak(server.pid)
        for _ in range(given.rounds):
            turns[""].append(reads(server))
            for path in (ALL, RARE):
                with listed(server, path) as found:
                    turns[path].append(reads(server))
                took += found if path == ALL else []
        grown = peak(server.pid) - before
    say("full_lists.jsonl", figures(turns, took, grown))


if __name__ == "__main__":
    main()
