"""What a store holds as one file, for either store, and from one store into another.

A backup is text: a line that says what it is, a line for each object with its key and its bytes,
and a line with how many there are and the SHA-256 of all lines before, so that a part of one is
none. It is of one revision. It holds hashes of credentials: mode 0600.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.resources.errors import Cause, ConfigError
from api.store.seam import Item, Store

FORMAT = "routed-backup/1"
AT_ONCE = 100  # keys committed together
BYTES_AT_ONCE = 256 << 10


@dataclass(frozen=True, slots=True)
class Backup:
    """`objects` are keys and bytes, by key; `revision` is the store's at that moment."""

    revision: int
    objects: tuple[tuple[str, bytes], ...]

    @classmethod
    def of(cls, revision: int, items: Iterable[Item]) -> Backup:
        return cls(revision, tuple((item.key, item.value) for item in items))


@dataclass(frozen=True, slots=True)
class Sum:
    """Of the objects of one kind."""

    count: int
    digest: str


def sums(objects: Iterable[tuple[str, bytes]]) -> dict[str, Sum]:
    """By kind: what two stores have to agree on to hold the same."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    for key, value in objects:
        found.setdefault(key[1:].partition("/")[0], []).append((key, value))
    return {kind: Sum(len(held), _digest(held)) for kind, held in sorted(found.items())}


def _digest(objects: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(objects):
        for part in (key.encode(), value):
            digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()


def render(backup: Backup) -> bytes:
    lines = [_line({"format": FORMAT, "revision": backup.revision})]
    lines += (_line(_entry(key, value)) for key, value in backup.objects)
    body = b"".join(lines)
    last = {"objects": len(backup.objects), "sha256": hashlib.sha256(body).hexdigest()}
    return body + _line(last)


def parse(path: Path) -> Backup:
    """ConfigError says what is wrong with the file."""

    def bad(problem: str) -> ConfigError:
        return ConfigError(f"backup {path}", [Cause("", problem)])

    try:
        data = path.read_bytes()
    except OSError as error:
        raise bad(f"cannot read it: {error.strerror}") from error
    lines = data.splitlines(keepends=True)
    try:
        first, last = json.loads(lines[0]), json.loads(lines[-1])
        if first["format"] != FORMAT:
            raise bad(f"is of format {first['format']}; this program knows {FORMAT}")
        if last["sha256"] != hashlib.sha256(b"".join(lines[:-1])).hexdigest():
            raise bad("is damaged: its checksum is another")
        objects = tuple(_object(json.loads(line)) for line in lines[1:-1])
        return Backup(int(first["revision"]), objects)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise bad(f"is no backup, or a part of one: {error!r}") from error


def _line(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _entry(key: str, value: bytes) -> dict[str, str]:
    try:
        return {"key": key, "value": value.decode()}
    except UnicodeDecodeError:
        return {"key": key, "base64": base64.b64encode(value).decode()}


def _object(entry: dict[str, str]) -> tuple[str, bytes]:
    if "base64" in entry:
        return entry["key"], base64.b64decode(entry["base64"], validate=True)
    return entry["key"], entry["value"].encode()


async def fill(store: Store, objects: Sequence[tuple[str, bytes]]) -> None:
    """Write everything into a store that is empty; StoreConflict if it is not."""
    part: dict[str, bytes | None] = {}
    size = 0
    for key, value in objects:
        if part and (len(part) == AT_ONCE or size + len(value) > BYTES_AT_ONCE):
            await store.commit(dict.fromkeys(part, 0), part)
            part, size = {}, 0
        part[key] = value
        size += len(value)
    if part:
        await store.commit(dict.fromkeys(part, 0), part)


def compare(wanted: Sequence[tuple[str, bytes]], found: Sequence[tuple[str, bytes]]) -> list[Cause]:
    """What is not the same."""
    left, right = sums(wanted), sums(found)
    return [
        Cause(kind, f"{left.get(kind, Sum(0, ''))} became {right.get(kind, Sum(0, ''))}")
        for kind in sorted(left.keys() | right.keys())
        if left.get(kind) != right.get(kind)
    ]
