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
from collections.abc import AsyncGenerator
from typing import Any

from api.auth.identity import Identity
from api.resources.errors import Expired
from api.resources.meta import API_VERSION
from api.resources.registry import Kind
from api.resources.status import status_of
from api.service import listing
from api.service.codec import compact, line, wire
from api.service.feeds import Telling, change_of
from api.service.mirror import Mirror
from api.service.selection import Selection
from api.store import Compacted, Store

BOOKMARK_SECONDS = 10.0
INITIAL_END = "k8s.io/initial-events-end"


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
) -> AsyncGenerator[bytes, None]:
    """The lines of one watch, of `who`; `after` None: the present state first."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds if seconds else None
    state = await mirror.fresh()
    revision = state.revision
    present = state.table(kind.plural).reading(selected)
    feed = mirror.feed(kind.plural, selected, who)
    try:
        if after is None:
            async for items in listing.selected(present):
                if feed.ended:
                    return
                yield b"".join([line("ADDED", wire(item)) for item in items])
            if bookmarks or mark_initial:
                yield _bookmark(kind, revision, initial=mark_initial)
        else:
            async for part in _past(mirror.store, kind, selected, after, revision):
                yield part
        while not feed.ended:
            left = BOOKMARK_SECONDS if ends is None else ends - loop.time()
            came = await feed.wait(max(0.0, min(BOOKMARK_SECONDS, left)))
            lines = feed.take()
            if not came and bookmarks:  # at what was published: nothing in between is still to come
                lines += _bookmark(kind, mirror.revision)
            if lines:
                yield lines
            if ends is not None and loop.time() >= ends:
                return
    except Compacted as error:
        yield line("ERROR", compact(status_of(Expired(str(error)))))
    finally:
        mirror.leave(kind.plural, feed)


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


def _bookmark(kind: Kind, revision: int, *, initial: bool = False) -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if initial:
        metadata["annotations"] = {INITIAL_END: "true"}
    held = {"apiVersion": API_VERSION, "kind": kind.kind, "metadata": metadata}
    return line("BOOKMARK", compact(held))
