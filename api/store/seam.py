"""What the service asks of a store.

A store is a map from key to bytes with one revision that grows with every change. Every change
goes through `commit`: it names the revisions it was decided on and fails as a whole if any of
them is not so any more. Overlap is a predicate over many keys; whoever decides one puts a guard
key into `expect` and writes it, so that two such decisions never both commit (DESIGN, invariant 1).
This is what an etcd transaction can do as well: compares, then puts.

Reading is made for a copy in memory (ADR 4): `scan` once, then `since`, which is linearizable: it
shows whatever any process had committed when it was asked. On etcd that is a read of the revision,
and then what the one watch of the process has delivered up to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from api.resources.errors import RoutedError
from api.resources.versions import VERSION


class StoreConflict(RoutedError):
    """`key` is not at the revision that the change was decided on."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"cannot commit: {key} has changed")


class Compacted(RoutedError):
    """The revision to watch from is gone: list again."""


@dataclass(frozen=True, slots=True)
class Item:
    """`revision` is that of the last change of the key, `created` that of its creation."""

    key: str
    value: bytes
    revision: int
    created: int  # on etcd: of the first change of that transaction


@dataclass(frozen=True, slots=True)
class Event:
    """A change: `value` None is a deletion, `previous` None a creation."""

    key: str
    revision: int
    created: int
    value: bytes | None
    previous: bytes | None


class Changes(NamedTuple):
    """Changes in order, without gaps, and the revision that they lead to. `more`: there are more
    by now than these."""

    revision: int
    events: list[Event]
    more: bool


class Store(Protocol):
    """`spacing` is by how much a commit moves the revision at least."""

    spacing: int

    async def scan(self, prefix: str) -> tuple[int, list[Item]]:
        """The store's revision and every key that begins with `prefix`, by key: one snapshot."""

    async def commit(
        self, expect: Mapping[str, int], puts: Mapping[str, bytes | None]
    ) -> dict[str, int]:
        """Change all of `puts` (None: delete) if every key of `expect` is at its revision (0: is
        absent). Durable when it returns. The new revision of each key; StoreConflict, with nothing
        changed. After a StorageError nobody knows: it may have been done, or still be. Whoever
        decides anew on what he reads then, and names what he read in `expect`, does it not twice:
        the revisions of one of the two do not hold any more."""

    async def since(self, after: int) -> Changes:
        """Changes after revision `after`: all that was committed when this was asked, or a part of
        it if that is much. Compacted if `after` is too old. A revision that `scan` or `since` has
        answered with is known to every process that asks later."""

    async def changed(self, after: int) -> None:
        """Return as soon as there may be changes after revision `after`."""

    async def tell(self, teller: str, text: bytes) -> None:
        """Keep `text` as what `teller` says now (b"": nothing any more), beside the objects: no
        revision grows by it, nobody is woken, and it is in no backup."""

    async def told(self) -> dict[str, bytes]:
        """What each teller said last."""

    async def compact(self, before: int) -> None:
        """Forget changes before revision `before` that are not the present state, in small parts,
        between which others commit."""

    async def close(self) -> None: ...


def another_schema(found: object, known: int, program: str) -> str:
    """What is wrong with a store of a schema that we do not know; `program` is the release that
    last used it, as it says itself."""
    by = f"routed {program}" if program else "a newer program that did not say its version"
    run = f"routed {program} or a newer one" if program else "that one"
    return (
        f"has schema {found}, written by {by}; this program (routed {VERSION}) knows schema "
        f"{known}: run {run}, or restore a backup that was made before"
    )
