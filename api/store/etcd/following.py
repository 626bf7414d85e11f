"""The one watch of a process: what etcd has delivered, and the history before it.

Each transaction of ours puts the key `head` last. So its event says that all changes up to its
revision are here: a response of etcd may hold a part of a transaction (`fragment`), and a revision
of somebody else in the same etcd brings no event at all. (etcd's own reports of progress could
say it too; those of 3.4 before .25 and 3.5 before .8 may come before the events they speak of.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import grpc
from aetcd import rpc

from api.resources.errors import StorageError
from api.store.etcd.connection import PAUSE_SECONDS, READ_SECONDS, Connection, Gone, settled
from api.store.etcd.keys import Keys, range_end
from api.store.etcd.numbers import Numbers, unstamped
from api.store.seam import Changes, Compacted, Event

log = logging.getLogger("routed.store")

READ_MOST = 1000  # changes in one answer
HELD_MOST = 20_000  # changes kept in memory
HELD_BYTES = 32 << 20
PATIENCE_SECONDS = 1.0  # with a watch that does not deliver what is committed


class Assembly:
    """Whole transactions out of events as they come; those after our revision `after`. No I/O."""

    def __init__(self, numbers: Numbers, keys: Keys, after: int) -> None:
        self._numbers = numbers
        self._keys = keys
        self._after = after
        self._raw: list[Any] = []

    def take(self, raw: Any) -> tuple[int, list[Event]] | None:
        """The next event; if it completes something: etcd's revision, and our events up to it."""
        if raw.kv.key.startswith(self._keys.told):
            return None
        if raw.kv.key != self._keys.head:
            self._raw.append(raw)
            return None
        events, gone = [], (0, 0)
        for one in self._raw:
            key = self._keys.ours(one.kv.key)
            if key is None:
                continue
            main, deletion = one.kv.mod_revision, one.type == rpc.Event.DELETE
            if deletion:
                gone = (main, gone[1] + 1 if gone[0] == main else 0)
                value, place = None, gone[1]
            else:
                value, place = unstamped(one.kv.value)
            revision = self._numbers.of(main, place)
            if revision <= self._after:
                continue
            if not one.prev_kv.key and (deletion or one.kv.create_revision != main):
                raise Gone(f"what was before {revision} is compacted")
            previous = unstamped(one.prev_kv.value)[0] if one.prev_kv.key else None
            created = self._numbers.of((one.prev_kv if deletion else one.kv).create_revision, 0)
            events.append(Event(key, revision, created, value, previous))
        self._raw.clear()
        return raw.kv.mod_revision, events


@dataclass(frozen=True, slots=True)
class Head:
    """`main` is etcd's revision of our last change, as of its revision `at`."""

    main: int
    at: int


async def head_of(connection: Connection, keys: Keys) -> Head:
    """Linearizable."""
    asked = rpc.RangeRequest(key=keys.head)
    answer = await connection.read(lambda member: member.kv.Range, asked)
    if not answer.kvs:
        raise StorageError(f"cannot read the store, {connection.place}: it was taken away")
    return Head(int(answer.kvs[0].mod_revision), int(answer.header.revision))


