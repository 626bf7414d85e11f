"""What goes wrong: one fault at a time, the next one a moment after it is over.

Each is a block that is entered when it begins and left when it ends.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.child import Child
from support.etcd import Member
from support.histories.fleet import Fleet
from support.histories.net import Host
from support.histories.world import World

Fault = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass
class Nemesis:
    """`pause` and `last` are the least and the most seconds between faults, and of one."""

    world: World
    fleet: Fleet
    chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311
    pause: tuple[float, float] = (0.1, 0.3)
    last: tuple[float, float] = (0.2, 0.9)
    counted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.faults: dict[str, Fault] = {
            "control plane kill -9": lambda: killed(self.one_of(self.world.servers)),
            "control plane stopped": lambda: stopped(self.one_of(self.world.servers)),
            "nodes stopped": self.nodes_stopped,
            "nodes cut off": self.nodes_cut_off,
            "disk full": self.disk_full,
        }
        if self.world.members:
            self.faults |= {
                "member kill -9": lambda: killed(self.one_of(self.world.members)),
                "leader kill -9": lambda: killed(self.leader()),
                "member stopped": lambda: stopped(self.one_of(self.world.members)),
                "members cut apart": self.members_cut_apart,
                "leader cut off": self.leader_cut_off,
                "control plane cut off": self.control_plane_cut_off,
            }
        else:
            self.faults["power cut"] = self.power_cut
        self._order: list[str] = []

    def one_of(self, programs: Sequence[Child]) -> Child:
        return self.chance.choice(programs)

    def strike(self) -> None:
        """One fault; each sort comes as often as any other."""
        if not self._order:
            self._order = [*self.faults]
            self.chance.shuffle(self._order)
        name = self._order.pop()
        time.sleep(self.chance.uniform(*self.pause))
        with self.faults[name]():
            time.sleep(self.chance.uniform(*self.last))
        self.world.revive()
        self.counted[name] += 1

    # -- nodes ------------------------------

    @contextlib.contextmanager
    def nodes_stopped(self) -> Iterator[None]:
        ids = self.chance.sample(self.fleet.board.ids(self.fleet.nodes), 3)
        for one in ids:
            os.kill(one, signal.SIGSTOP)
        try:
            yield
        finally:
            for one in ids:
                os.kill(one, signal.SIGCONT)

    @contextlib.contextmanager
    def nodes_cut_off(self) -> Iterator[None]:
        """A control plane hears nothing from any node, or none of them from it."""
        net, host = self.world.net, self.chance.choice(self.world.servers).host
        some, others = self.chance.sample([[host], [net.hub]], 2)
        with self.cut(some, others, both=False):
            yield

    # -- disks ------------------------------

    @contextlib.contextmanager
    def disk_full(self) -> Iterator[None]:
        disk = self.chance.choice(self.world.disks)
        disk.fill()
        try:
            yield
        finally:
            disk.clear()

    @contextlib.contextmanager
    def power_cut(self) -> Iterator[None]:
        """Whatever was not synced is lost. Answers that were on their way may have arrived."""
        disk, servers = self.world.loop_disk, self.world.servers
        assert disk is not None
        for server in servers:
            server.send(signal.SIGSTOP)
        for server in servers:
            stands_still(server)
        snapshot = disk.snapshot()
        for server in servers:
            server.kill()
        disk.lose_power(snapshot)
        for server in servers:
            server.start()
        yield

    # -- network ------------------------------

    @contextlib.contextmanager
    def cut(self, some: list[Host], others: list[Host], *, both: bool = True) -> Iterator[None]:
        self.world.net.cut(some, others, both=both)
        try:
            yield
        finally:
            self.world.net.heal()

    @contextlib.contextmanager
    def members_cut_apart(self) -> Iterator[None]:
        """One from both others, or two from each other."""
        hosts = self.chance.sample(self.world.hosts, len(self.world.hosts))
        with self.cut(hosts[:1], hosts[1 : self.chance.choice((2, 3))]):
            yield

    @contextlib.contextmanager
    def leader_cut_off(self) -> Iterator[None]:
        """From the other members, but not from the control planes."""
        place = self.world.members.index(self.leader())
        hosts = self.world.hosts
        with self.cut([hosts[place]], hosts[:place] + hosts[place + 1 :]):
            yield

    @contextlib.contextmanager
    def control_plane_cut_off(self) -> Iterator[None]:
        """From some or all members."""
        count = self.chance.randint(1, len(self.world.hosts))
        server, hosts = self.chance.choice(self.world.servers), self.world.hosts
        both = self.chance.random() < 0.5
        with self.cut([server.host], self.chance.sample(hosts, count), both=both):
            yield

    def leader(self) -> Member:
        assert self.world.etcd is not None
        return self.world.etcd.leader()


@contextlib.contextmanager
def killed(victim: Child) -> Iterator[None]:
    victim.kill()
    try:
        yield
    finally:
        victim.start()


@contextlib.contextmanager
def stopped(victim: Child) -> Iterator[None]:
    victim.send(signal.SIGSTOP)
    try:
        yield
    finally:
        victim.send(signal.SIGCONT)


def stands_still(victim: Child) -> None:
    """Wait until each of its threads does: one that is in a system call ends that first."""
    assert victim.child is not None
    tasks = Path(f"/proc/{victim.child.pid}/task")
    deadline = time.monotonic() + 10
    while any(_state(task) not in "TZ" for task in tasks.iterdir()):
        assert time.monotonic() < deadline, "it does not stop"
        time.sleep(0.002)


def _state(task: Path) -> str:
    return task.joinpath("stat").read_text().rpartition(") ")[2][0]
