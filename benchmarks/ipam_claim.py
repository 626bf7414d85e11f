"""How many durable block claims a second one `routed server` answers on one core.

Sixteen clients over TLS, each with its node's token on a connection kept alive, claim blocks of
eight pools (v4 and v6), as agents do. The server is the real program with its SQLite store, pinned
to one CPU, and the clients to another; every claim is on disk when it is answered. It is measured
with 0, 1 000 and 20 000 blocks claimed before; what a turn has claimed is given back, untimed.

In the same rounds, on the same CPU, with the same load: the store alone (16 outstanding commits of
a block's size, without HTTP), a handler over the same TLS server that only answers, and the
cheapest durable write of the service, a POST of a BGPPeer. They show what bounds a claim. So does
`.cpu`, what the server's threads used of the CPU for each request: on a machine that others use as
well, the rate is what they left, and this is what it cost.

    python benchmarks/ipam_claim.py [--rounds 5] [--claims 4000] [--held 0,1000,20000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import http_load
from figures import figure, say, workplace
from http_load import Found, Plan, request

from api.auth import ca, tokens
from api.ipam.blocks import block_name
from api.resources import KINDS
from api.resources.net import parse_cidr
from api.service.codec import encoded
from api.service.objects import Objects
from api.store.sqlite.store import SqliteStore
from routed.lab.processes import cpu_seconds, free_port

CLIENTS = 16
NODES = 200  # more than claim
SERVER_CPU, CLIENT_CPU = 0, max(os.sched_getaffinity(0))
POOLS = [*(f"10.{number * 32}.0.0/11" for number in range(6)), "fd00:1::/96", "fd00:2::/96"]
BASE = "/apis/routed.dev/v1"
STRICT = "fieldValidation=Strict"  # as our own clients say
Fill = Callable[[Path], Coroutine[None, None, None]]
BODY = b"x" * 420  # about as long as a claimed block's answer


def answering(prelude: str = "", before: str = "pass") -> str:
    """A program that answers every request over TLS; `before` is a statement that it does first,
    with what is in `prelude`."""
    return f"""
import sys, uvicorn
{prelude}
async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    {before}
    headers = [(b"content-length", b"{len(BODY)}"), (b"content-type", b"application/json")]
    await send({{"type": "http.response.start", "status": 201, "headers": headers}})
    await send({{"type": "http.response.body", "body": {BODY!r}}})
uvicorn.run(application, host="127.0.0.1", port=int(sys.argv[1]), ssl_certfile=sys.argv[2],
            ssl_keyfile=sys.argv[3], log_level="warning", server_header=False, loop="uvloop",
            lifespan="off")
