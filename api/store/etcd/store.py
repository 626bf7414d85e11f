"""The store on etcd: each commit is one transaction of it, each decision rests on its comparisons.

Linearizable: `since` reads the revision of the key `head` from the cluster's leader and then waits
until the process's one watch has delivered up to it. No lock or lease of etcd says who owns what.

Every transaction compares the key `store` as well: a process whose store was moved away, or put
in the place of another, writes nothing any more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from aetcd import rpc

from api.resources import versions
from api.resources.errors import Cause, ConfigError, StorageError
from api.store.etcd.connection import Connection, Gone
from api.store.etcd.following import Following, Head, head_of
from api.store.etcd.keys import Keys, range_end
from api.store.etcd.numbers import PLACES, Numbers, stamped, unstamped
from api.store.etcd.place import EtcdPlace
from api.store.seam import Changes, Compacted, Item, StoreConflict, another_schema

KEYS_MOST = 126  # in one transaction, which takes 128, ours included
PAGE = 1000  # keys in one answer
SCANS = 5  # tries of a scan, if it is compacted away under our hands
VERSION = 1  # of how it all lies in etcd


class EtcdStore:
    """Connects when it is first used. `first` is the least revision of a store that is new (None:
    there must be one).
    `filling`: it must be, and nobody else uses it until it is `filled`."""

    spacing = PLACES

    def __init__(self, place: EtcdPlace, *, first: int | None = 0, filling: bool = False) -> None:
        self.place = place
        self._first = first
        self._filling = filling
        self._keys = Keys(place.prefix)
        self._opening = asyncio.Lock()
        self._connection: Connection | None = None
        self._following: Following | None = None
        self._numbers = Numbers(0)
        self._store_at = 0  # etcd's revision of the key `store`
        self._reading = asyncio.Lock()
        self._next: asyncio.Task[Head] | None = None  # the read of the head that has not begun

    async def scan(self, prefix: str) -> tuple[int, list[Item]]:
        connection, _ = await self._opened()
        for _ in range(SCANS):
            head = await head_of(connection, self._keys)
            try:
                items = await self._scan(connection, self._keys.theirs(prefix), head.at)
            except Gone:
                continue
            return self._numbers.whole(head.main), items
        raise StorageError(f"cannot read the store, {self.place}: compacted while it was read")

    async def since(self, after: int) -> Changes:
        _, following = await self._opened()
        head = await self._head()
        if after >= self._numbers.whole(head.main):
            return Changes(after, [], more=False)
        if self._numbers.main(after) < 0:
            raise Compacted(f"cannot watch from revision {after}: it is of another store")
        await following.until(head.main)
        return following.recent(after) or await following.past(after, head.main)

    async def changed(self, after: int) -> None:
        _, following = await self._opened()
        await following.beyond(after)

    async def commit(
        self, expect: Mapping[str, int], puts: Mapping[str, bytes | None]
    ) -> dict[str, int]:
        connection, _ = await self._opened()
        if max(len(expect), len(puts)) > KEYS_MOST:
            count = max(len(expect), len(puts))
            raise StorageError(f"cannot write to the store: {count} keys are too many at once")
        answer = await connection.write(lambda at: at.kv.Txn, self._transaction(expect, puts))
        if not answer.succeeded:
            raise self._conflict(expect, answer)
        main = answer.header.revision
        return {key: self._numbers.of(main, place) for place, key in enumerate(_ordered(puts))}

    async def tell(self, teller: str, text: bytes) -> None:
        connection, _ = await self._opened()
        key = self._keys.told + teller.encode()
        if text:
            said = _put(key, text)
        else:
            said = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
        await connection.write(lambda at: at.kv.Txn, rpc.TxnRequest(success=[said]))

    async def told(self) -> dict[str, bytes]:
        connection, _ = await self._opened()
        start = self._keys.told
        asked = rpc.RangeRequest(key=start, range_end=range_end(start))
        answer = await connection.read(lambda member: member.kv.Range, asked)
        return {kv.key.removeprefix(start).decode(): kv.value for kv in answer.kvs}

    async def compact(self, before: int) -> None:
        connection, following = await self._opened()
        head = await self._head()
        before = min(before, self._numbers.whole(head.main) + 1)
        # what happens in etcd's revision of the compaction itself is not kept as a whole
        revision = self._numbers.main(before) - 1
        if revision <= 0:
            return
        following.forget(before - 1)
        try:
            await connection.write(
                lambda member: member.kv.Compact, rpc.CompactionRequest(revision=revision)
            )
        except Gone:
            return  # another process has done it

    async def filled(self) -> None:
        """What was being filled is whole: it can be used."""
        await self._say({})

    async def moved(self, elsewhere: str) -> None:
        """From now on nobody writes here, and no program starts on it; "" takes that back."""
        await self._say({"moved": elsewhere} if elsewhere else {})

    async def _say(self, more: dict[str, str]) -> None:
        connection, _ = await self._opened()
        text = _said(self._numbers.base, more)
        key = self._keys.store
        put = rpc.TxnRequest(
            compare=[_at(key, self._store_at)],
            success=[_put(key, text.encode()), _put(self._keys.head, b"")],
        )
        answer = await connection.write(lambda member: member.kv.Txn, put)
        if not answer.succeeded:
            raise self._unusable("another program has just changed what it is")
        self._store_at = answer.header.revision

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
        if self._following is not None:
            await self._following.close()
        if self._connection is not None:
            await self._connection.close()

    # -- opening -----------------------------------------------------------------------------------

    async def _opened(self) -> tuple[Connection, Following]:
        if self._connection is not None and self._following is not None:
            return self._connection, self._following
        async with self._opening:
            if self._connection is None:
                self._connection = Connection(self.place)
            if self._following is None:
                await self._identify(self._connection)
                head = await head_of(self._connection, self._keys)
                self._following = Following(self._connection, self._numbers, self._keys, head)
            return self._connection, self._following

    async def _identify(self, connection: Connection) -> None:
        """What store this is; a new one if there is none."""
        kept = await self._read_store(connection)
        if kept is None and self._first is None:
            raise self._unusable(f"there is none below {self.place.prefix}/")
        if kept is None:
            filling = {"filling": True} if self._filling else {}
            text = _said(self._first, filling)
            key = self._keys.store
            made = rpc.TxnRequest(
                compare=[_at(key, 0)],
                success=[_put(key, text.encode()), _put(self._keys.head, b"")],
            )
            answer = await connection.write(lambda member: member.kv.Txn, made)
            kept = await self._read_store(connection)
            if self._filling and not answer.succeeded:  # another process did it
                raise self._unusable("is not empty")
        elif self._filling:
            raise self._unusable("is not empty")
        if kept is None:
            raise StorageError(f"cannot open the store, {self.place}: it was taken away")
        try:
            held = json.loads(kept.value)
            base, version = int(held["base"]), held["version"]
            moved, filling = held.get("moved", ""), held.get("filling", False)
        except (ValueError, KeyError, TypeError) as error:
            raise self._unusable(f"{self._keys.store.decode()} cannot be read: {error}") from error
        if version != VERSION:
            raise self._unusable(another_schema(version, VERSION, str(held.get("program", ""))))
        if moved:
            raise self._unusable(f"its objects are elsewhere now: {moved}")
        if filling and not self._filling:
            hint = "if nothing is, delete all below its prefix and do it again"
            raise self._unusable(f"is being filled; {hint}")
        self._numbers, self._store_at = Numbers(base), kept.mod_revision

    async def _read_store(self, connection: Connection) -> Any:
        asked = rpc.RangeRequest(key=self._keys.store)
        answer = await connection.read(lambda member: member.kv.Range, asked)
        return answer.kvs[0] if answer.kvs else None

    def _unusable(self, problem: str) -> ConfigError:
        return ConfigError(f"store {self.place}", [Cause("", problem)])

    # -- reading -----------------------------------------------------------------------------------

    async def _head(self) -> Head:
        """As of now. One read at a time: those who ask while one is under way share the next."""
        if self._next is None:
            self._next = asyncio.create_task(self._read_head())
            self._next.add_done_callback(_looked_at)
        return await asyncio.shield(self._next)

    async def _read_head(self) -> Head:
        assert self._connection is not None
        async with self._reading:
            self._next = None
            return await head_of(self._connection, self._keys)

    async def _scan(self, connection: Connection, start: bytes, revision: int) -> list[Item]:
        items: list[Item] = []
        end, more = range_end(start), True
        while more:
            asked = rpc.RangeRequest(key=start, range_end=end, revision=revision, limit=PAGE)
            answer = await connection.read(lambda member: member.kv.Range, asked)
            items += filter(None, map(self._item, answer.kvs))
            more = answer.more
            if more:
                start = answer.kvs[-1].key + b"\0"
        return items

    def _item(self, kv: Any) -> Item | None:
        key = self._keys.ours(kv.key)
        if key is None:
            return None
        value, place = unstamped(kv.value)
        created = self._numbers.of(kv.create_revision, 0)
        return Item(key, value, self._numbers.of(kv.mod_revision, place), created)

    # -- writing -----------------------------------------------------------------------------------

    def _transaction(self, expect: Mapping[str, int], puts: Mapping[str, bytes | None]) -> Any:
        changes = []
        for place, key in enumerate(_ordered(puts)):
            value, theirs = puts[key], self._keys.theirs(key)
            if value is None:
                asked = rpc.DeleteRangeRequest(key=theirs)
                changes.append(rpc.RequestOp(request_delete_range=asked))
            else:
                changes.append(_put(theirs, stamped(value, place)))
        seen = [self._keys.theirs(key) for key in expect]
        compares = [_at(self._keys.store, self._store_at)]
        for theirs, revision in zip(seen, expect.values(), strict=True):
            compares.append(_at(theirs, self._expected(revision)))
        looks = [
            rpc.RequestOp(request_range=rpc.RangeRequest(key=key, keys_only=True))
            for key in (self._keys.store, *seen)
        ]
        return rpc.TxnRequest(
            compare=compares, success=[*changes, _put(self._keys.head, b"")], failure=looks
        )

    def _conflict(self, expect: Mapping[str, int], answer: Any) -> StoreConflict | StorageError:
        at = [
            one.response_range.kvs[0].mod_revision if one.response_range.kvs else 0
            for one in answer.responses
        ]
        if at[0] != self._store_at:
            return StorageError(
                f"cannot write to the store, {self.place}: another was put in its place, "
                "or its objects are elsewhere now; start this program anew"
            )
        for (key, revision), main in zip(expect.items(), at[1:], strict=True):
            if main != self._expected(revision):
                return StoreConflict(key)
        raise AssertionError("etcd compares otherwise than it reads")

    def _expected(self, revision: int) -> int:
        """What etcd calls it; one of another store is none of its own."""
        return (max(self._numbers.main(revision), 0) or -1) if revision else 0


def _said(base: int | None, more: Mapping[str, Any]) -> str:
    """What the key `store` says; `program` is the release that laid it out so. It is not written
    again by others: whoever uses the store would take it for another."""
    return json.dumps({"base": base, "version": VERSION, "program": versions.VERSION, **more})


def _looked_at(task: asyncio.Task[Head]) -> None:
    """Who asked may be gone by then."""
    if not task.cancelled():
        task.exception()


def _ordered(puts: Mapping[str, bytes | None]) -> list[str]:
    """Deletions first: their place is told by nothing but their order."""
    return sorted(puts, key=lambda key: (puts[key] is not None, key))


def _put(key: bytes, value: bytes) -> Any:
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))


def _at(key: bytes, main: int) -> Any:
    """A key is at etcd's revision `main` (0: is absent)."""
    return rpc.Compare(
        key=key,
        target=rpc.Compare.MOD,
        result=rpc.Compare.EQUAL,
        mod_revision=main,
    )
