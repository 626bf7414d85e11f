"""UDP streams one way, whose packets are counted at both ends while they run: what a filter drops
makes no flow, so that each packet is judged as a first one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from routed.lab.fabric import prefix

RECEIVER = """
import socket, sys, threading
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
link = socket.socket(family, socket.SOCK_DGRAM)
link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
link.bind((sys.argv[1], int(sys.argv[2])))
count = 0
def told():
    for line in sys.stdin:
        print(count, flush=True)
    link.close()
    import os; os._exit(0)
threading.Thread(target=told).start()
print("ready", flush=True)
while True:
    link.recv(64)
    count += 1
"""
SENDER = """
import os, socket, sys, threading, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
link = socket.socket(family, socket.SOCK_DGRAM)
link.connect((sys.argv[1], int(sys.argv[2])))
rate, sent = int(sys.argv[3]), 0
def told():
    for line in sys.stdin:
        print(sent, flush=True)
    os._exit(0)
threading.Thread(target=told).start()
print("ready", flush=True)
start = time.monotonic()
while True:
    while sent < (time.monotonic() - start) * rate:
        try:
            link.send(b"packet")
        except OSError:
            pass  # an ICMP error for something sent before
        sent += 1
    time.sleep(0.001)
"""


@dataclass(frozen=True, slots=True)
class Counts:
    sent: int
    received: int


class Stream:
    """`rate` packets a second from namespace `source` to `address` and `port`, which is inside
    namespace `target`."""

    def __init__(self, source: str, target: str, address: str, port: int, rate: int = 1000) -> None:
        receiver = [*prefix(target), sys.executable, "-c", RECEIVER, address, str(port)]
        sender = [*prefix(source), sys.executable, "-c", SENDER, address, str(port), str(rate)]
        self._receiver, self._sender = _started(receiver), _started(sender)

    def counts(self) -> Counts:
        """Until now."""
        return Counts(_asked(self._sender), _asked(self._receiver))

    def close(self) -> None:
        for end in (self._sender, self._receiver):
            with end:
                end.kill()


def _started(words: list[str]) -> subprocess.Popen[str]:
    made = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert made.stdout is not None
    assert made.stdout.readline() == "ready\n"
    return made


def _asked(end: subprocess.Popen[str]) -> int:
    assert end.stdin is not None
    assert end.stdout is not None
    end.stdin.write("\n")
    end.stdin.flush()
    return int(end.stdout.readline())
