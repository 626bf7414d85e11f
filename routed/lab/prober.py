"""Two UDP streams with sequence numbers, one each way, between two namespaces.

Each direction counts what arrived of what was sent, and the longest time between two arrivals.
Both ends are processes inside their namespaces: ``python -m routed.lab.prober`` sends and receives
at once; its one line of JSON has its own count of sent and what it received of the other.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass

from routed.lab.fabric import prefix

PORT = 7000
_PACKET = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class Stream:
    """One direction: packets sent, packets lost, longest gap between arrivals in seconds."""

    sent: int
    lost: int
    gap: float


class Probe:
    """Streams between (namespace, address) pairs `one` and `other`, until `finish`."""

    def __init__(self, one: tuple[str, str], other: tuple[str, str], rate: int = 1000) -> None:
        self._ends = [
            subprocess.Popen(
                [*prefix(here[0]), sys.executable, "-m", "routed.lab.prober",
                 here[1], there[1], str(rate)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for here, there in ((one, other), (other, one))
        ]  # fmt: skip
        for end in self._ends:
            assert end.stdout is not None
            end.stdout.readline()  # it has bound its socket
        for end in self._ends:
            end.send_signal(signal.SIGUSR1)  # begin to send

    def finish(self) -> tuple[Stream, Stream]:
        """(one to other, other to one)."""
        for end in self._ends:
            end.send_signal(signal.SIGTERM)
        said = [json.loads(end.communicate(timeout=15)[0]) for end in self._ends]
        return (
            Stream(said[0]["sent"], said[0]["sent"] - said[1]["received"], said[1]["gap"]),
            Stream(said[1]["sent"], said[1]["sent"] - said[0]["received"], said[0]["gap"]),
        )

    def abort(self) -> None:
        for end in self._ends:
            end.kill()
            end.wait()


def main(here: str, there: str, rate: int) -> None:
    """Wait for SIGUSR1, send until SIGTERM, receive half a second longer, report."""
    ends: list[float] = []
    begun: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: ends.append(time.monotonic()))
    signal.signal(signal.SIGUSR1, lambda *_: begun.append(True))
    family = socket.AF_INET6 if ":" in here else socket.AF_INET
    link = socket.socket(family, socket.SOCK_DGRAM)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    link.bind((here, PORT))
    link.setblocking(False)
    print("ready", flush=True)
    seen: set[int] = set()
    sent, gap, last = 0, 0.0, 0.0
    start = 0.0
    while not ends or time.monotonic() < ends[0] + 0.5:
        now = time.monotonic()
        if begun and not ends:
            start = start or now
            while sent < (now - start) * rate:
                try:
                    link.sendto(_PACKET.pack(sent), (there, PORT))
                except OSError as error:
                    print(f"send: {error}", file=sys.stderr)
                sent += 1
        while True:
            try:
                data = link.recv(64)
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error for something sent
            (number,) = _PACKET.unpack(data)
            seen.add(number)
            if not ends:
                gap = max(gap, now - last) if last else gap
                last = now
        time.sleep(0.0005)
    print(json.dumps({"sent": sent, "received": len(seen), "gap": round(gap, 4)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
