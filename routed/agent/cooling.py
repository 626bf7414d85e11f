"""What cools down, written down: a log that outlives a reboot, one line for each freed address.

A line is appended before anybody can have the address, so an agent that dies forgets none; the file
is written anew when most of it has cooled down. Times are CLOCK_MONOTONIC seconds, which all
processes of one boot share, so the log begins with a word of the boot's: what an earlier boot has
left cools once more, from now on. Nothing is fsynced: a power cut may take the last seconds of it.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from api.ipam.allocator import Cooling
from api.resources.net import IPAddress, parse_address
from routed.agent.records import write_atomic

SLACK = 256  # lines that may be in vain


class CoolingLog:
    """One writer. `add` raises OSError, and what it was given is then written with the next."""

    def __init__(self, path: Path, boot: bytes) -> None:
        self.path = path
        self.boot = boot
        self._descriptor: int | None = None
        self._lines = 0
        self._torn = False

    def load(self) -> tuple[dict[IPAddress, Cooling], bool]:
        """What was written, and whether in this boot. A line that was torn is the last one, of an
        address that nobody was given."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return {}, False
        found = {}
        for line in lines[1:]:
            try:
                address, owner, since, *_ = json.loads(line)  # a newer agent may say more
                found[parse_address(address)] = Cooling(str(owner), float(since))
            except (ValueError, TypeError):
                self._torn = True
        return found, lines[:1] == [self.boot]

    def add(
        self, freed: Iterable[tuple[IPAddress, Cooling]], everything: dict[IPAddress, Cooling]
    ) -> None:
        """Write down what was just `freed`; `everything` is what cools, these included."""
        if self._descriptor is None or self._torn or self._lines > 2 * len(everything) + SLACK:
            self.rewrite(everything)
            return
        entries = list(freed)
        data = _lines(entries)
        try:
            self._torn = os.write(self._descriptor, data) != len(data)
        except OSError:
            self._torn = True
            raise
        self._lines += len(entries)

    def tidy(self, everything: dict[IPAddress, Cooling]) -> None:
        """Write the log anew if there is anything else in it."""
        if self._descriptor is None or self._torn or self._lines != len(everything):
            self.rewrite(everything)

    def rewrite(self, everything: dict[IPAddress, Cooling]) -> None:
        """Write the log anew."""
        self.close()
        write_atomic(self.path, self.boot + b"\n" + _lines(everything.items()), durable=False)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines, self._torn = len(everything), False

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def boot_of(run_dir: Path) -> bytes:
    """What tells this boot of the host from all others: a word in /run, which a reboot empties."""
    path = run_dir / "boot"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        word = uuid.uuid4().hex.encode()
        write_atomic(path, word, durable=False)
        return word


def _lines(entries: Iterable[tuple[IPAddress, Cooling]]) -> bytes:
    return b"".join(
        json.dumps([str(address), cooling.owner, round(cooling.since, 3)]).encode() + b"\n"
        for address, cooling in entries
    )
