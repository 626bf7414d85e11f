"""From one store, or a backup, into another: whole and compared, or not at all.

What is filled begins with revisions beyond all of the source, so that no watcher takes one of
those for one of its own. While it is filled no control plane starts on it: a file has another name
until it is whole, an etcd says so itself. A source that is moved takes no write any more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from api.resources.errors import Cause, ConfigError, RoutedError
from api.store import backup
from api.store.backup import Backup
from api.store.etcd.place import EtcdPlace
from api.store.places import Place, SqlitePlace, first_revision
from api.store.sqlite import file
from api.store.sqlite.store import SqliteStore

AHEAD = 1 << 30  # more revisions than any store has given away since its backup


async def read(place: Place) -> Backup:
    """What the store holds at one moment, whoever uses it."""
    if isinstance(place, SqlitePlace):
        return Backup.of(*file.read(place.path))
    from api.store.etcd.store import EtcdStore

    store = EtcdStore(place, first=None)
    try:
        return Backup.of(*await store.scan(""))
    finally:
        await store.close()


async def restore(held: Backup, place: Place) -> None:
    """Into a store that is empty; ConfigError if it is not."""
    first = max(first_revision(), held.revision + AHEAD)
    if isinstance(place, SqlitePlace):
        await _into_file(held, place.path, first)
    else:
        await _into_etcd(held, place, first)


async def migrate(source: Place, target: Place) -> Backup:
    """What was moved. The source is as it was if that does not end well."""
    async with _moving(source, str(target)) as held:
        await restore(held, target)
    return held


@contextlib.asynccontextmanager
async def _moving(place: Place, elsewhere: str) -> AsyncIterator[Backup]:
    if isinstance(place, SqlitePlace):
        with file.moving(place.path, elsewhere) as found:
            yield Backup.of(*found)
        return
    from api.store.etcd.store import EtcdStore

    store = EtcdStore(place, first=None)
    try:
        await store.moved(elsewhere)
        try:
            yield Backup.of(*await store.scan(""))
        except BaseException:
            await store.moved("")
            raise
    finally:
        await store.close()


async def _into_file(held: Backup, path: Path, first: int) -> None:
    if path.exists():
        raise ConfigError(f"store {path}", [Cause("", "exists already: move it away")])
    growing = path.with_name(f".{path.name}.filling")
    growing.unlink(missing_ok=True)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = SqliteStore(growing, first=first)
    try:
        await backup.fill(store, held.objects)
        _, items = await store.scan("")
    finally:
        await store.close()
    _check(held, Backup.of(0, items), str(path))
    os.link(growing, path)  # never over another
    growing.unlink()


async def _into_etcd(held: Backup, place: EtcdPlace, first: int) -> None:
    from api.store.etcd.store import EtcdStore

    store = EtcdStore(place, first=first, filling=True)
    try:
        await backup.fill(store, held.objects)
        _, items = await store.scan("")
        _check(held, Backup.of(0, items), str(place))
        await store.filled()
    finally:
        await store.close()


def _check(wanted: Backup, found: Backup, where: str) -> None:
    if problems := backup.compare(wanted.objects, found.objects):
        raise RoutedError(f"cannot use {where}: not the same: {'; '.join(map(str, problems))}")
