"""How many requests of one identity are under way: one that floods the service waits for itself,
and not everybody for it. A list counts until it is sent, a watch until its answer begins: its feed
has its own bound."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from api.auth.identity import Identity
from api.resources.errors import TooManyRequests

T = TypeVar("T")

IN_FLIGHT = 256  # requests of one identity


class Crowd:
    """Counts by user; who has none under way takes no room. `refused` is told of each refusal."""

    def __init__(self, refused: Callable[[str], None], most: int = IN_FLIGHT) -> None:
        self.most = most
        self._refused = refused
        self._busy: Counter[str] = Counter()

    @contextmanager
    def entered(self, who: Identity) -> Iterator[None]:
        """While a request of `who` is carried out; TooManyRequests before anything of it is."""
        user = who.user
        if self._busy[user] >= self.most:
            self._refused("under way")
            raise TooManyRequests(
                f"cannot serve this request: {self.most} of {user} are under way; try again"
            )
        with self._one_more(user):
            yield

    async def during(self, who: Identity, parts: AsyncIterable[T]) -> AsyncIterator[T]:
        """`parts`, while they are read: as a request of `who` under way, that is let in already."""
        with self._one_more(who.user):
            async for part in parts:
                yield part

    @contextmanager
    def _one_more(self, user: str) -> Iterator[None]:
        self._busy[user] += 1
        try:
            yield
        finally:
            self._busy[user] -= 1
            if not self._busy[user]:
                del self._busy[user]
