"""Watches: a stream of JSON lines, resumable by resourceVersion.

An object that begins or stops to be selected is ADDED or DELETED for that watcher. Without a
resourceVersion, or with 0, the present state comes first as ADDED events; a bookmark follows (with
the initial-events-end annotation where `sendInitialEvents` asked for it), so the reader knows that
it has seen everything. A revision that was compacted away ends in an ERROR event with 410.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from api.resources.errors import Expired
from api.resources.meta import API_VERSION
from api.resources.registry import Kind
from api.service.codec import document_of
from api.service.errors import status_of
from api.service.objects import Objects
from api.service.selection import Predicate
from api.store import Compacted, Event

BOOKMARK_SECONDS = 10.0
INITIAL_END = "k8s.io/initial-events-end"


async def stream(
    objects: Objects,
    kind: Kind,
    selected: Predicate,
    *,
    after: int | None,
    bookmarks: bool,
    mark_initial: bool,
    seconds: float | None,
) -> AsyncGenerator[bytes, None]:
    """The lines of one watch; `after` None: the present state first."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds if seconds else None
    if after is None:
        after, documents = await objects.list(kind)
        for document in documents:
            if selected(document):
                yield _line("ADDED", document)
        if bookmarks or mark_initial:
            yield _bookmark(kind, after, initial=mark_initial)
    batches = objects.store.watch(f"/{kind.plural}/", after)
    waiting: asyncio.Task[list[Event]] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(batches))
            patience = (
                BOOKMARK_SECONDS if ends is None else min(BOOKMARK_SECONDS, ends - loop.time())
            )
            done, _ = await asyncio.wait([waiting], timeout=max(patience, 0))
            if not done:
                if ends is not None and loop.time() >= ends:
                    return
                if bookmarks:
                    yield _bookmark(kind, after)
                continue
            events = waiting.result()
            waiting = None
            after = events[-1].revision
            lines = [line for event in events if (line := _event(event, selected))]
            if lines:
                yield b"".join(lines)
    except Compacted as error:
        yield _line("ERROR", status_of(Expired(str(error))))
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.wait([waiting])
        await batches.aclose()  # type: ignore[attr-defined]


def _event(event: Event, selected: Predicate) -> bytes:
    """The line for one change, or nothing where it concerns no selected object."""
    before = document_of(event.previous, event.revision) if event.previous else None
    after = document_of(event.value, event.revision) if event.value else None
    was = before is not None and selected(before)
    is_now = after is not None and selected(after)
    if after is not None and is_now:
        return _line("MODIFIED" if was else "ADDED", after)
    if before is not None and was:
        return _line("DELETED", before)
    return b""


def _line(kind: str, document: Any) -> bytes:
    return json.dumps({"type": kind, "object": document}, separators=(",", ":")).encode() + b"\n"


def _bookmark(kind: Kind, revision: int, *, initial: bool = False) -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if initial:
        metadata["annotations"] = {INITIAL_END: "true"}
    return _line("BOOKMARK", {"apiVersion": API_VERSION, "kind": kind.kind, "metadata": metadata})
