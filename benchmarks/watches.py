"""Five thousand agents that watch, and nothing happens; then one of them after the other is told
something.

The real service on one CPU with a store of 5 000 nodes, a workload each; on another one process
with as many TLS connections, each a watch of the workloads of one node. Measured: what the service
grows by for each of them, its CPU while nothing changes, and, at 200 changes a second, the time
from a change's request to the line that the one watcher of it reads, and from its answer (`.lag`):
nobody is told before the change is on disk.

In turns with it, on the same CPU and at the same rate: a handler over the same TLS server that does
nothing but commit to a store and answer (`api.watch.floor`). Between two changes of such a rate the
CPU is asleep, which makes each of them several times as dear as in a loop.

    python benchmarks/watches.py [--rounds 3] [--watches 5000] [--rate 200]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from big_store import fill, workload
from figures import figure, say, workplace
from http_load import Connection, Plan, request
from ipam_claim import BASE, BODY, CLIENT_CPU, answering, process
from programs import many_descriptors

from api.auth import ca
from api.resources.media import MERGE
from routed.lab.processes import cpu_seconds, free_port, resident

IDLE_SECONDS = 20.0  # two bookmarks of each watch
TURN_SECONDS = 10.0
COMMITTING = f"""
from pathlib import Path
from api.store.sqlite.store import SqliteStore
store, made = None, 0
async def commit():
    global store, made
    store = store or SqliteStore(Path(sys.argv[4]))
    made += 1
    await store.commit({{}}, {{f"/workloads/{{made % 100}}": {BODY!r}}})
"""
WATCH = "watch=1&allowWatchBookmarks=true&sendInitialEvents=true"


@dataclass
class Seen:
    """Seconds, by change."""

    watched: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)


class Watcher:
    """One watch of one node's workloads; `lines` are what has come since they were taken."""

    def __init__(self, port: int, context: ssl.SSLContext, node: int, token: str) -> None:
        plain = socket.create_connection(("127.0.0.1", port))
        self.node = node
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        query = f"{WATCH}&fieldSelector=spec.node=n{node}"
        self.socket.sendall(request("GET", f"{BASE}/workloads?{query}", token).encode())
        held = b""
        while b"initial-events-end" not in held:
            held += self.socket.recv(65_536)
        self.socket.setblocking(False)

    def read(self) -> bytes:
        held = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while got := self.socket.recv(65_536):
                held += got
            raise RuntimeError("the service ended a watch")
        return held


