"""Which store: a URL and what belongs to it, and the store that this means."""

from __future__ import annotations

import ipaddress
import re
import time
from dataclasses import dataclass
from pathlib import Path

from api.store.etcd.place import EtcdPlace
from api.store.seam import Store
from api.store.sqlite.store import SqliteStore

SQLITE, ETCD = "sqlite:///", "etcd://"
EPOCH_BITS = 20
_ENDPOINT = re.compile(r"^(\[[0-9a-fA-F:]+\]|[^:/@\s\[\]]+):(\d{1,5})$")


@dataclass(frozen=True, slots=True)
class SqlitePlace:
    path: Path

    def __str__(self) -> str:
        return f"{SQLITE}{str(self.path).removeprefix('/')}"


Place = SqlitePlace | EtcdPlace


def parse(url: str) -> Place:
    """ValueError says what is wrong with it. An etcd's place has no TLS yet."""
    if url.startswith(SQLITE) and len(url) > len(SQLITE):
        return SqlitePlace(Path("/") / url.removeprefix(SQLITE))
    if not url.startswith(ETCD):
        raise ValueError("must be sqlite:///PATH or etcd://HOST:PORT,HOST:PORT,...")
    members, slash, prefix = url.removeprefix(ETCD).partition("/")
    if "@" in members:
        raise ValueError("must not name a user: that is storeUser and storePasswordFile")
    endpoints = tuple(members.split(","))
    for endpoint in endpoints:
        found = _ENDPOINT.match(endpoint)
        if found is None or not 1 <= int(found[2]) <= 65_535:
            raise ValueError(f"{endpoint!r} is not HOST:PORT")
    if slash and not prefix.strip("/"):
        raise ValueError("must not end in '/'")
    return EtcdPlace(endpoints, f"/{prefix.strip('/')}") if slash else EtcdPlace(endpoints)


def is_local(place: EtcdPlace) -> bool:
    """Every member is on this host: nobody else hears what is said to it."""
    return all(
        _is_loopback(endpoint.rpartition(":")[0].strip("[]")) for endpoint in place.endpoints
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def first_revision(now: float | None = None) -> int:
    """What the revisions of a store that is made now begin with.

    One for each microsecond, about, since 1970, which no store uses up. So the revisions of a store
    that takes the place of another (a restored one, a new one at the same address) are all beyond
    those that the other has given away, and a watcher who comes back with one is told to list
    again, however much has happened since.
    """
    return int((time.time() if now is None else now) * (1 << EPOCH_BITS))


def open_store(place: Place) -> Store:
    """The store at `place`, made if there is none; ConfigError, for an etcd when it is used."""
    if isinstance(place, SqlitePlace):
        return SqliteStore(place.path, first=first_revision())
    from api.store.etcd.store import EtcdStore  # gRPC is large: only who needs it

    return EtcdStore(place, first=first_revision())
