"""Where things lie in etcd.

PREFIX/objects/ippools/a   the objects, each value with its place behind it (numbers)
PREFIX/head                put last by every transaction: its revision is the store's
PREFIX/store               what the store is (JSON): its base, and whether it is in use
PREFIX/told/a              what process `a` tells the others, beside all that
"""

from __future__ import annotations

from dataclasses import dataclass

from api.resources.errors import StorageError


@dataclass(frozen=True, slots=True)
class Keys:
    prefix: str

    @property
    def root(self) -> bytes:
        return f"{self.prefix}/".encode()

    @property
    def objects(self) -> bytes:
        return self.root + b"objects"

    @property
    def head(self) -> bytes:
        return self.root + b"head"

    @property
    def store(self) -> bytes:
        return self.root + b"store"

    @property
    def told(self) -> bytes:
        return self.root + b"told/"

    def theirs(self, key: str) -> bytes:
        try:
            return self.objects + key.encode()
        except UnicodeEncodeError as error:
            raise StorageError(f"cannot write to the store: {key!r} is no text") from error

    def ours(self, key: bytes) -> str | None:
        """None: it is none of the objects'."""
        if not key.startswith(self.objects):
            return None
        return key[len(self.objects) :].decode(errors="replace")


def range_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix`."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