class Fleet:
    """The watchers, and a connection that changes what they watch."""

    def __init__(self, port: int, trusted: Path, token: str, count: int) -> None:
        self.context = ssl.create_default_context(cafile=trusted)
        self.token = token
        self.poller = select.epoll()
        self.watchers: dict[int, Watcher] = {}
        self.made = 0  # changes
        self.port = port
        self.open(count)

    def open(self, count: int) -> None:
        """`count` watchers more."""
        for node in range(len(self.watchers), len(self.watchers) + count):
            one = Watcher(self.port, self.context, node, self.token)
            self.watchers[one.socket.fileno()] = one
            self.poller.register(one.socket, select.EPOLLIN)

    def idle(self, seconds: float) -> None:
        """Read what comes, bookmarks alone."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for descriptor, _ in self.poller.poll(left):
                self.watchers[descriptor].read()

    def changes(self, rate: float, seconds: float) -> Seen:
        """Change a random node's workload `rate` times a second, one at a time."""
        seen = Seen()
        plain = socket.create_connection(("127.0.0.1", self.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.writer = self.context.wrap_socket(plain, server_hostname="localhost")
        self.writer.setblocking(False)
        self.poller.register(self.writer, select.EPOLLIN)
        start = time.perf_counter()
        for number in range(int(rate * seconds)):
            self._wait(start + number / rate)
            self.made += 1
            self._change(random.randrange(len(self.watchers)), f"c{self.made}", seen)  # noqa: S311
        self.poller.unregister(self.writer)
        self.writer.close()
        return seen

    def _wait(self, until: float) -> None:
        while (left := until - time.perf_counter()) > 0:
            for descriptor, _ in self.poller.poll(left):
                if descriptor == self.writer.fileno():
                    self._answered()  # the rest of it
                else:
                    self.watchers[descriptor].read()

    def _answered(self) -> bool:
        """Whether what has come begins an answer; one is never asked before the other is whole."""
        try:
            got = self.writer.recv(65_536)
        except ssl.SSLWantReadError:
            return False
        if got.startswith(b"HTTP/1.1 ") and not got.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a change was refused: {got!r}")
        if not got:
            raise RuntimeError("the service closed the connection of the changes")
        return got.startswith(b"HTTP/1.1 ")

    def _change(self, node: int, value: str, seen: Seen) -> None:
        body = json.dumps({"metadata": {"labels": {"change": value}}})
        path = f"{BASE}/workloads/{workload(node, 0)}"
        text = request("PATCH", path, self.token, body).replace("application/json", MERGE)
        marker = f'"change":"{value}"'.encode()
        began, answered, told = time.perf_counter(), False, False
        self.writer.send(text.encode())
        while not (answered and told):
            for descriptor, _ in self.poller.poll():
                if descriptor == self.writer.fileno():
                    if self._answered():
                        seen.answered.append(time.perf_counter() - began)
                        answered = True
                else:
                    one = self.watchers[descriptor]
                    if marker in one.read():
                        if one.node != node:
                            raise RuntimeError("another watcher was told")
                        seen.watched.append(time.perf_counter() - began)
                        told = True


class Floor:
    """A handler that only commits, asked `rate` times a second."""

    def __init__(self, port: int, trusted: Path) -> None:
        self.plan = Plan(port, str(trusted), CLIENT_CPU, [], 0)
        self.context = ssl.create_default_context(cafile=trusted)

    def turn(self, rate: float, seconds: float) -> list[float]:
        """Seconds from a request to its answer, one of each."""
        asked = [request("PATCH", "/", "none" * 11, "x" * 60)]
        connection, poller = Connection(self.plan, self.context, asked), select.epoll()
        poller.register(connection.socket, select.EPOLLIN)
        found, start = [], time.perf_counter()
        for number in range(int(rate * seconds)):
            while (left := start + number / rate - time.perf_counter()) > 0:
                poller.poll(left)
            connection.send()
            while connection.answer() is None:
                poller.poll()
            found.append(time.perf_counter() - connection.began)
        connection.socket.close()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--watches", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=200.0)
    given = parser.parse_args()
    many_descriptors()
    with workplace("watches") as place:
        token = fill(place / "routed.db", given.watches, 1)
        port = free_port()
        words = ["-m", "routed.main", "server", "--data-dir", str(place)]
        with process([*words, "--listen", f"127.0.0.1:{port}"], port) as pid, floor(place) as least:
            os.sched_setaffinity(0, {CLIENT_CPU})
            fleet = Fleet(port, place / "ca.crt", token, 1)
            say("watches.jsonl", measured(given, fleet, pid, least))


@contextlib.contextmanager
def floor(place: Path) -> Iterator[Floor]:
    directory = place / "floor"
    directory.mkdir()
    made, port = ca.ensure(directory, ["localhost", "127.0.0.1"]), free_port()
    program = answering(COMMITTING, "await commit()")
    words = [str(port), str(made.certificate), str(made.key), str(directory / "routed.db")]
    with process(["-c", program, *words], port):
        yield Floor(port, made.ca)


def measured(
    given: argparse.Namespace, fleet: Fleet, pid: int, least: Floor
) -> Iterator[dict[str, object]]:
    fleet.changes(given.rate, 1)  # to warm up
    before = resident(pid)
    began = time.monotonic()
    fleet.open(given.watches - 1)
    opening = time.monotonic() - began
    fleet.idle(IDLE_SECONDS / 2)
    each = (resident(pid) - before) / (given.watches - 1)
    yield figure("api.watch.rss", each, "KiB", given.watches)
    yield figure("api.watch.open", given.watches / opening, "1/s", 1)
    used, began = cpu_seconds(pid), time.monotonic()
    fleet.idle(IDLE_SECONDS)
    part = (cpu_seconds(pid) - used) / (time.monotonic() - began)
    yield figure("api.watch.idle.cpu", part * 100, "%", 1)
    least.turn(given.rate, 1)
    turns, cpu, floors = [], [], []
    for _ in range(given.rounds):
        used, began = cpu_seconds(pid), time.monotonic()
        turns.append(fleet.changes(given.rate, TURN_SECONDS))
        cpu.append((cpu_seconds(pid) - used) / (time.monotonic() - began))
        floors.append(statistics.median(least.turn(given.rate, TURN_SECONDS)))

    def part_of(name: str, cut: float) -> float:
        every = [sorted(getattr(turn, name)) for turn in turns]
        return statistics.median(one[int(len(one) * cut)] for one in every) * 1e3

    count = sum(len(turn.watched) for turn in turns)
    for name, cut in (("p50", 0.5), ("p99", 0.99)):
        seen, answer = part_of("watched", cut), part_of("answered", cut)
        to = ("the answer to the change", seen / answer)
        yield figure(f"api.watch.{name}", seen, "ms", count, to)
    bound = statistics.median(floors) * 1e3
    to = ("of api.watch.p50", bound / part_of("watched", 0.5))
    yield figure("api.watch.floor.p50", bound, "ms", count, to)
    lags = [
        seen - answer
        for turn in turns
        for seen, answer in zip(turn.watched, turn.answered, strict=True)
    ]
    yield figure("api.watch.lag.p50", statistics.median(lags) * 1e3, "ms", count)
    yield figure("api.watch.cpu", statistics.median(cpu) * 100, "%", len(cpu))


if __name__ == "__main__":
    sys.exit(main())
