"""A store of ten thousand nodes, twenty thousand blocks and a million workloads: how long the
service takes to start on it, what it holds in memory, and what requests cost then.

The store is written at once (`big_store`); the real service starts on it, on one CPU. Then, from
another: the workloads of a random node listed, a Node read, a workload created (durable) and
deleted again, and the workloads of all nodes listed in pages of 500. A store of a hundredth of the
size is measured in the same run, in turns: what the size costs is the ratio.

    python benchmarks/store_size.py [--nodes 10000] [--workloads 100] [--rounds 3]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import ssl
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from big_store import fill
from figures import figure, say, workplace
from ipam_claim import BASE, CLIENT_CPU, process

from routed.lab.processes import free_port, resident

TURN = 500  # requests of each kind
PAGE = 500
GROWTH = 2000  # workloads created, to see what one takes
START_SECONDS = 300.0


@dataclass
class Store:
    """The service on a store of `nodes`; seconds by what was asked."""

    pid: int
    port: int
    trusted: Path
    token: str
    nodes: int
    times: dict[str, list[float]] = field(default_factory=dict)

    def connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=self.trusted)
        return http.client.HTTPSConnection("localhost", self.port, context=context, timeout=120)

    def ask(self, to: http.client.HTTPSConnection, method: str, path: str, body: str = "") -> bytes:
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        to.request(method, f"{BASE}{path}", body or None, headers)
        answer = to.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return text

    def timed(
        self, name: str, to: http.client.HTTPSConnection, method: str, path: str, body: str = ""
    ) -> bytes:
        began = time.perf_counter()
        text = self.ask(to, method, path, body)
        self.times.setdefault(name, []).append(time.perf_counter() - began)
        return text

    def turn(self, workloads: int) -> None:
        """Each kind of request TURN times."""
        to = self.connection()
        for number in range(TURN):
            node = random.randrange(self.nodes)  # noqa: S311 - which, not who
            name = f"new{number}.n{node}"
            items = self.timed("list", to, "GET", f"/workloads?fieldSelector=spec.node%3Dn{node}")
            if len(json.loads(items)["items"]) != workloads:
                raise RuntimeError(f"node n{node} has not {workloads} workloads")
            self.timed("read", to, "GET", f"/nodes/n{node}")
            self.timed("create", to, "POST", "/workloads", made(node, name))
            self.timed("delete", to, "DELETE", f"/workloads/{name}")
        path, more = f"/workloads?limit={PAGE}", ""
        for _ in range(20):
            metadata = json.loads(self.timed("page", to, "GET", path + more))["metadata"]
            if "continue" not in metadata:
                break
            more = f"&continue={metadata['continue']}"
        to.close()

    def growth(self) -> float:
        """KiB for each of GROWTH workloads more."""
        to = self.connection()
        before = resident(self.pid)
        for number in range(GROWTH):
            self.ask(to, "POST", "/workloads", more(number % self.nodes, number))
        to.close()
        return (resident(self.pid) - before) / GROWTH


def more(node: int, number: int) -> str:
    return made(node, f"more{number}.n{node}")


def made(node: int, name: str) -> str:
    spec = {"node": f"n{node}", "origin": "Node", "netns": f"/run/netns/{name}"}
    return json.dumps({"kind": "Workload", "metadata": {"name": name}, "spec": spec})


@contextlib.contextmanager
def started(directory: Path, nodes: int, workloads: int) -> Iterator[tuple[Store, float, int]]:
    """The service, in how many seconds it answered, and the KiB it then held."""
    directory.mkdir()
    token = fill(directory / "routed.db", nodes, workloads)
    port = free_port()
    words = ["-m", "routed.main", "server", "--data-dir", str(directory)]
    began = time.monotonic()
    with process([*words, "--listen", f"127.0.0.1:{port}"], port, START_SECONDS) as pid:
        store = Store(pid, port, directory / "ca.crt", token, nodes)
        to = store.connection()
        store.ask(to, "GET", "/nodes/n0")
        to.close()
        yield store, time.monotonic() - began, resident(pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--workloads", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    small = max(1, given.nodes // 100)
    with workplace("store-size") as place, contextlib.ExitStack() as stack:
        few = stack.enter_context(started(place / "few", small, given.workloads))
        many = stack.enter_context(started(place / "many", given.nodes, given.workloads))
        os.sched_setaffinity(0, {CLIENT_CPU})
        say("store_size.jsonl", measured(few, many, given.workloads, given.rounds))


Started = tuple[Store, float, int]


def measured(
    few: Started, many: Started, workloads: int, rounds: int
) -> Iterator[dict[str, object]]:
    count = many[0].nodes * workloads
    yield figure("store.start.1m", many[1], "s", count, ("a hundredth of it", many[1] / few[1]))
    yield figure("store.rss.1m", many[2] / 1024, "MiB", count)
    objects = count - few[0].nodes * workloads
    yield figure("store.rss.workload", (many[2] - few[2]) / objects, "KiB", objects)
    for number in range(rounds + 1):
        for store in (few[0], many[0]):
            store.turn(workloads)
            if not number:  # the first is to warm up
                store.times.clear()
    for name, said in SAID.items():
        here, there = (statistics.median(store.times[name]) * 1e3 for store in (many[0], few[0]))
        to = ("a hundredth of it", here / there)
        yield figure(f"{said}.1m", here, "ms", len(many[0].times[name]), to)
    yield figure("store.growth.workload", many[0].growth(), "KiB", GROWTH)


SAID = {
    "list": "api.list.node",
    "read": "api.read",
    "create": "api.create",
    "delete": "api.delete",
    "page": "api.list.page",
}

if __name__ == "__main__":
    main()
