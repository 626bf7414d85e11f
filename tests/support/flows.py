"""Real flows through a host: one outside, servers, connections."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from routed.kernel import netns as spaces
from support.netns import run

SIOCOUTQ = 0x5411

SERVER = """
import socket, sys
where, port = sys.argv[1], int(sys.argv[2])
listener = socket.create_server((where, port), family=socket.AF_INET6 if ":" in where else 2)
print("listening", flush=True)
while True:
    peer, (source, *_) = listener.accept()
    print(source, peer.recv(5).decode(), flush=True)
    peer.sendall(b"hello")
"""


class Outside:
    """A host behind the uplink, with a namespace of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "far0", "netns", name)
        run("ip", "link", "set", "up0", "up")
        run("ip", "-n", name, "link", "set", "far0", "up")
        for where, own, far in (
            ((), "192.0.2.1/24", "192.0.2.2/24"),
            (("-6",), "2001:db8::1/64", "2001:db8::2/64"),
        ):
            more = ("nodad",) if where else ()
            run("ip", "addr", "add", own, "dev", "up0", *more)
            run("ip", "-n", name, "addr", "add", far, "dev", "far0", *more)
            via = own.partition("/")[0]
            run("ip", *where, "-n", name, "route", "add", "default", "via", via)


def listen(netns: str, address: str, port: int = 7000) -> subprocess.Popen[str]:
    """A server that prints each peer's address and the five bytes that it said, and answers
    hello; "" is the namespace of the caller."""
    words = ["ip", "netns", "exec", netns] if netns else []
    command = [*words, sys.executable, "-c", SERVER, address, str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "listening\n"
    return server


@contextmanager
def entered(netns: str) -> Iterator[None]:
    """Sockets made meanwhile are of that namespace."""
    home = spaces.open_own()
    try:
        with spaces.opened(f"/run/netns/{netns}", None) as inner, spaces.entered(home, inner):
            yield
    finally:
        os.close(home)


def connected(netns: str, address: str, port: int = 7000, seconds: float = 5) -> socket.socket:
    """A connection from inside `netns`, over which something was said both ways."""
    with entered(netns):
        made = socket.create_connection((address, port), timeout=seconds)
    made.sendall(b"ready")
    assert made.recv(5) == b"hello"
    return made


def heard(server: subprocess.Popen[str]) -> str:
    """The address of the next peer, as the server sees it."""
    assert server.stdout is not None
    return server.stdout.readline().split()[0]


def acknowledged(one: socket.socket, seconds: float = 5) -> bool:
    """Whether the other end has all that was sent."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        (left,) = struct.unpack("i", fcntl.ioctl(one, SIOCOUTQ, bytes(4)))
        if left == 0:
            return True
    return False
