"""The store's copy in this process, and who watches it (ADR 4).

`fresh` is how everything is read: it takes in what has been committed by now, by whomever, so what
is decided on it is as current as a read of the store would be. It costs microseconds when nothing
has changed.

Each change is handed once to the feeds that it concerns: those that select one node's objects, or
one name, are found by it, so that a watcher of one node costs nothing while others change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TypeVar

from api.auth.identity import Identity
from api.resources.errors import StorageError
from api.service.feeds import Feed, Reminders, Telling
from api.service.selection import Selection
from api.service.state import Change, State
from api.store import Compacted, Store

log = logging.getLogger("routed.service")
K = TypeVar("K")
BOOKMARK_SECONDS = 10.0


class Mirror:
    """`close` it before its store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._state: State | None = None
        self._feeds: dict[tuple[str, str, str], set[Feed]] = {}  # by plural, node, name
        self._holders: dict[
            tuple[str, str], set[Feed]
        ] = {}  # by what their readers' rights rest on
        self._listeners: list[Callable[[Change], None]] = []
        self._following: asyncio.Task[None] | None = None
        self._reminders = Reminders(BOOKMARK_SECONDS)

    async def fresh(self) -> State:
        """Everything as it is now; the caller may use it until it next waits for something."""
        while True:
            state = self._state
            if state is None:
                revision, items = await self.store.scan("/")
                state = self._state = self._state or State(revision, items)
            try:
                revision, events, more = await self.store.since(state.revision)
            except Compacted:  # this process was stopped for long
                self._state = None
                self.end_watches()
                continue
            known = state.revision
            for event in events:
                if event.revision > known:  # else another caller has taken it in meanwhile
                    self._publish(state.apply(event))
            state.revision = max(state.revision, revision)
            if not more:
                return state

    @property
    def revision(self) -> int:
        """Up to which every feed has been told everything."""
        return self._state.revision if self._state else 0

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call it with every change, before any watcher can be told that it was published."""
        self._listeners.append(listener)

    def feed(
        self,
        plural: str,
        selected: Selection,
        who: Identity | None = None,
        *,
        reminded: bool = False,
    ) -> Feed:
        """Every change from the present state on, for a watcher who `leave`s in the end. It ends
        when `who` (None: the service itself) is nobody any more, or its role says something else,
        also if that has happened since it was asked. `reminded`: once in BOOKMARK_SECONDS."""
        feed = Feed(selected)
        if who is not None:
            feed.rests_on = (("identities", who.user), ("roles", who.role))
            if self._state is None or not self._state.world.credentials.holds(who):
                feed.end()
        _add(self._feeds, _place(plural, selected), feed)
        for right in feed.rests_on:
            _add(self._holders, right, feed)
        if reminded:
            self._reminders.add(feed)
        if self._following is None:
            self._following = asyncio.create_task(self._follow())
        return feed

    def say(self, plural: str, name: str, right: tuple[str, str], line: bytes) -> bool:
        """Put a line into the feeds of those who watch this one object by that right; whether there
        are any. It stands behind every change up to `revision`."""
        found = [one for one in self._feeds.get((plural, "", name), ()) if right in one.rests_on]
        for feed in found:
            feed.put(line)
        return any(not feed.ended for feed in found)

    def leave(self, plural: str, feed: Feed) -> None:
        _remove(self._feeds, _place(plural, feed.selected), feed)
        self._reminders.discard(feed)
        for right in feed.rests_on:
            _remove(self._holders, right, feed)

    async def close(self) -> None:
        """End every watch."""
        self._reminders.stop()
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def _follow(self) -> None:
        """Take in what changes while nobody asks: watchers wait for it."""
        try:
            while self._feeds:
                state = await self.fresh()
                await self.store.changed(state.revision)
        except StorageError as error:
            log.error("watches ended why=%s", error)
        finally:
            self._following = None
            self.end_watches()

    def _publish(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)
        plural, telling = change.plural, Telling(change)
        for feed in self._holders.get((plural, change.name), ()):
            feed.end()
        places = {(plural, "", ""), (plural, "", change.name)}
        places |= {(plural, change.node_before, ""), (plural, change.node_after, "")}
        for place in places & self._feeds.keys():
            for feed in self._feeds[place]:
                if said := telling.line(feed.selected):
                    feed.put(said)

    def end_watches(self) -> None:
        """Their readers begin anew, here or elsewhere."""
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.end()


def _add(index: dict[K, set[Feed]], key: K, feed: Feed) -> None:
    index.setdefault(key, set()).add(feed)


def _remove(index: dict[K, set[Feed]], key: K, feed: Feed) -> None:
    feeds = index.get(key, set())
    feeds.discard(feed)
    if not feeds:
        index.pop(key, None)


def _place(plural: str, selected: Selection) -> tuple[str, str, str]:
    """Where a feed is found: by its name if it selects one, else by its node."""
    return plural, "" if selected.name else selected.node, selected.name
