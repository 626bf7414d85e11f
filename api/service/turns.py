"""Requests that wait are decided together, each on what the ones before it leave (ADR 4).

Every claim rests on the guard key, so of two that are decided side by side only one can commit.
Here they come one after the other, in a turn: the first is decided on what is committed, the
second on that and the first, and so on; then all are committed at once, under one comparison of
the guard key. While that is on its way to the disk, the next ones wait and become the next turn.

A turn either commits as a whole or leaves nothing. So an answer that rests on something
not committed yet is none: a refusal after a change of the same turn, or a second decision about
the same key, is decided again in the next turn, on what is committed then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from api.resources.errors import Conflict, IntentError, StorageError
from api.service.mirror import Mirror
from api.service.state import Fact, State, split
from api.store import Item, StoreConflict

TRIES = 100
BYTES_MOST = 256 << 10  # written in one turn, before the last: an etcd request takes 1.5 MiB
KEYS_MOST = 100  # compared or written in one turn; an etcd transaction takes 128


@dataclass(frozen=True, slots=True)
class Decision:
    """`key` becomes `value` (None: is deleted) if every key of `expect` is at its revision, and
    `guard`, which is written with it. `fact` is what the world then knows of the key. What is in
    `also` is written as well (None: deleted): nothing that is decided here rests on it. `stays`:
    all is as asked for, and nothing is to be written."""

    key: str
    value: bytes | None = None
    fact: Fact | None = None
    expect: Mapping[str, int] = field(default_factory=dict)
    guard: str = ""
    stays: bool = False
    also: Mapping[str, bytes | None] = field(default_factory=dict)


Decide = Callable[[State], Decision]


@dataclass(slots=True)
class Asked:
    decide: Decide
    done: asyncio.Future[Item | None]
    tries: int = 0

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(slots=True)
class Turn:
    """What is to be committed, and for whom. `later`: whose answer would rest on that."""

    expect: dict[str, int] = field(default_factory=dict)
    puts: dict[str, bytes | None] = field(default_factory=dict)
    made: list[tuple[Asked, Decision]] = field(default_factory=list)
    later: list[Asked] = field(default_factory=list)
    size: int = 0
    _undo: list[tuple[str, str, Fact | None]] = field(default_factory=list)

    def take(self, asked: Asked, state: State) -> None:
        """Decide one request, and answer it if that can be done without a commit."""
        try:
            decision = asked.decide(state)
        except IntentError as error:
            if self.puts:
                self.later.append(asked)
            else:
                asked.fail(error)
            return
        plural, name = split(decision.key)
        if decision.key in self.puts:
            self.later.append(asked)
        elif decision.stays:
            asked.done.set_result(state.item(plural, name))
        else:
            self.made.append((asked, decision))
            self.expect.update(decision.expect)
            self.puts.update(decision.also)
            self.puts[decision.key] = decision.value
            self.size += len(decision.value or b"")
            if decision.guard:
                self.expect[decision.guard] = state.revision_of(decision.guard)
                self.puts[decision.guard] = b"{}"
            if decision.value is not None:
                state.decided[decision.key] = decision.value, decision.fact
            self._undo.append((plural, name, state.world.put(plural, name, decision.fact)))

    def has_room(self) -> bool:
        return max(len(self.expect), len(self.puts)) < KEYS_MOST and self.size < BYTES_MOST

    def undo(self, state: State) -> None:
        """Nothing of this is so yet."""
        for plural, name, fact in reversed(self._undo):
            state.world.put(plural, name, fact)

    def settle(self, revisions: Mapping[str, int]) -> None:
        for asked, decision in self.made:
            if not asked.done.done():
                key, value, revision = decision.key, decision.value, revisions[decision.key]
                made = None if value is None else Item(key, value, revision, revision)
                asked.done.set_result(made)


class Turns:
    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self._waiting: deque[Asked] = deque()
        self._task: asyncio.Task[None] | None = None

    async def decided(self, decide: Decide) -> Item | None:
        """The object as it is then (None: deleted), durable. What `decide` raises, or StorageError
        or Conflict, with nothing changed. `decide` is pure, and is called as often as needed."""
        asked = Asked(decide, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await asked.done

    async def dry(self, decide: Decide) -> Item | None:
        """The object as it would be; nothing is changed."""
        state = await self.mirror.fresh()
        decision = decide(state)
        if decision.stays:
            return state.item(*split(decision.key))
        return None if decision.value is None else Item(decision.key, decision.value, 0, 0)

    async def _run(self) -> None:
        turn = Turn()
        try:
            while self._waiting:
                await self._gather()
                turn = Turn()
                await self._commit(turn)
        finally:
            self._task = None
            for asked in (*(one for one, _ in turn.made), *self._waiting):
                asked.done.cancel()  # only after an error that is a bug: nobody waits for ever
            self._waiting.clear()

    async def _gather(self) -> None:
        """Let those come in whose requests are here already: a turn costs one write to the disk,
        however many share it."""
        known = 0
        while known < len(self._waiting) < KEYS_MOST:
            known = len(self._waiting)
            await asyncio.sleep(0)

    async def _commit(self, turn: Turn) -> None:
        try:
            self._decide(turn, await self.mirror.fresh())
            if turn.puts:
                turn.settle(await self.mirror.store.commit(turn.expect, turn.puts))
        except StoreConflict:  # another process came between
            for asked, _ in reversed(turn.made):
                asked.tries += 1
                if asked.tries < TRIES:
                    self._waiting.appendleft(asked)
                else:
                    asked.fail(too_many())
        except StorageError as error:
            failed = [asked for asked, _ in turn.made]
            if not failed:  # it cannot even be read
                failed = [*self._waiting]
                self._waiting.clear()
            for asked in failed:
                asked.fail(error)

    def _decide(self, turn: Turn, state: State) -> None:
        state.decided.clear()
        try:
            while self._waiting and turn.has_room():
                asked = self._waiting.popleft()
                if asked.done.done():
                    continue
                try:
                    turn.take(asked, state)
                except BaseException:  # a bug: who asked must not wait for ever
                    asked.done.cancel()
                    raise
        finally:
            turn.undo(state)
            self._waiting.extendleft(reversed(turn.later))


def too_many() -> Conflict:
    return Conflict("cannot commit: too many others are writing; try again")
