"""Never two owners, by histories: nodes claim and give back blocks of a pool that is too small for
them, while the programs under them are killed or stand still.

A write without an answer may have been carried out, or be so later. So an owner is sure of a block
from the answer to its claim until it asks to give it back, and these times must not overlap. At
the end everything is started anew, and what was acknowledged must be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.child import Child
from support.etcd import cluster
from support.rig import Figures
from support.service import free_port

from api.client import Client, Unreachable
from api.resources import IPBlock, Node
from api.resources.errors import IntentError, NotFound, RoutedError
from api.resources.ippool import IPBlockSpec
from api.resources.meta import ObjectMeta
from api.resources.node import NodeSpec

NODES = 8  # for a pool of four blocks
SHORT, FULL = 10.0, 300.0
FOR_EVER = float("inf")


@dataclass
class Server(Child):
    """One control plane."""

    directory: Path
    store: str
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.log = self.directory / "log"
        self.words = [sys.executable, "-m", "routed.main", "server"]
        self.words += ["--listen", f"127.0.0.1:{self.port}"]
        self.words += ["--data-dir", str(self.directory), "--store", self.store]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def ready(self, admin: Path) -> None:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(RoutedError):
                    client = Client.from_kubeconfig(admin, self.url)
                    try:
                        await client.list(Node)
                        return
                    finally:
                        await client.close()
                await asyncio.sleep(0.1)


@dataclass
class World:
    servers: list[Server]
    victims: list[Child]


@pytest.fixture(params=["sqlite", "etcd"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """One control plane on a file, or three on an etcd of three."""
    with contextlib.ExitStack() as stack:
        victims: list[Child] = []
        store, count = f"sqlite:///{tmp_path}/routed.db", 1
        if request.param == "etcd":
            members = stack.enter_context(cluster(tmp_path, 3))
            store, count = members.url, 3
            victims += members.members
        servers = [Server(tmp_path / f"s{number}", store) for number in range(count)]
        for server in servers:
            server.directory.mkdir()
            stack.callback(server.kill)
        yield World(servers, [*victims, *servers])


@dataclass
class Owned:
    """`block` is `node`'s for sure from `since` until `until`."""

    block: str
    node: str
    since: float
    until: float = FOR_EVER


@dataclass
class History:
    owned: list[Owned] = field(default_factory=list)
    operations: int = 0
    unknown: int = 0
    faults: int = 0

    def overlaps(self) -> list[tuple[Owned, Owned]]:
        found = []
        for number, one in enumerate(self.owned):
            for other in self.owned[number + 1 :]:
                apart = one.block != other.block or one.node == other.node
                if not apart and one.since < other.until and other.since < one.until:
                    found.append((one, other))
        return found


