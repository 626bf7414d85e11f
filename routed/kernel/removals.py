"""Who removes routes of ours, or the gateways that workloads have: the kernel writes the port of
the socket that asked into each notification, and a port can be traced to a process while that runs.

The first netlink socket of a process has the process's id as its port, others have made up ones
(net/netlink/af_netlink.c, netlink_autobind); /proc/net/netlink has the inode of each. What has
ended, or is in another pid namespace, has no name here. What the kernel does by itself (a link that
goes takes its routes along) has port 0 and is nobody's.
"""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

MOST = 256  # bursts that are remembered
BURST_SECONDS = 1.0  # that removals by the same program may be apart and count as once
WALK_SECONDS = 1.0  # at least between looks at the files of every process
NETLINK_ROUTE = "0"
UNKNOWN = "a program that has ended"


@dataclass(frozen=True, slots=True)
class Removal:
    """Routes of ours, next hop objects or gateways, that somebody removed within a moment.
    `first` and `last` are seconds of a monotonic clock; `pid` is 0 where it is not known."""

    program: str
    pid: int
    first: float
    last: float
    count: int = 1


class Removals:
    """`recent`: the last bursts, oldest first."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self.recent: deque[Removal] = deque(maxlen=MOST)
        self._proc = proc
        self._port = 0  # of the last burst
        self._holders: dict[str, int] = {}  # process by inode of its socket, as of the last walk
        self._walked = -WALK_SECONDS

    def note(self, port: int, now: float) -> bool:
        """One removal by the socket of that port; whether it begins a burst."""
        if self.recent and port == self._port:
            last = self.recent[-1]
            if now - last.last < BURST_SECONDS:
                self.recent[-1] = replace(last, last=now, count=last.count + 1)
                return False
        self._port = port
        program, pid = self._owner(port, now)
        self.recent.append(Removal(program, pid, now, now))
        return True

    def _owner(self, port: int, now: float) -> tuple[str, int]:
        inode = self._inode(port)
        if not inode:
            return UNKNOWN, 0
        seen = self._sockets(port)
        if seen is None or inode in seen:  # if it is not to be seen, it is its first socket
            return self._named(port)
        if inode not in self._holders and now - self._walked >= WALK_SECONDS:
            self._walked = now
            self._holders = {held: pid for pid in self._pids() for held in self._sockets(pid) or ()}
        return self._named(self._holders.get(inode, 0))

    def _named(self, pid: int) -> tuple[str, int]:
        """A name may be any bytes."""
        try:
            comm = (self._proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return UNKNOWN, 0
        return comm.strip(), pid

    def _sockets(self, pid: int) -> set[str] | None:
        """The inodes of a process's sockets; None if it is there and they are not ours to see."""
        found = set()
        try:
            for descriptor in (self._proc / str(pid) / "fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    kind, _, inode = str(descriptor.readlink()).partition(":[")
                    if kind == "socket":
                        found.add(inode.rstrip("]"))
        except PermissionError:
            return None
        except OSError:
            return set()
        return found

    def _pids(self) -> list[int]:
        return [int(one.name) for one in self._proc.iterdir() if one.name.isdigit()]

    def _inode(self, port: int) -> str:
        """Of the socket of rtnetlink with that port, "" if there is none any more."""
        with contextlib.suppress(OSError):
            lines = (self._proc / "net/netlink").read_text(encoding="ascii").splitlines()
            for line in lines[1:]:
                fields = line.split()
                if fields[1] == NETLINK_ROUTE and fields[2] == str(port):
                    return fields[-1]
        return ""
