"""Our revisions out of etcd's.

All keys of one etcd transaction get the same revision. A watcher that has read one of two such
changes and comes back with the revision of that one must get the other. So a change's revision
here is etcd's, times 128, and its place in the transaction, which is the last byte of the value
that is stored; deletions come first, in the order of their keys.

`base` is what a store's revisions begin with: a store that takes the place of another begins far
beyond it, so that nobody takes an old revision for one of the new (api.store.places).
"""

from __future__ import annotations

from dataclasses import dataclass

PLACES = 128


@dataclass(frozen=True, slots=True)
class Numbers:
    base: int

    def of(self, main: int, place: int) -> int:
        return self.base + main * PLACES + place

    def whole(self, main: int) -> int:
        """Of everything that etcd has up to and with its revision `main`."""
        return self.of(main, PLACES - 1)

    def main(self, revision: int) -> int:
        """etcd's revision; not positive for what is from before this store."""
        return (revision - self.base) // PLACES

    def wanted(self, after: int) -> int:
        """etcd's revision of the first change after our revision `after`."""
        return (after + 1 - self.base) // PLACES


def stamped(value: bytes, place: int) -> bytes:
    return value + bytes((place,))


def unstamped(value: bytes) -> tuple[bytes, int]:
    """The value and its place; what others wrote below our prefix must not end us."""
    return value[:-1], (value[-1] if value else 0) % PLACES
