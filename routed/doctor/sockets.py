"""TCP sockets of this network namespace, as the kernel lists them (/proc/net/tcp, tcp6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

Address = IPv4Address | IPv6Address


class State(IntEnum):
    """Of a TCP connection; include/net/tcp_states.h."""

    ESTABLISHED = 1
    LISTEN = 10


@dataclass(frozen=True)
class Socket:
    """One line; `state` is a `State`, or a number of the kernel's that is none of these."""

    port: int
    peer: Address
    peer_port: int
    state: int
    inode: str


def tcp() -> list[Socket]:
    """Every TCP socket, of both families; IPv4 behind an IPv6 socket is shown as IPv4."""
    lines = [line for name in ("tcp", "tcp6") for line in lines_of(Path("/proc/self/net") / name)]
    return [parse(line) for line in lines if line.lstrip()[0].isdigit()]


def parse(line: str) -> Socket:
    """A line of /proc/net/tcp or tcp6 (Documentation/networking/proc_net_tcp.rst)."""
    fields = line.split()
    peer, _, peer_port = fields[2].partition(":")
    port = int(fields[1].rpartition(":")[2], 16)
    return Socket(port, _address(peer), int(peer_port, 16), int(fields[3], 16), fields[9])


def _address(text: str) -> Address:
    """Of 8 or 32 hexadecimal digits: words of 32 bits in the machine's own order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    found = ip_address(struct.pack(f"={len(words)}I", *words))
    return getattr(found, "ipv4_mapped", None) or found


def lines_of(path: Path) -> list[str]:
    """The lines of a file of /proc; none if it is gone."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
