"""Bugs that the judge must find, and the control plane with one of them.

    python seeds.py SEED server ...

is `routed server ...` with functions of it replaced; the product has no switch for any of this.
What makes a race wide is no bug by itself: `late` and `slow` are what any network and any disk may
do, and by themselves the judge must find nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from api.resources.errors import RoutedError, StorageError
from api.store.seam import StoreConflict

if TYPE_CHECKING:
    from support.histories.node import Node

SLOW_SECONDS = 0.02  # before each commit
LATE_SECONDS = 0.5  # at most, of a deletion that was not answered
LATE = 0.5  # of all deletions of blocks
SELDOM = 0.1

Puts = Mapping[str, bytes | None]


def slow() -> None:
    """A commit takes its time."""
    for store in _stores():
        _before_commit(store, lambda expect: expect)


def no_cas() -> None:
    """A commit does not look at the revisions that it was decided on."""
    for store in _stores():
        _before_commit(store, lambda expect: {})


def check_then_write() -> None:
    """It does, but before its transaction."""
    for store in _stores():
        commit = store.commit

        async def looking(
            self: Any, expect: Mapping[str, int], puts: Puts, do: Any = commit
        ) -> Any:
            _, items = await self.scan("/")
            held = {item.key: item.revision for item in items}
            for key, revision in expect.items():
                if held.get(key, 0) != revision:
                    raise StoreConflict(key)
            await asyncio.sleep(SLOW_SECONDS)
            return await do(self, {}, puts)

        store.commit = looking


def no_guard() -> None:
    """Each decision compares what it is about, and not the guard of all such decisions."""
    from api.service.turns import Turn

    take = Turn.take

    def skewed(self: Turn, asked: Any, state: Any) -> None:
        decide = asked.decide
        unguarded = replace(asked, decide=lambda state: replace(decide(state), guard=""))
        take(self, unguarded, state)

    Turn.take = skewed  # type: ignore[method-assign]
    slow()


def late(*, by_name: bool = False) -> None:
    """The answer to a deletion is lost, and it is carried out later; also when the block was
    deleted by then, and claimed again."""
    from api.service.objects import Objects

    delete, tasks = Objects.delete, set()

    async def delayed(self: Objects, kind: Any, name: str, asked: Any, may: Any, **how: Any) -> Any:
        if by_name:
            asked = {}
        if kind.plural != "ipblocks" or random.random() > LATE:  # noqa: S311
            return await delete(self, kind, name, asked, may, **how)

        async def later() -> None:
            await asyncio.sleep(random.uniform(0, LATE_SECONDS))  # noqa: S311
            with contextlib.suppress(RoutedError):  # nobody waits for it
                await delete(self, kind, name, asked, may, **how)

        task = asyncio.get_running_loop().create_task(later())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        raise StorageError("cannot say whether it was done")

    Objects.delete = delayed  # type: ignore[method-assign,assignment]


def aba() -> None:
    """A release names the block alone: not which of the claims of it is given back."""
    late(by_name=True)


def gaps_and_full() -> None:
    """Two bugs that do not meet: now and then a watch leaves out a change, and a pool is said to be
    full that is not."""
    from api.ipam.space import Space
    from api.service.feeds import Feed

    put, lowest = Feed.put, Space.lowest_free

    def losing(self: Feed, line: bytes) -> None:
        if random.random() > SELDOM:  # noqa: S311
            put(self, line)

    def wrong(self: Space, pool: Any) -> Any:
        return None if random.random() < SELDOM else lowest(self, pool)  # noqa: S311

    Feed.put = losing  # type: ignore[method-assign]
    Space.lowest_free = wrong  # type: ignore[method-assign]


def slow_and_late() -> None:
    """No bug: what the others need to do harm."""
    slow()
    late()


def not_synced() -> None:
    """SQLite acknowledges what the disk does not have yet."""
    from api.store.sqlite import store

    opened = store.opened

    def careless(*words: Any, **options: Any) -> sqlite3.Connection:
        connection = opened(*words, **options)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    store.opened = careless  # type: ignore[assignment]


SEEDS: dict[str, Callable[[], None]] = {
    "slow-and-late": slow_and_late,
    "no-cas": no_cas,
    "check-then-write": check_then_write,
    "no-guard": no_guard,
    "aba": aba,
    "gaps-and-full": gaps_and_full,
    "synchronous-off": not_synced,
}


def node_class(kind: str) -> type[Node]:
    """Nodes that claim and give back more than they use what they have (`restless`), and such
    with a bug of their own (`no-cool-down`)."""
    from api.ipam.allocator import Allocator
    from support.histories.node import Node

    class Restless(Node):
        def __post_init__(self) -> None:
            super().__post_init__()
            often = (self.claim, self.give_back, self.leases.make, self.leases.end)
            self.deeds |= dict.fromkeys(often, 30)

    class Hasty(Allocator):
        """What is freed is free."""

        def release(self, owner: str, now: float) -> list[Any]:
            freed = list(self._held.get(owner, ()))
            self.forget(owner)
            return freed

    class HastyNode(Node):
        def __post_init__(self) -> None:
            super().__post_init__()
            self.allocator = Hasty()

    return {"": Node, "restless": Restless, "no-cool-down": HastyNode}[kind]


def _stores() -> list[Any]:
    from api.store.etcd.store import EtcdStore
    from api.store.sqlite.store import SqliteStore

    return [SqliteStore, EtcdStore]


def _before_commit(store: Any, expecting: Callable[[Mapping[str, int]], Mapping[str, int]]) -> None:
    commit = store.commit

    async def slowly(self: Any, expect: Mapping[str, int], puts: Puts) -> Any:
        await asyncio.sleep(SLOW_SECONDS)
        return await commit(self, expecting(expect), puts)

    store.commit = slowly


if __name__ == "__main__":
    from routed.main import main

    SEEDS[sys.argv.pop(1)]()
    main()
