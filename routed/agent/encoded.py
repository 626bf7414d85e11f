"""Objects as bytes, for copies on disk that are written again and again while little changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Encoded(Generic[K, T]):
    """Each is encoded once, for as long as the very same object is under its key. What is not asked
    for is forgotten."""

    def __init__(self, encode: Callable[[K, T], bytes]) -> None:
        self._encode = encode
        self._made: dict[K, tuple[T, bytes]] = {}

    def all(self, held: Iterable[tuple[K, T]]) -> list[bytes]:
        """In the same order."""
        self._made = {key: self._one(key, one) for key, one in held}
        return [text for _, text in self._made.values()]

    def _one(self, key: K, held: T) -> tuple[T, bytes]:
        made = self._made.get(key)
        if made is not None and made[0] is held:
            return made
        return held, self._encode(key, held)
