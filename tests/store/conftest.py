"""Both stores, as one parameter: what the contract says is asked of each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.etcd import Cluster, cluster

from api.store import Store
from api.store.etcd.store import EtcdStore
from api.store.sqlite import SqliteStore

_number = itertools.count()


@dataclass
class Backend:
    """Makes stores; those of one `fresh` share their data, as processes of one service do."""

    name: str
    directory: Path
    loop: asyncio.Runner
    etcd: Cluster | None = None
    place: str = ""
    opened: list[Store] = field(default_factory=list)

    def fresh(self) -> None:
        self.place = f"s{next(_number)}"

    def open(self, first: int = 0) -> Store:
        made: Store
        if self.etcd is None:
            made = SqliteStore(self.directory / f"{self.place}.db", first=first)
        else:
            made = EtcdStore(self.etcd.place(f"/{self.place}"), first=first)
        self.opened.append(made)
        return made

    def run(self, body: Callable[[Store], Awaitable[None]]) -> None:
        """`body` with a store; all that were opened are closed."""

        async def whole() -> None:
            try:
                await body(self.open())
            finally:
                for store in self.opened:
                    await store.close()
                self.opened.clear()

        self.loop.run(whole())


@pytest.fixture(scope="session")
def single_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("etcd")) as made:
        yield made


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.Runner]:
    """One for all: gRPC's library has trouble with a second one in the same process."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["sqlite", "etcd"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, loop: asyncio.Runner) -> Backend:
    etcd = request.getfixturevalue("single_etcd") if request.param == "etcd" else None
    made = Backend(request.param, tmp_path, loop, etcd)
    made.fresh()
    return made
