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
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, line: bytes) -> None:
        self.size += len(line)
        if self.size > FEED_BYTES:
            self.end()
        elif not self.ended:
            self.lines.append(line)
            self._woken.set()

    def end(self) -> None:
        """What is not read by now never will be: the reader lists again."""
        self.ended = True
        self.lines.clear()
        self._woken.set()

    def take(self) -> bytes:
        """All that has come."""
        taken = b"".join(self.lines)
        self.lines.clear()
        self.size = 0
        self._woken.clear()
        return taken

    async def wait(self, seconds: float) -> bool:
        """Until something comes or the feed ends; False after `seconds` of nothing."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True
