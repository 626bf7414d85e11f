"""What the lab needs of a switch's routing daemon, and the daemons that it has.

A daemon is a module: how to start it as a ToR, and what is in its BGP table. Every ToR accepts
the hosts of its subnet whatever their ASN, helps them over a restart (RFC 4724), and tells the
client behind it what it has learned.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from routed.lab import bird, frr, gobgp
from routed.lab.fabric import LabError
from routed.lab.processes import Process
from routed.lab.topology import BOTH, Topology, Tor


class TorDaemon(StrEnum):
    """The value of `--tor-daemon`."""

    BIRD = "bird"
    FRR = "frr"
    GOBGP = "gobgp"


class Switch(Protocol):
    """One daemon."""

    PACKAGE: str
    PROGRAMS: tuple[str, ...]

    def processes(self, top: Topology, tor: Tor, directory: Path) -> list[Process]:
        """Its processes for this ToR in the order of their start; none is started yet."""

    def prefixes(
        self, directory: Path, namespace: str, versions: Sequence[int] = BOTH
    ) -> dict[str, list[str]]:
        """The BGP routes of its tables: prefix to the next hops of every path in it. Those of other
        `versions` of IP may be left out.

        What the ToR originates itself is left out. LabError while it does not answer.
        """


_SWITCHES: dict[TorDaemon, Switch] = {
    TorDaemon.BIRD: bird,
    TorDaemon.FRR: frr,
    TorDaemon.GOBGP: gobgp,
}


def switch_of(daemon: TorDaemon) -> Switch:
    return _SWITCHES[daemon]


def check_installed(daemon: TorDaemon) -> None:
    """LabError that names what is missing on this machine, and the package that has it."""
    switch = _SWITCHES[daemon]
    missing = [program for program in switch.PROGRAMS if shutil.which(program) is None]
    if missing:
        raise LabError(
            f"cannot run ToRs with {daemon}: {', '.join(missing)} not found; "
            f"install the package {switch.PACKAGE}"
        )
