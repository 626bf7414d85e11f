"""Requests over TLS at a fixed number outstanding, cheap enough not to be what is measured.

One process, one thread, one epoll: a non-blocking TLS socket for each connection, requests made
beforehand as bytes, answers read up to their Content-Length. A request costs it some 20 us.

`run` is for a process of its own: it reads a `Plan` as JSON from standard input and writes what it
found, a `Found`, to standard output.
"""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import cycle

END = b"\r\n\r\n"
LENGTH = b"content-length: "


@dataclass
class Plan:
    """`total` requests, taken in turn from each connection's own list, which is begun again at its
    end. `keep`: whether the answers' bodies are told."""

    port: int
    ca: str
    cpu: int
    connections: list[list[str]]
    total: int
    keep: bool = False
    once: bool = False  # every request once: deletions


@dataclass
class Found:
    """`seconds` from the first request to the last answer; `latencies` in seconds."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    bodies: list[str] = field(default_factory=list)
    cpu_seconds: float = 0.0  # of the load itself
    server_seconds: float = 0.0  # of CPU, filled in by who knows the server


def request(method: str, path: str, token: str, body: str = "") -> str:
    """One request as it goes over the wire."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: localhost",
        f"authorization: Bearer {token}",
        "accept: */*",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines) + "\r\n\r\n" + body


class Connection:
    """One socket, one request outstanding."""

    def __init__(self, plan: Plan, context: ssl.SSLContext, requests: list[str]) -> None:
        plain = socket.create_connection(("127.0.0.1", plan.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self.socket.setblocking(False)
        encoded = [one.encode() for one in requests]
        self.requests = iter(encoded) if plan.once else cycle(encoded)
        self.held = b""
        self.began = 0.0

    def send(self) -> bool:
        """Whether there was something to ask."""
        data = next(self.requests, None)
        if data is None:
            return False
        self.began = time.perf_counter()
        if self.socket.send(data) != len(data):
            raise RuntimeError("a request did not fit into the socket's buffer")
        return True

    def answer(self) -> tuple[str, bytes] | None:
        """Code and body, once the whole answer is here."""
        try:
            got = self.socket.recv(65_536)
        except ssl.SSLWantReadError:
            return None
        if not got:
            raise RuntimeError(f"the server closed a connection: {self.held!r}")
        held = self.held + got
        end = held.find(END)
        at = held.find(LENGTH, 0, end)
        if end < 0 or at < 0:
            self.held = held
            return None
        length = int(held[at + len(LENGTH) : held.index(b"\r", at)])
        if len(held) < end + len(END) + length:
            self.held = held
            return None
        self.held = b""
        return held[9:12].decode(), held[end + len(END) :]


def measure(plan: Plan) -> Found:
    context = ssl.create_default_context(cafile=plan.ca)
    poller = select.epoll()
    connections: dict[int, Connection] = {}
    for requests in plan.connections:
        made = Connection(plan, context, requests)
        connections[made.socket.fileno()] = made
        poller.register(made.socket, select.EPOLLIN)
    found = Found()
    left, waiting = plan.total, 0
    used, began = time.process_time(), time.perf_counter()
    for one in connections.values():
        if left and one.send():
            left, waiting = left - 1, waiting + 1
    while waiting:
        for descriptor, _ in poller.poll():
            one = connections[descriptor]
            answer = one.answer()
            if answer is None:
                continue
            now = time.perf_counter()
            found.latencies.append(now - one.began)
            code, body = answer
            found.codes[code] = found.codes.get(code, 0) + 1
            if plan.keep or code[0] != "2":
                found.bodies.append(body.decode())
            waiting -= 1
            if left and one.send():
                left, waiting = left - 1, waiting + 1
    found.seconds = time.perf_counter() - began
    found.cpu_seconds = time.process_time() - used
    for one in connections.values():
        one.socket.close()
    return found


def run() -> None:
    plan = Plan(**json.load(sys.stdin))
    os.sched_setaffinity(0, {plan.cpu})
    json.dump(asdict(measure(plan)), sys.stdout)


if __name__ == "__main__":
    run()
