"""The programs of a history: control planes on one SQLite file, or on an etcd, each on its host.

`prepare` makes pools and nodes; `ending` starts everything anew and reads what there is.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from api.auth import ca, kubeconfig
from support.child import Child
from support.etcd import Cluster, Member, cluster
from support.histories.disk import Disk, LoopDisk, loop_disk, ram_disk
from support.histories.fleet import WATCHED, Plan
from support.histories.lives import Final
from support.histories.net import Host, Net
from support.histories.pools import POOLS
from support.histories.web import Answer, Unanswered, Unsent, Web

PORT = 6443
READY_SECONDS = 40.0
ETCD_DISK = 600 << 20
SEEDS = Path(__file__).with_name("seeds.py")


@dataclass
class Server(Child):
    """One control plane, perhaps with a bug of `seeds`."""

    host: Host
    directory: Path
    store: str
    seed: str = ""

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.log = self.directory / "log"
        config = self.directory / "config.yaml"
        config.write_text("storeInsecure: true\nauditLog: false\n")
        program = [str(SEEDS), self.seed] if self.seed else ["-m", "routed.main"]
        self.words = [*self.host.words, sys.executable, *program, "server"]
        self.words += ["--config", str(config), "--data-dir", str(self.directory)]
        self.words += ["--listen", self.address, "--store", self.store]

    @property
    def admin(self) -> Path:
        return self.directory / "admin.kubeconfig"

    @property
    def address(self) -> str:
        return f"{self.host.address}:{PORT}"


@dataclass
class World:
    net: Net
    directory: Path
    servers: list[Server]
    members: list[Member] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)  # of the members
    disks: list[Disk] = field(default_factory=list)
    etcd: Cluster | None = None

    @property
    def loop_disk(self) -> LoopDisk | None:
        return next((disk for disk in self.disks if isinstance(disk, LoopDisk)), None)

    def start(self) -> None:
        """All at once, with the same CA, and with the credentials that the first makes."""
        first, others = self.servers[0], self.servers[1:]
        common = self.directory / "ca"
        common.mkdir()
        ca.ensure(common, ["localhost"])
        for server in self.servers:
            for name in ("ca.crt", "ca.key"):
                shutil.copy(common / name, server.directory / name)
        for server in others:
            server.admin.touch()
        for server in self.servers:
            server.start()
        _until(first.admin.exists, first)
        for server in others:
            shutil.copy(first.admin, server.admin)
        self.ready()

    def ready(self) -> None:
        for server in self.servers:
            web = self.web([server])
            _until(partial(_answers, web), server)
            web.close()

    def web(self, servers: Iterable[Server]) -> Web:
        access = kubeconfig.read(self.servers[0].admin)
        addresses = [server.address for server in servers]
        return Web(addresses, access.ca.decode(), access.token, random.Random(1))  # noqa: S311

    def prepare(self, nodes: int, number: int, kind: str = "", watchers: int = 2) -> Plan:
        """Pools and nodes are there, and stay there when the power is cut."""
        web = self.web(self.servers[:1])
        for pool in POOLS.values():
            _must(web.ask("POST", "/ippools", pool.document()))

        def join(name: str) -> tuple[str, str]:
            own = self.web(self.servers)
            _must(own.ask("POST", "/nodes", {"metadata": {"name": name}, "spec": {}}))
            config = self.directory / f"{name}.kubeconfig"
            config.write_text(_must(own.ask("POST", f"/nodes/{name}/credentials", {})).text)
            own.close()
            return name, kubeconfig.read(config).token

        with ThreadPoolExecutor(4) as threads:
            tokens = dict(threads.map(join, (f"n{number}" for number in range(nodes))))
        addresses = [server.address for server in self.servers]
        web.close()
        if self.loop_disk is not None:
            self.loop_disk.sync()
        return Plan(self.directory, addresses, web.ca, web.token, tokens, number, kind, watchers)

    @property
    def programs(self) -> list[Child]:
        return [*self.servers, *self.members]

    def revive(self) -> None:
        """Start who has ended by himself, as systemd does: a member of etcd on a full disk, or a
        control plane that was started while it was full."""
        for program in self.programs:
            if program.child is not None and program.child.poll() is not None:
                program.kill()
                program.start()

    def ending(self) -> Final:
        """All is killed and started anew; what there is then."""
        self.net.heal()
        for program in self.programs:
            program.kill()
        for disk in self.disks:
            disk.clear()
        for program in reversed(self.programs):
            program.start()
        self.ready()
        return self.final()

    def final(self) -> Final:
        """What there is, by the last of the control planes."""
        web = self.web(self.servers[-1:])
        final = {
            plural: {
                item["metadata"]["name"]: item["metadata"]["uid"]
                for item in _must(web.ask("GET", f"/{plural}")).document["items"]
            }
            for plural in WATCHED
        }
        web.close()
        return final


@contextlib.contextmanager
def on_sqlite(directory: Path, net: Net, *, count: int = 2, seed: str = "") -> Iterator[World]:
    """`count` control planes on one file."""
    with loop_disk(directory) as disk:
        url = f"sqlite:///{disk.place}/routed.db"
        servers = [Server(net.add(), directory / f"s{n}", url, seed) for n in range(count)]
        with _running(World(net, directory, servers, disks=[disk])) as world:
            yield world


@contextlib.contextmanager
def on_etcd(
    directory: Path, net: Net, *, size: int = 3, count: int = 3, seed: str = ""
) -> Iterator[World]:
    """`count` control planes, `size` members."""
    with contextlib.ExitStack() as stack:
        names = [f"m{number}" for number in range(size)]
        disks = [stack.enter_context(ram_disk(directory / name, ETCD_DISK)) for name in names]
        hosts = [net.add() for _ in names]
        found = stack.enter_context(cluster(directory, size, hosts=hosts))
        servers = [
            Server(net.add(), directory / f"s{number}", found.url, seed) for number in range(count)
        ]
        world = World(net, directory, servers, found.members, hosts, disks, found)
        yield stack.enter_context(_running(world))


@contextlib.contextmanager
def _running(world: World) -> Iterator[World]:
    try:
        world.start()
        yield world
    finally:
        for server in world.servers:
            server.kill()


def _answers(web: Web) -> bool:
    with contextlib.suppress(Unsent, Unanswered):
        return web.ask("GET", "/ippools").code == 200
    return False


def _until(condition: Callable[[], bool], server: Server) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        assert time.monotonic() < deadline, server.log.read_text()[-3000:]
        time.sleep(0.05)


def _must(answer: Answer) -> Answer:
    assert answer.code in (200, 201), answer.text
    return answer
