"""Making stores of either kind, for what is asked of both."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from api.resources.errors import StorageError
from api.store import Store
from api.store.etcd.store import EtcdStore
from api.store.sqlite.store import SqliteStore
from support.etcd import Cluster

_number = itertools.count()
Puts = Mapping[str, bytes | None]


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


class Watched(SqliteStore):
    """Counts commits; `before` runs ahead of each, as another process would; `broken` fails."""

    commits = 0
    broken = False
    before: Callable[[Puts], Awaitable[None]] | None = None

    async def commit(self, expect: Mapping[str, int], puts: Puts) -> dict[str, int]:
        self.commits += 1
        if self.before is not None:
            await self.before(puts)
        if self.broken:
            raise StorageError("cannot write to the store: no room", full=True)
        return await super().commit(expect, puts)
