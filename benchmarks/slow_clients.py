"""What a thousand connections that send a byte a second cost the others.

The real service on one CPU, one client on another that reads a Node 10 000 times in a turn, one
request after the other; and in every second turn a third process keeps a thousand connections open
that send the head of a request byte by byte. The service ends each after ten seconds; another takes
its place at once, as an attacker's would.

    python benchmarks/slow_clients.py [--rounds 5] [--connections 1000]
"""

from __future__ import annotations

import argparse
import contextlib
import selectors
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figures import RESULTS, figure, say
from http_load import Found, request
from ipam_claim import BASE, Server, service

TURN = 10_000
BEGIN = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-more: "


def trickle(port: int, trusted: str, count: int) -> None:
    """Keep `count` connections open, a byte a second in each, until somebody kills this process;
    a line is printed when all are there."""
    context = ssl.create_default_context(cafile=trusted)
    context.check_hostname = False
    held = selectors.DefaultSelector()

    def opened() -> None:
        plain = socket.create_connection(("127.0.0.1", port))
        one = context.wrap_socket(plain, server_hostname="localhost")
        one.sendall(BEGIN)
        one.setblocking(False)
        held.register(one, selectors.EVENT_READ)

    for _ in range(count):
        opened()
    print("ready", flush=True)
    while True:
        began = time.monotonic()
        every = [key.fileobj for key in held.get_map().values()]
        for at, one in enumerate(every):
            assert isinstance(one, ssl.SSLSocket)
            with contextlib.suppress(OSError):
                one.send(b"x")
            if at % 10 == 0:  # spread over the second
                time.sleep(max(0.0, began + at / len(every) - time.monotonic()))
        for key, _ in held.select(0):
            one = key.fileobj
            assert isinstance(one, ssl.SSLSocket)
            with contextlib.suppress(ssl.SSLWantReadError):
                try:
                    over = not one.recv(1 << 16)
                except ConnectionError:
                    over = True
                if over:
                    held.unregister(one)
                    one.close()
                    opened()


@contextlib.contextmanager
def trickling(server: Server, count: int) -> Iterator[None]:
    words = [sys.executable, __file__, "--trickle", str(server.port), "--trusted", str(server.ca)]
    child = subprocess.Popen(
        [*words, "--connections", str(count)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            raise RuntimeError("the slow clients did not connect")
        yield
    finally:
        child.kill()
        child.wait()


def reads(server: Server) -> Found:
    return server.load([[request("GET", f"{BASE}/nodes/n0", server.tokens[-1])]], TURN)


def figures(alone: list[Found], beside: list[Found]) -> Iterator[dict[str, object]]:
    def part(turns: list[Found], cut: float) -> float:
        return statistics.median(sorted(one.latencies)[int(TURN * cut)] * 1e3 for one in turns)

    for name, cut in (("p50", 0.5), ("p99", 0.99)):
        quiet, slow = part(alone, cut), part(beside, cut)
        yield figure(f"api.read.{name}", quiet, "ms", len(alone) * TURN)
        ratio = ("without them", slow / quiet)
        yield figure(f"api.trickle.{name}", slow, "ms", len(beside) * TURN, ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--trickle", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--trusted", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.trickle:
        trickle(given.trickle, given.trusted, given.connections)
    alone: list[Found] = []
    beside: list[Found] = []
    RESULTS.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="slow-clients-") as text,
        service(Path(text) / "server", 0) as server,
    ):
        reads(server)
        for _ in range(given.rounds):
            alone.append(reads(server))
            with trickling(server, given.connections):
                beside.append(reads(server))
    say("slow_clients.jsonl", figures(alone, beside))


if __name__ == "__main__":
    main()