async def live(client: Client, node: str, history: History, until: float, seed: int) -> None:
    """Claim and give back; what a claim without an answer has left is found and given back."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable choice
    while time.monotonic() < until:
        mine: Owned | None = None
        try:
            history.operations += 1
            wanted = IPBlock(
                metadata=ObjectMeta(name="claim"), spec=IPBlockSpec(node=node, pool="p")
            )
            made = await client.create(wanted)
            assert made.spec.node == node
            mine = Owned(made.metadata.name, node, time.monotonic())
            history.owned.append(mine)
            await asyncio.sleep(chance.uniform(0, 0.1))
            history.operations += 1
            if chance.random() < 0.1 and time.monotonic() + 1 > until:
                return  # kept
            mine.until = time.monotonic()
            await client.delete(IPBlock, mine.block, uid=made.metadata.uid)
        except IntentError:
            await asyncio.sleep(chance.uniform(0, 0.05))  # the pool is full
        except (RoutedError, Unreachable):
            history.unknown += 1
            await asyncio.sleep(chance.uniform(0, 0.1))
            await give_back(client, node)


async def give_back(client: Client, node: str) -> None:
    """Whatever the service says is ours; we are sure of none of it."""
    with contextlib.suppress(RoutedError):
        for block in await client.list(IPBlock, fields=f"spec.node={node}"):
            with contextlib.suppress(NotFound):
                await client.delete(IPBlock, block.metadata.name, uid=block.metadata.uid)


async def torment(world: World, history: History, until: float) -> None:
    """One fault at a time, the next a moment after it is over."""
    chance = random.Random(7)  # noqa: S311
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(0.3, 0.8))
        victim = chance.choice(world.victims)
        history.faults += 1
        if chance.random() < 0.5:
            victim.kill()
            await asyncio.sleep(chance.uniform(0, 0.5))
            victim.start()
        else:
            victim.send(signal.SIGSTOP)
            await asyncio.sleep(chance.uniform(0.3, 2.0))
            victim.send(signal.SIGCONT)


async def prepare(world: World, directory: Path) -> list[Client]:
    """The pool, and a client for each node."""
    first, admin = world.servers[0], world.servers[0].directory / "admin.kubeconfig"
    first.start()
    await first.ready(admin)
    for server in world.servers[1:]:
        for name in ("ca.crt", "ca.key", "admin.kubeconfig"):
            shutil.copy(first.directory / name, server.directory / name)
        server.start()
        await server.ready(admin)
    head = Client.from_kubeconfig(admin, first.url)
    pool = {"metadata": {"name": "p"}, "spec": {"cidr": "10.9.0.0/28", "blockSize": 30}}
    await head.raw("POST", "/ippools", json=pool)
    clients = []
    for number in range(NODES):
        name = f"n{number}"
        await head.create(Node(metadata=ObjectMeta(name=name), spec=NodeSpec()))
        config = directory / f"{name}.kubeconfig"
        config.write_text(await head.credentials(f"nodes/{name}", {}))
        urls = [server.url for server in world.servers]
        urls = urls[number % len(urls) :] + urls[: number % len(urls)]
        clients.append(Client.from_kubeconfig(config, urls[0], urls))
    await head.close()
    return clients


def test_no_block_has_two_owners_whatever_dies(
    world: World, tmp_path: Path, figures: Figures, full: bool, request: pytest.FixtureRequest
) -> None:
    history = History()

    async def whole() -> dict[str, str]:
        clients = await prepare(world, tmp_path)
        until = time.monotonic() + (FULL if full else SHORT)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(torment(world, history, until))
            for number, client in enumerate(clients):
                tasks.create_task(live(client, f"n{number}", history, until, number))
        admin = world.servers[0].directory / "admin.kubeconfig"
        for victim in world.victims:
            victim.kill()
        for victim in world.victims:
            victim.start()
        for server in world.servers:
            await server.ready(admin)
        head = Client.from_kubeconfig(admin, world.servers[-1].url)
        held = {block.metadata.name: block.spec.node for block in await head.list(IPBlock)}
        for client in (head, *clients):
            await client.close()
        return held

    held = asyncio.run(whole())
    sure = {owned.block: owned.node for owned in history.owned if owned.until == FOR_EVER}
    assert history.overlaps() == []
    assert sure
    assert {block: held.get(block) for block in sure} == sure
    assert len(history.owned) > 50
    assert history.faults >= 3
    name = request.node.callspec.params["world"]
    figures.rows.append(
        (
            f"histories on {name}: kill -9, SIGSTOP",
            "two owners 0, acknowledged lost 0",
            f"0, 0 of {history.operations} operations, {history.faults} faults, "
            f"{history.unknown} without an answer",
        )
    )


def test_the_judge_sees_two_owners() -> None:
    one, two = Owned("b", "n1", 1, 5), Owned("b", "n2", 4, 9)
    assert History([one, two]).overlaps() == [(one, two)]
    assert History([one, Owned("b", "n2", 5, 9), Owned("c", "n2", 1, 9)]).overlaps() == []
    assert History([one, Owned("b", "n1", 4, 9)]).overlaps() == []
