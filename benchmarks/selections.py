"""A thousand agents that follow what selectors stand for, among ten thousand workloads; one label
is changed, and then another.

The real service on one CPU with a store of 1 000 nodes and ten workloads of each, a hundred of
every app; on another one process with a TLS connection of each agent, which follows five apps, a
port by its name in one of them, and one selector that all follow. Measured: until all have the
whole of all that, what the service grows by (`.rss` for each agent; `.members` for what it keeps
of objects and selectors), its CPU for one change, and the time from a change's request to the line
that an agent reads: of a workload that begins or stops to be of the selector of all (`.all`: a
thousand read it) and of one that changes its app (`.some`: one in ten). Then all are ended and come
back with the versions that they have (`.back`). `.client.cpu` is what one change that is told costs
the agents' own client, of CPU.

    python benchmarks/selections.py [--agents 1000] [--workloads 10] [--changes 100]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import select
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from big_store import fill, workload
from figures import figure, say, workplace
from http_load import request
from ipam_claim import BASE, CLIENT_CPU, process
from programs import many_descriptors

from api.auth import tokens
from api.auth.kubeconfig import Access
from api.client import Client, Selections
from api.resources.media import MERGE
from api.service.codec import encoded
from api.store.sqlite.store import SqliteStore
from routed.lab.processes import cpu_seconds, free_port, resident

APPS, FOLLOWED = 100, 5
ALL = "tier == 'shared'"
COMMIT = 1000
LONGEST_SECONDS = 20.0  # for one change, or it was not told


def app_of(node: int, number: int, workloads: int) -> int:
    return (node * workloads + number) % APPS


async def label(path: Path, nodes: int, workloads: int) -> list[str]:
    """Apps, ports and who is shared, of every workload that is there; a token of each node."""
    store = SqliteStore(path)
    _, items = await store.scan("/workloads/")
    puts: dict[str, bytes | None] = {}
    for item in items:
        document = json.loads(item.value)
        name, _, node = document["metadata"]["name"].partition(".")
        place = int(node[1:]) * workloads + int(name[1:])
        labels = {"app": f"a{place % APPS}", "tier": "shared" if place % 100 == 0 else "own"}
        document["metadata"]["labels"] = labels
        document["spec"]["ports"] = [{"name": "http", "protocol": "TCP", "port": 8080}]
        puts[item.key] = encoded(document)
        if len(puts) == COMMIT:
            await store.commit({}, puts)
            puts = {}
    await store.commit({}, puts)
    found = [await tokens.issue(store, tokens.node_identity(f"n{node}")) for node in range(nodes)]
    await store.close()
    return found


def needed(agent: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Selectors and named ports that an agent follows."""
    apps = [f"app == 'a{(agent * 7 + number * 13) % APPS}'" for number in range(FOLLOWED)]
    return [ALL, *apps], [("http", apps[0])]


class Agent:
    """One stream; `pending` is the part of a line that has come."""

    def __init__(self, agent: int, token: str) -> None:
        self.token = token
        self.selectors, self.ports = needed(agent)
        self.versions: dict[tuple[str, str], str] = {}
        self.socket: ssl.SSLSocket
        self.pending = b""
        self.came = 0  # bytes

    def open(self, port: int, context: ssl.SSLContext) -> None:
        plain = socket.create_connection(("127.0.0.1", port))
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        selectors = [
            {"selector": one, "version": self.versions.get((one, ""), "")} for one in self.selectors
        ]
        ports = [
            {"name": name, "selector": one, "version": self.versions.get((one, name), "")}
            for name, one in self.ports
        ]
        body = json.dumps({"selectors": selectors, "ports": ports})
        self.socket.sendall(request("POST", f"{BASE}/selections", self.token, body).encode())
        self.socket.setblocking(False)
        self.pending, self.came = b"", 0

    def read(self) -> list[dict[str, object]]:
        """The whole lines that have come."""
        with contextlib.suppress(ssl.SSLWantReadError):
            while got := self.socket.recv(1 << 20):
                self.came += len(got)
                self.pending += got
            raise RuntimeError("the service ended a stream")
        *whole, self.pending = self.pending.split(b"\n")
        lines = [json.loads(one) for one in whole if one.startswith(b'{"type"')]
        for line in lines:
            if "version" in line:
                self.versions[line["selector"], line.get("port", "")] = line["version"]
        return lines


