"""A history, line by line: what a process asked and was told, and what a watch showed it.

Times are seconds of CLOCK_MONOTONIC, which all processes of one machine share. An operation took
effect, if at all, between `invoked` and `returned`; one whose outcome is UNKNOWN may have, or may
still.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FOR_EVER = float("inf")

OK = "ok"
NO = "no"  # refused: nothing was done
THERE = "there"  # what was asked for was there already
FULL = "full"  # refused: no block, or no address, is left
GONE = "gone"  # refused: there is none such (any more)
UNKNOWN = "unknown"  # no answer, or an error of the store
UNSENT = "unsent"  # nobody could be asked: no operation at all, and not written down

ADDRESSES = "addresses"  # those that nodes assign by themselves are no objects of the service


class Operation(NamedTuple):
    """`what` is owned by who has the object: a block, or an address. `uid` tells an object from
    earlier ones of its name; of an assigned address it is the workload. Of a `get`, it is what was
    there ("": nothing)."""

    process: str
    verb: str  # create, adopt, delete, get, list, report
    plural: str
    outcome: str
    invoked: float
    returned: float
    name: str = ""
    uid: str = ""
    what: str = ""
    pool: str = ""
    revision: int = 0
    found: tuple[tuple[str, str], ...] = ()  # of a `list`: names and uids


class Seen(NamedTuple):
    """One line of a watch. PRESENT are those of the state that it began with, BEGIN says that one
    follows, and END that it is whole."""

    process: str
    plural: str
    type: str
    revision: int
    name: str = ""
    uid: str = ""


class Recorder:
    """One process's file."""

    def __init__(self, path: Path, process: str) -> None:
        self.process = process
        self._file = path.open("w", encoding="utf-8")

    def operation(self, made: Operation) -> None:
        self._file.write(json.dumps(["op", *made[1:]]) + "\n")

    def seen(self, line: Seen) -> None:
        self._file.write(json.dumps(["saw", *line[1:]]) + "\n")

    def close(self) -> None:
        self._file.close()


def read(paths: Iterable[Path]) -> tuple[list[Operation], list[Seen]]:
    """All of it; each process's in its order. A file is named after its process."""
    operations: list[Operation] = []
    seen: list[Seen] = []
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                kind, *rest = json.loads(line)
                if kind == "saw":
                    seen.append(Seen(path.stem, *rest))
                else:
                    found = tuple((name, uid) for name, uid in rest.pop())
                    operations.append(Operation(path.stem, *rest, found))
    return operations, seen
