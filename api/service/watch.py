"""Watches: a stream of JSON lines, resumable by resourceVersion.

An object that begins or stops to be selected is ADDED or DELETED for that watcher. Without a
resourceVersion, or with 0, the present state comes first as ADDED events; a bookmark follows (with
the initial-events-end annotation where `sendInitialEvents` asked for it), so the reader knows that
it has seen everything. A revision that was compacted away ends in an ERROR event with 410.

The feed is taken at the same moment as the state, and what comes before it is read from the log:
nothing is lost, doubled or out of order in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager
from typing import Any, Protocol

from fastapi import Response
from starlette.types import Receive, Scope, Send

from api.auth.identity import Identity
from api.resources.errors import Expired
from api.resources.meta import API_VERSION
from api.resources.registry import Kind
from api.resources.status import status_of
from api.service import listing
from api.service.codec import compact, line, wire
from api.service.feeds import Feed, Telling, change_of
from api.service.mirror import Mirror
from api.service.selection import Selection
from api.store import Compacted, Store

INITIAL_END = "k8s.io/initial-events-end"


class Reader(Protocol):
    """Who reads an answer, and may go away meanwhile: `leave` is called then."""

    gone: bool
    leave: Callable[[], None]


class WatchAnswer(Response):
    """Lines as they come, in the task of the request: what starlette has for it takes two tasks
    more for each watch."""

    def __init__(
        self,
        lines: AsyncGenerator[bytes, None],
        open_now: AbstractContextManager[object],
        media_type: str = "application/json",
    ) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._lines = lines
        self._open_now = open_now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        with self._open_now:
            async with aclosing(self._lines) as lines:
                await send(head)
                async for part in lines:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def stream(
    mirror: Mirror,
    kind: Kind,
    selected: Selection,
    *,
    who: Identity | None = None,
    after: int | None,
    bookmarks: bool,
    mark_initial: bool,
    seconds: float | None,
    reader: Reader | None = None,
) -> AsyncGenerator[bytes, None]:
    """The lines of one watch, of `who`; `after` None: the present state first. It ends after
    `seconds`, and when the `reader` has gone."""
    state = await mirror.fresh()
    revision = state.revision
    present = state.table(kind.plural).cursor(selected) if after is None else None
    with fed(mirror, kind.plural, selected, who, bookmarks, seconds, reader) as feed:
        try:
            if after is None:
                assert present is not None
                async for items in listing.selected(present):
                    if feed.ended:
                        return
                    yield b"".join([line("ADDED", wire(item)) for item in items])
                present = None  # as long as it is held, it is told of every change
                if bookmarks or mark_initial:
                    yield bookmark(kind, revision, {INITIAL_END: "true"} if mark_initial else None)
            else:
                async for part in _past(mirror.store, kind, selected, after, revision):
                    yield part
            while not feed.ended:
                reminded = await feed.wait()
                lines = feed.take()
                if reminded and bookmarks:  # at what was published: it is in these lines or before
                    lines += bookmark(kind, mirror.revision)
                if lines:
                    yield lines
                if feed.over:
                    return
        except Compacted as error:
            yield line("ERROR", compact(status_of(Expired(str(error)))))


@contextmanager
def fed(
    mirror: Mirror,
    plural: str,
    selected: Selection,
    who: Identity | None,
    reminded: bool,
    seconds: float | None,
    reader: Reader | None,
) -> Iterator[Feed]:
    """A feed for one answer (`Mirror.feed`): its time is over after `seconds`, and it ends when the
    `reader` has gone."""
    feed = mirror.feed(plural, selected, who, reminded=reminded)
    timer = asyncio.get_running_loop().call_later(seconds, feed.finish) if seconds else None
    if reader is not None:
        reader.leave = feed.end
        if reader.gone:
            feed.end()
    try:
        yield feed
    finally:
        if timer is not None:
            timer.cancel()
        mirror.leave(plural, feed)


async def _past(
    store: Store, kind: Kind, selected: Selection, after: int, until: int
) -> AsyncGenerator[bytes, None]:
    """What changed after revision `after`, up to and with `until`, out of the log."""
    prefix = f"/{kind.plural}/"
    while after < until:
        after, events, more = await store.since(after)
        told = (e for e in events if e.revision <= until and e.key.startswith(prefix))
        if part := b"".join(Telling(change_of(event)).line(selected) for event in told):
            yield part
        if not more:
            return


def bookmark(kind: Kind, revision: int, annotations: Mapping[str, str] | None = None) -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if annotations:
        metadata["annotations"] = annotations
    held = {"apiVersion": API_VERSION, "kind": kind.kind, "metadata": metadata}
    return line("BOOKMARK", compact(held))
