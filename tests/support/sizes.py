"""What becomes of a packet of a given size that must not be fragmented, between two namespaces."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from routed.lab.fabric import prefix

PORT = "7779"
HEADERS = {4: 28, 6: 48}  # IP and UDP
TRIES = 8  # the kernel limits the rate of its ICMP errors: one a second after a burst

ANSWER = """
import socket, sys
link = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
link.bind(("::", int(sys.argv[1])))
print("ready", flush=True)
while True:
    data, sender = link.recvfrom(1 << 16)
    link.sendto(str(len(data)).encode(), sender)
"""
# IP_MTU_DISCOVER 10, IP_RECVERR 11, IPV6_MTU_DISCOVER 23, IPV6_RECVERR 25; 3: IP_PMTUDISC_PROBE, DF
# is set and what is known of the path is not looked at; struct sock_extended_err, linux/errqueue.h
ASK = """
import ipaddress, select, socket, struct, sys
address, port, length, tries = sys.argv[1], *map(int, sys.argv[2:])
six = ":" in address
link = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
level, discover, errors = (41, 23, 25) if six else (0, 10, 11)
link.setsockopt(level, discover, 3)
link.setsockopt(level, errors, 1)
poll = select.poll()
poll.register(link, select.POLLIN)
for _ in range(tries):
    try:
        link.sendto(bytes(length), (address, port))  # not connected: any source may answer
    except OSError:
        pass
    for _, event in poll.poll(1000):
        if event & select.POLLERR:
            _, held, _, _ = link.recvmsg(1, 512, socket.MSG_ERRQUEUE)
            data = held[0][2]
            number, origin, _, _, _, mtu, _ = struct.unpack_from("=IBBBBII", data)
            at, size = (24, 16) if six else (20, 4)
            sender = ipaddress.ip_address(data[at:at + size])
            print("too long for its own link" if origin == 1 else f"{mtu} from {sender}")
            sys.exit()
        assert int(link.recv(100)) == length
        print("delivered")
        sys.exit()
print("lost")
"""


@contextmanager
def answering(namespace: str) -> Iterator[None]:
    """Somebody there answers each packet with its length."""
    words = [*prefix(namespace), sys.executable, "-c", ANSWER, PORT]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            yield
        finally:
            child.kill()


def outcome(namespace: str, address: str, size: int) -> str:
    """Of an IP packet of `size` bytes: "delivered", "MTU from SENDER", "too long for its own link",
    or "lost"."""
    length = size - HEADERS[ip_address(address).version]
    words = [*prefix(namespace), sys.executable, "-c", ASK, address, PORT, str(length), str(TRIES)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
