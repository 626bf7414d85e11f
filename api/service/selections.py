"""The handler of selections: who asks names selectors and ports, and is told what they stand for.

A stream of JSON lines. First, of each subject, either its whole or what has changed since the
version that the reader says he has, or nothing if that is its present one; then a bookmark; then
each change, and a bookmark now and then. A bookmark says that all of the store up to its revision
is in what was told before it.

What is told is worked out once for all readers (api.service.members) out of the copy in memory
(ADR 4), from the first time that somebody asks on: a service without policies keeps none of it.
Lines wait in feeds as those of watches do: who is too slow is ended, and comes back with the
versions that he has.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from fastapi import Request, Response

from api.auth.identity import NODE, Identity
from api.auth.rights import grant
from api.resources.errors import BadRequest, TooManyRequests
from api.resources.media import LINES
from api.service import options
from api.service.bodies import body_of
from api.service.codec import compact
from api.service.connections import READER
from api.service.feeds import Feed
from api.service.judging import forbidden
from api.service.members import PLURALS, Membership, Selection, Subject, standing_of
from api.service.metrics import ServiceMetrics
from api.service.mirror import Mirror
from api.service.reading import seconds_of
from api.service.selection import Selection as Chosen
from api.service.state import Change, State
from api.service.subjects import subjects_of
from api.service.watch import Reader, WatchAnswer, fed

PLURAL = "selections"
OBJECTS_PART = 50  # that are decoded in one go: a fraction of a millisecond
SEND_BYTES = 64 << 10  # that are sent in one go
WAIT_SECONDS = 10.0  # without a word, at most
# of one node: an agent has one, and another while the end of that is not noticed
NODE_STREAMS_MOST = 8
STREAMS_MOST = 64  # of anybody else
HEARTBEAT = b'{"type":"HEARTBEAT"}\n'


@dataclass(slots=True)
class Made:
    """What was made of one copy of the store, and what is still under way of it."""

    state: ref[State]
    membership: Membership
    loading: asyncio.Task[None]
    evaluating: dict[Selection, asyncio.Task[None]] = field(default_factory=dict)

    async def prepare(self, selections: Sequence[Selection]) -> None:
        """Until all that is there has been matched with each. It is done once, and goes on if who
        asked for it first leaves."""
        await asyncio.shield(self.loading)
        for one in selections:
            if not one.ready:
                task = self.evaluating.get(one)
                if task is None:
                    task = self.evaluating[one] = asyncio.create_task(self._evaluate(one))
                await asyncio.shield(task)

    async def _evaluate(self, selection: Selection) -> None:
        for _ in self.membership.evaluate(selection):
            await asyncio.sleep(0)
        del self.evaluating[selection]


class Selections:
    def __init__(self, mirror: Mirror, metrics: ServiceMetrics) -> None:
        self.mirror = mirror
        self.metrics = metrics
        self._made: Made | None = None
        self._streams: Counter[str] = Counter()  # by user
        mirror.listen(self._changed)

    async def answer(self, request: Request, who: Identity) -> Response:
        if grant(who, "watch", PLURAL) is None:
            raise forbidden(who, "watch", PLURAL)
        for name in request.query_params:
            if name != "timeoutSeconds":
                said = f"there is no parameter {name[:40]!r}, only timeoutSeconds"
                raise BadRequest(f"cannot follow selections: {said}")
        seconds = seconds_of(options.number(request.query_params, "timeoutSeconds"), who)
        subjects = subjects_of(await body_of(request))
        most = NODE_STREAMS_MOST if who.role == NODE else STREAMS_MOST
        if self._streams[who.user] >= most:
            self.metrics.refused("streams")
            said = f"{most} streams of {who.user} are open; try again when one has ended"
            raise TooManyRequests(f"cannot follow selections: {said}")
        lines = self.stream(subjects, who=who, seconds=seconds, reader=request.scope.get(READER))
        return WatchAnswer(lines, self._open(who), LINES)

    async def stream(
        self,
        subjects: Mapping[Subject, str],
        *,
        who: Identity | None = None,
        seconds: float | None = None,
        reader: Reader | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The lines for a reader who has each of `subjects` as of its version ("": has nothing)."""
        made = await self._current()
        everything = Chosen("", "", ())
        with fed(self.mirror, PLURAL, everything, who, True, seconds, reader) as feed:
            held = [(made.membership.hold(subject), known) for subject, known in subjects.items()]
            try:
                async with aclosing(_during(made.prepare([one for one, _ in held]))) as lines:
                    async for line in lines:
                        yield line
                for part in _first(held, feed):
                    yield part
                if not feed.ended:
                    yield feed.take() + _bookmark(self.mirror.revision)
                while not feed.ended:
                    reminded = await feed.wait()
                    told = feed.take()
                    if reminded:  # at what was published: it is in these lines or before
                        told += _bookmark(self.mirror.revision)
                    if told:
                        yield told
                    if feed.over:
                        return
            finally:
                for selection, _ in held:
                    selection.readers.discard(feed)
                    made.membership.let_go(selection)

    async def _current(self) -> Made:
        """Of the store as it is now. What was made of a copy that is no more (this process was
        stopped for long, and its watches ended) is left for a new one."""
        state = await self.mirror.fresh()
        if self._made is None or self._made.state() is not state:
            membership = Membership()
            loading = asyncio.create_task(_load(membership, state))
            self._made = Made(ref(state), membership, loading)
        return self._made

    def _changed(self, change: Change) -> None:
        if self._made is None or change.plural not in PLURALS:
            return
        value = change.after.value if change.after else None
        standing = None if value is None else standing_of(change.plural, json.loads(value))
        self._made.membership.put((change.plural, change.name), standing, change.revision)

    @contextmanager
    def _open(self, who: Identity) -> Iterator[None]:
        """While a stream is answered."""
        self._streams[who.user] += 1
        try:
            with self.metrics.watching(PLURAL):
                yield
        finally:
            self._streams[who.user] -= 1
            if not self._streams[who.user]:
                del self._streams[who.user]


async def _during(work: Coroutine[Any, Any, None]) -> AsyncGenerator[bytes, None]:
    """A line now and then until it is done."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait((task,), timeout=WAIT_SECONDS))[0]:
            yield HEARTBEAT
        await task
    finally:
        task.cancel()


def _first(held: Sequence[tuple[Selection, str]], feed: Feed) -> Iterator[bytes]:
    """Each as it is, for who has it as of that version; what changes from then on is in `feed`."""
    parts, size = list[bytes](), 0
    for selection, known in held:
        if feed.ended:
            return
        parts.append(selection.since(known))
        selection.readers.add(feed)
        size += len(parts[-1])
        if size > SEND_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if size:
        yield b"".join(parts)


async def _load(membership: Membership, state: State) -> None:
    """Take in what is there; what changes meanwhile comes by itself, and reads the same here."""
    for plural in PLURALS:
        table = state.table(plural)
        for number, name in enumerate(table.names(), 1):
            if (item := table.items.get(name)) is not None:
                standing = standing_of(plural, json.loads(item.value))
                membership.put((plural, name), standing, item.revision)
            if number % OBJECTS_PART == 0:
                await asyncio.sleep(0)


def _bookmark(revision: int) -> bytes:
    return compact({"type": "BOOKMARK", "revision": str(revision)}) + b"\n"
