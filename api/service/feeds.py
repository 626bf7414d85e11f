"""What a watcher is told: each change as lines, each line made once for all who want it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from api.service.codec import document_of, line, wire
from api.service.selection import Selection, at
from api.service.state import Change, split
from api.store import Event, Item

FEED_BYTES = 4 << 20  # that a reader may be behind


class Telling:
    """One change, as watchers see it: an object that begins or stops to be selected is ADDED or
    DELETED for them, at the revision of the change."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self._lines: dict[str, bytes] = {}
        self._documents: dict[bool, Any] = {}

    def line(self, selected: Selection) -> bytes:
        """The line for a watcher, or nothing where it concerns no selected object."""
        change = self.change
        was = change.before is not None and selected.selects(
            change.name, change.node_before, lambda: self._document(before=True)
        )
        is_now = change.after is not None and selected.selects(
            change.name, change.node_after, lambda: self._document(before=False)
        )
        if is_now:
            return self._line("MODIFIED" if was else "ADDED", change.after)
        return self._line("DELETED", change.before) if was else b""

    def _line(self, kind: str, item: Item | None) -> bytes:
        if kind not in self._lines:
            assert item is not None
            now = Item(item.key, item.value, self.change.revision, item.created)
            self._lines[kind] = line(kind, wire(now))
        return self._lines[kind]

    def _document(self, *, before: bool) -> Any:
        if before not in self._documents:
            item = self.change.before if before else self.change.after
            assert item is not None
            self._documents[before] = document_of(item.value, self.change.revision)
        return self._documents[before]


def change_of(event: Event) -> Change:
    """A change out of the log, with what it took the place of."""
    plural, name = split(event.key)

    def item(value: bytes | None) -> Item | None:
        return None if value is None else Item(event.key, value, event.revision, event.created)

    def node(value: bytes | None) -> str:
        return "" if value is None else str(at(json.loads(value), "spec.node") or "")

    before, after = event.previous, event.value
    return Change(
        plural, name, event.revision, item(before), item(after), node(before), node(after)
    )


@dataclass(slots=True, eq=False)
class Feed:
    """What one watcher has not read yet. A reader that is FEED_BYTES behind is ended. `rests_on`:
    the objects (plural, name) that gave it the right to watch."""

    selected: Selection
    rests_on: tuple[tuple[str, str], ...] = ()
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    ended: bool = False
    reminded: bool = False  # that time has passed
    over: bool = False  # its time: what has come is told, and no more
    _waiter: asyncio.Future[None] | None = None

    def put(self, line: bytes) -> None:
        self.size += len(line)
        if self.size > FEED_BYTES:
            self.end()
        elif not self.ended:
            self.lines.append(line)
            self._wake()

    def end(self) -> None:
        """What is not read by now never will be: the reader lists again."""
        self.ended = True
        self.lines.clear()
        self._wake()

    def remind(self) -> None:
        self.reminded = True
        self._wake()

    def finish(self) -> None:
        self.over = True
        self.remind()

    def take(self) -> bytes:
        """All that has come."""
        taken = b"".join(self.lines)
        self.lines.clear()
        self.size = 0
        return taken

    async def wait(self) -> bool:
        """Until something has come, the feed has ended or is reminded: whether that is so, which is
        forgotten then."""
        if not (self.lines or self.ended or self.reminded):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        reminded, self.reminded = self.reminded, False
        return reminded

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Reminders:
    """Reminds every feed once in `seconds`, a part of them at a time, so that thousands of idle
    watchers are neither a timer each nor all awake at once."""

    PARTS = 100

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._parts: list[set[Feed]] = [set() for _ in range(self.PARTS)]
        self._places: dict[Feed, int] = {}
        self._next = 0  # place to be filled
        self._turning: asyncio.Task[None] | None = None

    def add(self, feed: Feed) -> None:
        self._places[feed] = self._next
        self._parts[self._next].add(feed)
        self._next = (self._next + 1) % self.PARTS
        if self._turning is None:
            self._turning = asyncio.create_task(self._turn())

    def discard(self, feed: Feed) -> None:
        place = self._places.pop(feed, None)
        if place is not None:
            self._parts[place].discard(feed)

    def stop(self) -> None:
        if self._turning is not None:
            self._turning.cancel()

    async def _turn(self) -> None:
        """While there is any."""
        try:
            while self._places:
                for part in self._parts:
                    await asyncio.sleep(self.seconds / self.PARTS)
                    for feed in part:
                        feed.remind()
        finally:
            self._turning = None