"""


@dataclass
class Server:
    """A process on SERVER_CPU; `tokens` are those of the sixteen nodes, then the admin's."""

    pid: int
    port: int
    ca: Path
    tokens: list[str] = field(default_factory=list)

    def load(
        self, requests: list[list[str]], total: int, *, keep: bool = False, once: bool = False
    ) -> Found:
        plan = Plan(self.port, str(self.ca), CLIENT_CPU, requests, total, keep, once)
        used = cpu_seconds(self.pid)
        done = subprocess.run(
            [sys.executable, http_load.__file__],
            input=json.dumps(asdict(plan)), capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = Found(**json.loads(done.stdout))
        found.server_seconds = cpu_seconds(self.pid) - used
        if any(code[0] != "2" for code in found.codes):
            raise RuntimeError(f"refused: {found.codes} {found.bodies[-1]}")
        return found


async def prepare(path: Path, held: int) -> list[str]:
    """A store with pools, nodes and `held` blocks; the tokens of the clients and of the admin."""
    store = SqliteStore(path)
    objects = Objects(store)
    for number, cidr in enumerate(POOLS):
        pool = {"metadata": {"name": f"pool{number}"}, "spec": {"cidr": cidr}}
        await objects.create(KINDS["ippools"], pool)
    for number in range(NODES):
        node = {"metadata": {"name": f"n{number}"}, "spec": {"asNumber": 4_200_000_000 + number}}
        await objects.create(KINDS["nodes"], node)
    claim = {"spec": {"node": "n199", "pool": "pool0"}}
    first, _ = await objects.create(KINDS["ipblocks"], claim)
    made = json.loads(first.value)
    puts: dict[str, bytes | None] = {first.key: None}
    for number in range(held):
        pool, index = number % len(POOLS), number // len(POOLS)
        base = parse_cidr(POOLS[pool])
        size = 26 if base.version == 4 else 122
        start = base.network_address + index * (1 << (base.max_prefixlen - size))
        cidr = parse_cidr(f"{start}/{size}")
        made["metadata"]["name"] = name = block_name(cidr)
        made["spec"] |= {"cidr": str(cidr), "pool": f"pool{pool}", "node": f"n{number % NODES}"}
        puts[f"/ipblocks/{name}"] = encoded(made)
        if len(puts) == 1000:
            await store.commit({}, puts)
            puts = {}
    await store.commit({}, puts)
    found = [await tokens.issue(store, tokens.node_identity(f"n{n}")) for n in range(CLIENTS)]
    found.append(await tokens.issue(store, tokens.ADMIN))
    await store.close()
    return found


@contextlib.contextmanager
def process(words: list[str], port: int, seconds: float = 30) -> Iterator[int]:
    child = subprocess.Popen(["taskset", "-c", str(SERVER_CPU), sys.executable, *words])
    try:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it did not start: {words}")
            time.sleep(0.05)
        yield child.pid  # taskset has become the program
    finally:
        child.terminate()
        child.wait()


@contextlib.contextmanager
def service(directory: Path, held: int, more: Fill | None = None) -> Iterator[Server]:
    """With `held` blocks, and what `more` puts into its store."""
    directory.mkdir()
    known = asyncio.run(prepare(directory / "routed.db", held))
    if more is not None:
        asyncio.run(more(directory / "routed.db"))
    port = free_port()
    words = ["-m", "routed.main", "server", "--data-dir", str(directory)]
    with process([*words, "--listen", f"127.0.0.1:{port}"], port) as pid:
        yield Server(pid, port, directory / "ca.crt", known)


@contextlib.contextmanager
def bare(directory: Path) -> Iterator[Server]:
    directory.mkdir()
    made = ca.ensure(directory, ["localhost", "127.0.0.1"])
    port = free_port()
    words = ["-c", answering(), str(port), str(made.certificate), str(made.key)]
    with process(words, port) as pid:
        yield Server(pid, port, made.ca, ["none"] * (CLIENTS + 1))


def claims(server: Server, total: int) -> Found:
    """One turn of claims, all given back."""
    asked = [
        [
            request("POST", f"{BASE}/ipblocks?{STRICT}", server.tokens[client], json.dumps(
                {"apiVersion": "routed.dev/v1", "kind": "IPBlock", "metadata": {"name": "claim",
                 "labels": {}, "annotations": {}, "uid": "", "resourceVersion": "",
                 "generation": 0}, "spec": {"pool": f"pool{(client + number) % len(POOLS)}",
                 "node": f"n{client}", "epoch": 1},
                 "status": {"conditions": [], "assigned": 0, "cooling": 0}},
                separators=(",", ":")))
            for number in range(len(POOLS))
        ]
        for client in range(CLIENTS)
    ]  # fmt: skip
    found = server.load(asked, total, keep=True)
    blocks = [json.loads(body) for body in found.bodies]
    made = {block["metadata"]["name"]: block["spec"]["node"] for block in blocks}
    if len(made) != total:
        raise RuntimeError("a block was given twice")
    gone = [
        request("DELETE", f"{BASE}/ipblocks/{name}", server.tokens[int(node.removeprefix("n"))])
        for name, node in made.items()
    ]
    server.load([gone[client::CLIENTS] for client in range(CLIENTS)], total, once=True)
    return found


def writes(server: Server, total: int) -> Found:
    """One turn of the cheapest durable write, deleted again."""
    token = server.tokens[-1]
    asked, gone = [], []
    for number in range(total):
        body = json.dumps({"metadata": {"name": f"p{number}"},
                           "spec": {"peerIP": "192.0.2.1", "asNumber": 65_000}})  # fmt: skip
        asked.append(request("POST", f"{BASE}/bgppeers?{STRICT}", token, body))
        gone.append(request("DELETE", f"{BASE}/bgppeers/p{number}", token))
    found = server.load([asked[client::CLIENTS] for client in range(CLIENTS)], total, once=True)
    server.load([gone[client::CLIENTS] for client in range(CLIENTS)], total, once=True)
    return found


def answers(server: Server, total: int) -> Found:
    """One turn of a handler that only answers."""
    one = request("POST", f"{BASE}/ipblocks", "none" * 11, "x" * 300)
    return server.load([[one]] * CLIENTS, total)


def store_alone(path: Path, total: int) -> Found:
    """One turn of commits without HTTP, in a process of its own on the server's CPU."""
    done = subprocess.run(
        ["taskset", "-c", str(SERVER_CPU), sys.executable, __file__, "--store", str(path),
         "--claims", str(total)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return Found(**json.loads(done.stdout))


async def commits(path: Path, total: int) -> Found:
    store = SqliteStore(path)
    found, left = Found(), total

    async def client(number: int) -> None:
        nonlocal left
        while left:
            left -= 1
            began = time.perf_counter()
            key = f"/ipblocks/{number}-{left}-{began}"
            await store.commit({key: 0}, {key: BODY})
            found.latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    found.seconds = time.perf_counter() - began
    await store.close()
    return found


def figures(turns: dict[str, list[Found]], total: int) -> list[dict[str, object]]:
    def rate(name: str) -> float:
        return statistics.median(total / found.seconds for found in turns[name])

    def part(name: str, cut: float) -> float:
        ordered = sorted(latency for found in turns[name] for latency in found.latencies)
        return ordered[int(len(ordered) * cut)] * 1e3

    n, told = len(turns["bare"]), []
    bound = rate("bare")
    for name, every in turns.items():
        to = None if name == "bare" else ("a handler that only answers", rate(name) / bound)
        said = {"bare": "http.bare.16", "store": "store.commit.16", "write": "api.write.16"}.get(
            name, name
        )
        told.append(figure(said, rate(name), "1/s", n, to))
        for label, cut in (("p50", 0.5), ("p99", 0.99)):
            told.append(figure(f"{said}.{label}", part(name, cut), "ms", n * total))
        cost = statistics.median(found.server_seconds / total for found in every)
        if cost:
            told.append(figure(f"{said}.cpu", cost * 1e6, "us", n))
    busy = max(found.cpu_seconds / found.seconds for every in turns.values() for found in every)
    told.append(figure("http.load.busy", busy * 100, "%", 1))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--claims", type=int, default=4000)
    parser.add_argument("--held", default="0,1000,20000")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    total = given.claims
    if given.store:
        print(json.dumps(asdict(asyncio.run(commits(given.store, total)))))
        return
    counts = [int(count) for count in given.held.split(",")]
    names = {count: f"ipam.claim.16.at{count}" for count in counts}
    names[max(counts)] = "ipam.claim.16"
    turns: dict[str, list[Found]] = {name: [] for name in (*names.values(), *PEERS)}
    with workplace("ipam-claim") as place, contextlib.ExitStack() as stack:
        servers = {
            count: stack.enter_context(service(place / f"at{count}", count)) for count in counts
        }
        only_answers = stack.enter_context(bare(place / "bare"))
        for number in range(given.rounds + 1):
            done = {names[count]: claims(server, total) for count, server in servers.items()}
            done["write"] = writes(servers[min(counts)], total)
            done["bare"] = answers(only_answers, total)
            done["store"] = store_alone(place / "alone.db", total)
            if number:  # the first is to warm up
                for name, found in done.items():
                    turns[name].append(found)
    say("ipam_claim.jsonl", figures(turns, total))


PEERS = ("write", "bare", "store")

if __name__ == "__main__":
    main()
