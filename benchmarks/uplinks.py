"""Two uplinks in this network namespace, and how they fail."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from programs import command

from routed.kernel import messages as m
from routed.kernel.netlink import NETLINK_ADD_MEMBERSHIP, SOL_NETLINK, attributes, message, walk

RTNLGRP_NEXTHOP = 32
ETH_P_ALL = 3
UPLINKS = (("up0", "192.0.2.1", "192.0.2.9"), ("up1", "198.51.100.1", "198.51.100.9"))


def uplinks() -> None:
    """Two veth pairs, with neighbours that need no resolution."""
    command("ip", "link", "set", "lo", "up")
    for name, own, gateway in UPLINKS:
        far = name.replace("up", "far")
        command("ip", "link", "add", name, "type", "veth", "peer", "name", far)
        command("ip", "addr", "add", f"{own}/24", "dev", name)
        for end in (far, name):
            command("ip", "link", "set", end, "up")
        mac = json.loads(command("ip", "-j", "link", "show", "dev", far))[0]["address"]
        command("ip", "neigh", "add", gateway, "lladdr", mac, "dev", name, "nud", "permanent")


@contextmanager
def child(body: Callable[[], str]) -> Iterator[Callable[[], str]]:
    """`body` in a forked process, which has begun; what is given waits for its answer."""
    read, write = os.pipe()
    process = os.fork()
    if not process:
        try:
            os.write(write, b".")
            os.write(write, body().encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            assert pipe.read(1) == "."
            yield pipe.read
    finally:
        os.waitpid(process, 0)


@contextmanager
def hearing_of_one_member() -> Iterator[Callable[[], int]]:
    """What is given waits until the kernel has told that a group has one member left, and says
    when that was heard: nanoseconds, monotonic."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as ear:
        ear.bind((0, 0))
        ear.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_NEXTHOP)

        def hear() -> str:
            while True:
                data = ear.recv(1 << 16)
                now = time.monotonic_ns()
                for kind, _, _, start, end in walk(data):
                    members = attributes(data[start:end], 8).get(m.NHA_GROUP, b"")
                    if kind == m.RTM_NEWNEXTHOP and len(members) == 8:
                        return str(now)

        with child(hear) as answer:
            yield lambda: int(answer())


def lose_a_carrier(to: str) -> float:
    """Seconds from the far end going down to the first packet to `to` over the other link."""
    request = struct.Struct("=BxHiII")
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        ears = [
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK) for _ in "01"
        ]
        for place, ear in enumerate(ears):
            ear.bind((f"far{place}", ETH_P_ALL))
        used = None
        while used is None:
            sender.sendto(b"where", (to, 9))
            used = next((n for n, ear in enumerate(ears) if came(ear)), None)
        far, other = socket.if_nametoindex(f"far{used}"), ears[1 - used]
        while came(other):
            pass
        began = time.perf_counter()
        route.send(message(m.RTM_SETLINK, 0, request.pack(0, 0, far, 0, m.IFF_UP)))
        while not came(other):
            sender.sendto(b"where", (to, 9))
        took = time.perf_counter() - began
        for ear in ears:
            ear.close()
    command("ip", "link", "set", f"far{used}", "up")
    while "LOWER_UP" not in command("ip", "link", "show", "dev", f"up{used}"):
        pass
    return took


def came(ear: socket.socket) -> bool:
    try:
        return b"where" in ear.recv(2048)
    except BlockingIOError:
        return False