@dataclass
class Seen:
    seconds: list[float] = field(default_factory=list)  # until each agent that it concerned had it
    last: list[float] = field(default_factory=list)  # until all had it
    cpu: list[float] = field(default_factory=list)  # seconds of the service


class Fleet:
    def __init__(self, port: int, trusted: Path, token: str, pid: int, of_nodes: list[str]) -> None:
        self.context = ssl.create_default_context(cafile=trusted)
        self.port, self.token, self.pid, self.trusted = port, token, pid, trusted
        self.agents = [Agent(number, one) for number, one in enumerate(of_nodes)]
        self.poller = select.epoll()
        self.by_descriptor: dict[int, Agent] = {}

    def open(self, agents: list[Agent]) -> float:
        """Seconds until each of them is told that it has everything."""
        began = time.perf_counter()
        waiting = set[Agent]()
        for number, agent in enumerate(agents):
            agent.open(self.port, self.context)
            self.by_descriptor[agent.socket.fileno()] = agent
            self.poller.register(agent.socket, select.EPOLLIN)
            waiting.add(agent)
            if number % 20 == 0:
                self._told(waiting, 0)
        while waiting:
            self._told(waiting, 10)
        return time.perf_counter() - began

    def _told(self, waiting: set[Agent], seconds: float) -> None:
        for descriptor, _ in self.poller.poll(seconds):
            agent = self.by_descriptor[descriptor]
            if any(line["type"] == "BOOKMARK" for line in agent.read()):
                waiting.discard(agent)

    def close(self) -> None:
        for agent in self.agents:
            self.poller.unregister(agent.socket)
            agent.socket.close()
        self.by_descriptor.clear()

    def change(self, name: str, labels: dict[str, str], gone: str, come: str, seen: Seen) -> None:
        """Label a workload, so that it stops to be of the selector `gone`, begins to be of `come`
        ("": none), and wait until everybody who follows them is told."""
        waiting = {
            agent: {one for one in (gone, come) if one in agent.selectors}
            for agent in self.agents
            if gone in agent.selectors or come in agent.selectors
        }
        used = cpu_seconds(self.pid)
        body = json.dumps({"metadata": {"labels": labels}})
        text = request("PATCH", f"{BASE}/workloads/{name}", self.token, body)
        with (
            socket.create_connection(("127.0.0.1", self.port)) as plain,
            self.context.wrap_socket(plain, server_hostname="localhost") as writer,
        ):
            began = time.perf_counter()
            writer.sendall(text.replace("application/json", MERGE).encode())
            while waiting:
                if time.perf_counter() > began + LONGEST_SECONDS:
                    raise RuntimeError(f"not told to {len(waiting)}: {writer.recv(65_536)!r}")
                for descriptor, _ in self.poller.poll(1):
                    agent = self.by_descriptor[descriptor]
                    for line in agent.read():
                        if line["type"] == "DELTA" and agent in waiting and "port" not in line:
                            waiting[agent].discard(str(line["selector"]))
                            if not waiting[agent]:
                                seen.seconds.append(time.perf_counter() - began)
                                del waiting[agent]
            seen.last.append(time.perf_counter() - began)
            if not writer.recv(65_536).startswith(b"HTTP/1.1 200 "):
                raise RuntimeError("a change was refused")
        seen.cpu.append(cpu_seconds(self.pid) - used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--workloads", type=int, default=10)
    parser.add_argument("--changes", type=int, default=100)
    given = parser.parse_args()
    many_descriptors()
    with workplace("selections") as place:
        token = fill(place / "routed.db", given.agents, given.workloads)
        of_nodes = asyncio.run(label(place / "routed.db", given.agents, given.workloads))
        port = free_port()
        words = ["-m", "routed.main", "server", "--data-dir", str(place)]
        with process([*words, "--listen", f"127.0.0.1:{port}"], port) as pid:
            os.sched_setaffinity(0, {CLIENT_CPU})
            fleet = Fleet(port, place / "ca.crt", token, pid, of_nodes)
            say("selections.jsonl", measured(given, fleet))


def measured(given: argparse.Namespace, fleet: Fleet) -> Iterator[dict[str, object]]:
    count, objects = given.agents, given.agents * given.workloads
    before = resident(fleet.pid)
    fleet.open(fleet.agents[:1])
    yield figure("selections.members", (resident(fleet.pid) - before) / 1024, "MiB", objects)
    before, used = resident(fleet.pid), cpu_seconds(fleet.pid)
    yield figure("selections.first", fleet.open(fleet.agents[1:]), "s", count)
    yield figure("selections.first.cpu", cpu_seconds(fleet.pid) - used, "s", count)
    yield figure("selections.rss", (resident(fleet.pid) - before) / count, "KiB", count)
    for name, seen in (("all", to_all(given, fleet)), ("some", to_some(given, fleet))):
        seconds = sorted(seen.seconds)
        for part, cut in (("p50", 0.5), ("p99", 0.99)):
            value = seconds[int(len(seconds) * cut)] * 1e3
            yield figure(f"selections.{name}.{part}", value, "ms", len(seconds))
        yield figure(f"selections.{name}.last", max(seen.last) * 1e3, "ms", len(seen.last))
        cpu = sum(seen.cpu) / len(seen.cpu) * 1e3
        yield figure(f"selections.{name}.cpu", cpu, "ms", len(seen.cpu))
    fleet.close()
    used = cpu_seconds(fleet.pid)
    yield figure("selections.back", fleet.open(fleet.agents), "s", count)
    yield figure("selections.back.cpu", cpu_seconds(fleet.pid) - used, "s", count)
    came = max(agent.came for agent in fleet.agents)
    yield figure("selections.back.bytes", came, "B", count)
    fleet.close()
    cost = asyncio.run(client_cpu(given, fleet))
    yield figure("selections.client.cpu", cost * 1e3, "ms", given.changes)


async def client_cpu(given: argparse.Namespace, fleet: Fleet) -> float:
    """Seconds of CPU of this thread for one change that the client is told."""
    access = Access(
        f"https://localhost:{fleet.port}", fleet.trusted.read_bytes(), "admin", fleet.token
    )
    client = Client(access)
    following, seen = Selections(client), Seen()
    following.need([*fleet.agents[0].selectors, *fleet.agents[0].ports])
    fleet.agents = []
    used, told = 0.0, 0
    try:
        async for one in following.follow():
            if one.type == "DELTA" or (one.type == "SYNCED" and not used):
                if one.type == "SYNCED":
                    used = time.thread_time()
                told += one.type == "DELTA"
                if told == given.changes:
                    break
                labels = {"tier": "own" if told % 2 else "shared"}
                await asyncio.to_thread(fleet.change, workload(1, 1), labels, "", "", seen)
        return (time.thread_time() - used) / told
    finally:
        await client.close()


def to_all(given: argparse.Namespace, fleet: Fleet) -> Seen:
    seen = Seen()
    for number in range(given.changes):
        name = workload(number // 2 * 3 % given.agents, 1)
        comes = number % 2 == 0
        labels = {"tier": "shared" if comes else "own"}
        fleet.change(name, labels, "" if comes else ALL, ALL if comes else "", seen)
    return seen


def to_some(given: argparse.Namespace, fleet: Fleet) -> Seen:
    seen, chance = Seen(), random.Random(1)  # noqa: S311
    apps = [app_of(node, 0, given.workloads) for node in range(given.agents)]
    for number in range(given.changes):
        node = number % given.agents
        was, becomes = apps[node], chance.randrange(APPS)
        apps[node] = becomes
        if was != becomes:
            labels = {"app": f"a{becomes}"}
            gone, come = f"app == 'a{was}'", f"app == 'a{becomes}'"
            fleet.change(workload(node, 0), labels, gone, come, seen)
    return seen


if __name__ == "__main__":
    sys.exit(main())
