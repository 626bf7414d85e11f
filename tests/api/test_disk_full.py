"""The store on a disk that is full: 507, nothing acknowledged is lost, and it goes on with room."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.service import Service, process

from api.resources.errors import ConfigError
from api.store.sqlite.store import SqliteStore
from routed.lab.processes import free_port

pytestmark = pytest.mark.root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def pool(number: int) -> dict[str, object]:
    return {
        "apiVersion": "routed.dev/v1",
        "kind": "IPPool",
        "metadata": {"name": f"p{number}", "annotations": {"note": "x" * 20_000}},
        "spec": {"cidr": f"10.{number // 250}.{number % 250}.0/24"},
    }


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    port = free_port()
    words = [sys.executable, "-m", "routed.main", "server", "--data-dir", str(small_disk)]
    words += ["--listen", f"127.0.0.1:{port}"]
    admin = small_disk / "admin.kubeconfig"
    filler = small_disk / "filler"
    kept: list[str] = []
    log = small_disk.parent / "log"
    with process(words, admin, port, log) as pid:
        filler.write_bytes(b"x" * 400_000)
        service = Service(small_disk, admin, pid)
        with service.http() as api:
            for number in range(200):
                answer = api.post("/ippools", json=pool(number))
                if answer.status_code != 201:
                    break
                kept.append(f"p{number}")
            assert answer.status_code == 507, answer.text
            assert answer.json()["reason"] == "InsufficientStorage"
            assert kept, "something fitted"
            held = [item["metadata"]["name"] for item in api.get("/ippools").json()["items"]]
            assert sorted(held) == sorted(kept), "reads go on, and the refused one is not there"
            filler.unlink()
            again = api.post("/ippools", json=pool(len(kept)))
            assert again.status_code == 201, again.text
            kept.append(f"p{len(kept)}")
        os.kill(pid, signal.SIGKILL)
    with process(words, admin, port, log) as pid, Service(small_disk, admin, pid).http() as api:
        held = [item["metadata"]["name"] for item in api.get("/ippools").json()["items"]]
    assert sorted(held) == sorted(kept), "everything acknowledged is there after kill -9"


def test_a_store_on_a_full_disk_is_not_said_to_be_broken(small_disk: Path) -> None:
    async def held() -> int:
        store = SqliteStore(small_disk / "s.db")
        await store.commit({}, {"/k": b"v"})
        _, items = await store.scan("/")
        await store.close()
        return len(items)

    assert asyncio.run(held()) == 1
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(ConfigError) as refused:
        asyncio.run(held())
    assert "its disk is full: make room" in str(refused.value)
    assert "start empty" not in str(refused.value)
    filler.unlink()
    assert asyncio.run(held()) == 1