class Following:
    """`delivered` is the revision of etcd up to which everything is here or was handed on."""

    def __init__(self, connection: Connection, numbers: Numbers, keys: Keys, head: Head) -> None:
        self._connection = connection
        self._numbers = numbers
        self._keys = keys
        self.delivered = head.main
        self._next = head.at + 1  # where the watch is taken up
        self._floor = numbers.whole(head.main)  # `_events` are those after it
        self._events: list[Event] = []
        self._size = 0
        self._call: Any = None
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        self._task.cancel()
        await settled(self._task)

    async def until(self, main: int) -> None:
        """Return when everything up to etcd's revision `main` is here; StorageError."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + READ_SECONDS
        while self.delivered < main:
            if not await self._wait(PATIENCE_SECONDS) and self.delivered < main:
                if self._call is not None:  # its member is cut off, or stands still
                    self._call.cancel()
                if loop.time() >= give_up:
                    raise self._unread("its watch is behind")

    async def beyond(self, after: int) -> None:
        """Return when there is something after our revision `after`."""
        while self._numbers.whole(self.delivered) <= after:
            await self._wait(None)

    def recent(self, after: int) -> Changes | None:
        """Changes after `after` out of memory; None: it does not reach back so far."""
        if after < self._floor:
            return None
        start = bisect_right(self._events, after, key=lambda event: event.revision)
        part = self._events[start : start + READ_MOST]
        more = start + len(part) < len(self._events)
        revision = part[-1].revision if more else max(after, self._numbers.whole(self.delivered))
        return Changes(revision, part, more)

    def forget(self, before: int) -> None:
        """What is compacted is not told any more."""
        if before > self._floor:
            self._drop(bisect_right(self._events, before, key=lambda event: event.revision))
            self._floor = max(self._floor, before)

    async def past(self, after: int, until: int) -> Changes:
        """Changes after `after`, which is before what is in memory, up to etcd's revision `until`:
        out of etcd's history."""
        found: list[Event] = []
        try:
            async with contextlib.aclosing(self._deliveries(after)) as deliveries:
                async for main, events in deliveries:
                    found += events
                    if main >= until or len(found) >= READ_MOST:
                        return Changes(self._numbers.whole(main), found, main < until)
        except Gone as error:
            raise Compacted(f"cannot watch from revision {after}: {error}") from error
        except grpc.aio.AioRpcError as error:
            raise self._connection.failure(error, "read") from error
        raise self._unread("its watch ended")

    def _unread(self, why: str) -> StorageError:
        return StorageError(f"cannot read the store, {self._connection.place}: {why}")

    # -- the watch ---------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Keep the watch going, for ever."""
        said = False
        while True:
            member = self._connection.member
            try:
                after = self._numbers.whole(self._next - 1)
                async for main, events in self._deliveries(after, keep=True):
                    self._deliver(main, events)
                    said = False
            except Gone:
                with contextlib.suppress(StorageError):
                    self._restart(await head_of(self._connection, self._keys))
                continue
            except grpc.aio.AioRpcError as error:
                self._connection.ended(error)
                if not said:
                    log.info("watch ended member=%s why=%s", member.endpoint, error.details())
                said = True
            self._connection.leave(member)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _deliveries(
        self, after: int, *, keep: bool = False
    ) -> AsyncGenerator[tuple[int, list[Event]], None]:
        """Whole transactions with our changes after `after`; Gone."""
        assembly = Assembly(self._numbers, self._keys, after)
        # from one revision earlier: of the very one that it was compacted at, etcd does not keep
        # deletions, and it refuses only what is before that
        start = max(1, self._numbers.wanted(after) - 1)
        root = self._keys.root
        asked = rpc.WatchCreateRequest(
            key=root, range_end=range_end(root), start_revision=start, prev_kv=True, fragment=True
        )
        call = await self._connection.watch(self._connection.member, asked)
        if keep:
            self._call = call
        try:
            async for answer in call:
                if answer.canceled:
                    if answer.compact_revision:
                        floor = self._numbers.whole(answer.compact_revision)
                        raise Gone(f"compacted up to {floor}")
                    log.warning("watch refused why=%s", answer.cancel_reason)
                    return
                for raw in answer.events:
                    if whole := assembly.take(raw):
                        yield whole
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # the call alone was ended, by `until`
        finally:
            call.cancel()
            if keep:
                self._call = None

    def _deliver(self, main: int, events: list[Event]) -> None:
        self._events += events
        self._size += sum(map(_size, events))
        self.delivered, self._next = main, main + 1
        if len(self._events) > 2 * HELD_MOST or self._size > 2 * HELD_BYTES:
            count, size = 0, self._size
            while len(self._events) - count > HELD_MOST or size > HELD_BYTES:
                size -= _size(self._events[count])
                count += 1
            self._floor = self._events[count - 1].revision
            self._drop(count)
        self._wake()

    def _drop(self, count: int) -> None:
        self._size -= sum(map(_size, self._events[:count]))
        del self._events[:count]

    def _restart(self, head: Head) -> None:
        """The watch cannot be taken up where it ended. If anything of ours has changed since, we
        stood still for long, and what was missed cannot be had: it is read anew."""
        if head.main != self.delivered:
            log.warning("behind what the store has compacted, read anew")
            self._events, self._size = [], 0
            self.delivered = head.main
            self._floor = self._numbers.whole(head.main)
        self._next = head.at + 1
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def _wait(self, seconds: float | None) -> bool:
        """Until something is delivered; False after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        except TimeoutError:
            return False
        return True


def _size(event: Event) -> int:
    return len(event.value or b"") + len(event.previous or b"")
