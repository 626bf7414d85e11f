"""Backup, restore and migration, by the program itself, between SQLite and a real etcd."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.etcd import Cluster
from support.service import process

from api.resources.errors import ConfigError, StorageError
from api.store import Compacted, Item
from api.store.backup import parse
from api.store.etcd.store import EtcdStore
from api.store.places import open_store
from api.store.places import parse as place_of
from api.store.sqlite.store import SqliteStore
from api.store.transfer import read, restore
from routed.lab.processes import free_port

OBJECTS = 250
_number = itertools.count()


def routed(*words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "routed.main", "store", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def urls(tmp_path: Path, single_etcd: Cluster) -> dict[str, str]:
    """Two empty places of each kind."""
    prefix = f"/transfer{next(_number)}"
    return {
        "sqlite": f"sqlite:///{tmp_path}/one.db",
        "sqlite 2": f"sqlite:///{tmp_path}/two.db",
        "etcd": f"{single_etcd.url}{prefix}/one",
        "etcd 2": f"{single_etcd.url}{prefix}/two",
    }


def fill(loop: asyncio.Runner, url: str) -> list[Item]:
    """With large, small, odd, changed and deleted objects."""

    async def whole() -> list[Item]:
        store = open_store(place_of(url))
        for number in range(OBJECTS):
            await store.commit({}, {f"/workloads/w{number:03}": b'{"a":"%d \xc3\xa9"}' % number})
        await store.commit({}, {"/ippools/p": b"{}", "/nodes/gone": b"x", "/nodes/\u00e9": b"\xff"})
        await store.commit({}, {"/nodes/gone": None, "/ippools/big": b"x" * 1_000_000})
        _, items = await store.scan("")
        await store.close()
        return items

    return loop.run(whole())


def objects(loop: asyncio.Runner, url: str) -> tuple[int, list[Item]]:
    async def whole() -> tuple[int, list[Item]]:
        store = open_store(place_of(url))
        try:
            return await store.scan("")
        finally:
            await store.close()

    return loop.run(whole())


def plain(items: list[Item]) -> list[tuple[str, bytes]]:
    return [(item.key, item.value) for item in items]


@pytest.mark.parametrize("source", ["sqlite", "etcd"])
@pytest.mark.parametrize("target", ["sqlite 2", "etcd 2"])
def test_a_backup_is_restored_into_either_store(
    urls: dict[str, str], tmp_path: Path, loop: asyncio.Runner, source: str, target: str
) -> None:
    made = fill(loop, urls[source])
    file = tmp_path / "backup"
    said = routed("backup", str(file), "--store", urls[source])
    assert re.search(rf"^workloads +{OBJECTS} ", said, re.M)
    assert file.stat().st_mode & 0o777 == 0o600
    assert routed("restore", str(file), "--store", urls[target]) == said
    revision, found = objects(loop, urls[target])
    assert plain(found) == plain(made)
    known, _ = objects(loop, urls[source])
    assert revision > known
    refused = routed("restore", str(file), "--store", urls[target], code=2)
    assert "exists already" in refused or "is not empty" in refused
    assert "exists already" in routed("backup", str(file), "--store", urls[source], code=2)


@pytest.mark.parametrize("clock", [None, 1], ids=["", "set back"])
@pytest.mark.parametrize("kind", ["sqlite", "etcd"])
def test_who_comes_back_to_a_restored_store_is_told_to_list(
    urls: dict[str, str],
    loop: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    clock: int | None,
) -> None:
    """Also when it has seen as many changes as the store that is lost, and in the same second, and
    when the clock was set back."""
    if clock is not None:
        monkeypatch.setattr("api.store.transfer.first_revision", lambda: clock)
    fill(loop, urls[kind])
    held = loop.run(read(place_of(urls[kind])))

    async def lost() -> int:
        store = open_store(place_of(urls[kind]))
        for _ in range(20):
            made = await store.commit({}, {"/nodes/lost": b"x"})
        await store.close()
        return made["/nodes/lost"]

    known = loop.run(lost())
    other = urls[f"{kind} 2"]
    loop.run(restore(held, place_of(other)))

    async def back() -> None:
        store = open_store(place_of(other))
        for _ in range(50):
            await store.commit({}, {"/nodes/new": b"x"})
        for revision in (known, known - store.spacing):
            with pytest.raises(Compacted):
                await store.since(revision)
        await store.close()

    loop.run(back())


@pytest.mark.parametrize(("source", "target"), [("sqlite", "etcd"), ("etcd", "sqlite")])
def test_a_migration_and_the_way_back(
    urls: dict[str, str], loop: asyncio.Runner, source: str, target: str
) -> None:
    made = fill(loop, urls[source])
    said = routed("migrate", "--from", urls[source], "--to", urls[target])
    assert re.search(rf"^workloads +{OBJECTS} ", said, re.M)
    assert plain(objects(loop, urls[target])[1]) == plain(made)
    with pytest.raises(ConfigError, match="its objects are elsewhere now"):
        objects(loop, urls[source])
    again = routed("migrate", "--from", urls[source], "--to", urls[f"{target} 2"], code=2)
    assert "its objects are elsewhere now" in again
    routed("migrate", "--from", urls[target], "--to", urls[f"{source} 2"])
    assert plain(objects(loop, urls[f"{source} 2"])[1]) == plain(made)


def test_a_migration_into_a_store_that_is_not_empty_leaves_both(
    urls: dict[str, str], loop: asyncio.Runner
) -> None:
    made, held = fill(loop, urls["etcd"]), fill(loop, urls["sqlite"])
    for source, target in (("etcd", "sqlite"), ("sqlite", "etcd")):
        said = routed("migrate", "--from", urls[source], "--to", urls[target], code=2)
        assert "exists already" in said or "is not empty" in said
    assert plain(objects(loop, urls["etcd"])[1]) == plain(made)
    assert plain(objects(loop, urls["sqlite"])[1]) == plain(held)
    assert "there is none" in routed("backup", "/none", "--store", urls["etcd 2"], code=2)


def test_a_file_that_a_control_plane_uses_is_not_migrated_but_backed_up(
    urls: dict[str, str], tmp_path: Path
) -> None:
    directory, port = tmp_path / "d", free_port()
    words = [sys.executable, "-m", "routed.main", "server", "--data-dir", str(directory)]
    words += ["--listen", f"127.0.0.1:{port}"]
    file = f"sqlite:///{directory}/routed.db"
    with process(words, directory / "admin.kubeconfig", port, tmp_path / "log") as pid:
        refused = routed("migrate", "--from", file, "--to", urls["etcd"], code=2)
        assert "stop the control plane that uses it" in refused
        routed("backup", str(tmp_path / "b"), "--data-dir", str(directory))
        assert parse(tmp_path / "b").objects
        os.kill(pid, signal.SIGTERM)
    routed("migrate", "--from", file, "--to", urls["etcd"])
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "its objects are elsewhere now: etcd" in done.stderr


def test_who_still_runs_on_an_etcd_that_was_moved_writes_nothing(
    urls: dict[str, str], loop: asyncio.Runner
) -> None:
    fill(loop, urls["etcd"])

    async def whole() -> None:
        place = place_of(urls["etcd"])
        store = open_store(place)
        await store.commit({}, {"/nodes/a": b"x"})
        done = asyncio.to_thread(routed, "migrate", "--from", urls["etcd"], "--to", urls["sqlite"])
        await done
        with pytest.raises(StorageError, match="its objects are elsewhere now"):
            await store.commit({}, {"/nodes/b": b"x"})
        await store.close()

    loop.run(whole())


def test_what_is_being_filled_is_used_by_nobody_else(
    urls: dict[str, str], loop: asyncio.Runner
) -> None:
    async def whole() -> None:
        place = place_of(urls["etcd"])
        filling = EtcdStore(replace(place), filling=True)  # type: ignore[arg-type]
        await filling.commit({}, {"/nodes/a": b"x"})
        for filling_too in (False, True):
            other = EtcdStore(place, filling=filling_too)  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match=r"is being filled|is not empty"):
                await other.scan("")
            await other.close()
        await filling.filled()
        await filling.close()

    loop.run(whole())
    assert plain(objects(loop, urls["etcd"])[1]) == [("/nodes/a", b"x")]


@pytest.mark.parametrize("harm", ["short", "changed", "other"])
def test_a_damaged_backup_is_refused(tmp_path: Path, loop: asyncio.Runner, harm: str) -> None:
    fill(loop, f"sqlite:///{tmp_path}/s.db")
    file = tmp_path / "b"
    routed("backup", str(file), "--store", f"sqlite:///{tmp_path}/s.db")
    data = file.read_bytes()
    changed = data.replace(b'{\\"a\\":\\"7 ', b'{\\"a\\":\\"8 ')
    harmed = {"short": data[: len(data) // 2], "changed": changed, "other": b"[]\n"}
    file.write_bytes(harmed[harm])
    assert file.read_bytes() != data
    said = routed("restore", str(file), "--store", f"sqlite:///{tmp_path}/t.db", code=2)
    assert "is damaged" in said or "is no backup" in said
    assert not (tmp_path / "t.db").exists()


def test_the_file_of_the_present_schema_opens(tmp_path: Path, loop: asyncio.Runner) -> None:
    """Made by the program of schema 2; it stays as it is for all releases to come."""
    fixture = Path(__file__).with_name("schema2.sql")
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.executescript(fixture.read_text(encoding="utf-8"))
    connection.close()

    async def whole() -> None:
        store = SqliteStore(tmp_path / "s.db")
        revision, items = await store.scan("")
        assert (revision, plain(items)) == (7, [("/ippools/p", b'{"b":2}'), ("/nodes/n", b"{}")])
        events = (await store.since(4)).events
        assert [(e.key, e.value, e.previous) for e in events] == [
            ("/nodes/gone", b"{}", None),
            ("/ippools/p", b'{"b":2}', b'{"b":1}'),
            ("/nodes/gone", None, b"{}"),
        ]
        with pytest.raises(Compacted):
            await store.since(1)
        assert (await store.commit({"/nodes/n": 4}, {"/nodes/n": b"x"}))["/nodes/n"] == 8
        await store.close()

    loop.run(whole())
