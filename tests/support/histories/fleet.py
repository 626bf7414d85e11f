"""The processes of a history: nodes and watchers, forked from one that has everything imported.

It is told all in a file, and what it is to do in a page of memory that it shares with who started
it (`Board`): so one who stands still does not hold up the others.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from support.histories.asking import Asking
from support.histories.record import Recorder
from support.histories.watcher import Watcher
from support.histories.web import Web

WATCHED = ("ipblocks", "addressleases", "workloads")
RUN, STOP_NODES, STOP_ALL = range(3)
PAUSE_SECONDS = 0.01  # after a step that asked nothing that could be carried out
TESTS = Path(__file__).resolve().parents[2]


class Board:
    """Shared memory: the phase, and of each process its id and how many operations it has done."""

    WORD = struct.Struct("q")

    def __init__(self, path: Path, size: int = 4096) -> None:
        with path.open("a+b") as file:
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)

    def get(self, place: int) -> int:
        return int(self.WORD.unpack_from(self._map, place * 8)[0])

    def put(self, place: int, value: int) -> None:
        self.WORD.pack_into(self._map, place * 8, value)

    @property
    def phase(self) -> int:
        return self.get(0)

    def ids(self, count: int) -> list[int]:
        return [self.get(1 + 2 * number) for number in range(count)]

    def operations(self, count: int) -> int:
        return sum(self.get(2 + 2 * number) for number in range(count))


@dataclass(frozen=True)
class Plan:
    """`tokens` by node; `kind` says what sort of nodes they are (`seeds.node_class`), `watchers`
    how many watch each kind of object."""

    directory: Path
    servers: Sequence[str]
    ca: str
    operator: str
    tokens: Mapping[str, str]
    number: int
    kind: str = ""
    watchers: int = 2

    def write(self) -> Path:
        path = self.directory / "plan.json"
        path.touch(0o600)
        path.write_text(json.dumps(self.__dict__ | {"directory": str(self.directory)}))
        return path

    @classmethod
    def read(cls, path: Path) -> Plan:
        held: dict[str, Any] = json.loads(path.read_text())
        return cls(**held | {"directory": Path(held["directory"])})


class Fleet:
    """The processes, from outside."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.nodes = len(plan.tokens)
        self.board = Board(plan.directory / "board")
        self.log = plan.directory / "fleet.log"
        with self.log.open("wb") as output:
            self.child = subprocess.Popen(
                [sys.executable, str(Path(__file__)), str(plan.write())],
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": str(TESTS)},
            )

    @property
    def operations(self) -> int:
        return self.board.operations(self.nodes)

    def begun(self) -> None:
        """Every node has done something."""
        deadline = time.monotonic() + 30
        while not all(self.board.get(2 + 2 * number) for number in range(self.nodes)):
            self.check()
            assert time.monotonic() < deadline, "a node does not begin"
            time.sleep(0.02)

    def check(self) -> None:
        """They all run."""
        assert self.child.poll() is None, self.log.read_text()[-4000:]

    def stop_nodes(self) -> None:
        self.board.put(0, STOP_NODES)
        deadline = time.monotonic() + 30
        while any(self.board.ids(self.nodes)):
            self.check()
            assert time.monotonic() < deadline, "a node goes on"
            time.sleep(0.02)

    def stop(self) -> None:
        """The watchers too; each has ended well."""
        self.board.put(0, STOP_ALL)
        assert self.child.wait(60) == 0, self.log.read_text()[-4000:]

    def kill(self) -> None:
        if self.child.poll() is None:
            self.child.terminate()
            self.child.wait(15)

    def histories(self) -> list[Path]:
        return sorted(self.plan.directory.glob("*.history"))


def node(plan: Plan, name: str, number: int, board: Board) -> None:
    from support.histories.seeds import node_class

    chance = random.Random(f"{plan.number} {name}")  # noqa: S311 - a repeatable choice
    place = 1 + 2 * number
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        board.put(place + 1, done)

    recorder = Recorder(plan.directory / f"{name}.history", name)
    web = Web(plan.servers, plan.ca, plan.tokens[name], chance)
    operator = Web(plan.servers, plan.ca, plan.operator, chance)
    one = node_class(plan.kind)(
        name, len(plan.tokens), web, operator, Asking(recorder, count), chance
    )
    while board.phase == RUN:
        before = done
        one.step()
        if done == before:
            time.sleep(PAUSE_SECONDS)
    recorder.close()


def watcher(plan: Plan, name: str, plural: str, board: Board) -> None:
    recorder = Recorder(plan.directory / f"{name}.history", name)
    web = Web(plan.servers, plan.ca, plan.operator, random.Random(name))  # noqa: S311
    Watcher(web, plural, recorder).run(lambda: board.phase == STOP_ALL)
    recorder.close()


def forked(body: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            body()
            code = 0
        except BaseException:  # noqa: BLE001 - told in the log, and by the exit code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return child


def main(plan: Plan) -> int:
    from support.histories.seeds import node_class

    node_class(plan.kind)  # imported here, once for all
    board = Board(plan.directory / "board")
    places: dict[int, int] = {}  # by process id
    for number, name in enumerate(plan.tokens):
        child = forked(partial(node, plan, name, number, board))
        places[child] = 1 + 2 * number
        board.put(places[child], child)
    for number in range(plan.watchers):
        for plural in WATCHED:
            name = f"watcher{number}-{plural}"
            child = forked(partial(watcher, plan, name, plural, board))
            places[child] = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        while places:
            child, status = os.wait()
            place = places.pop(child)
            if status:
                return 1
            if place:
                board.put(place, 0)
        return 0
    finally:
        for child in places:
            os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Plan.read(Path(sys.argv[1]))))
