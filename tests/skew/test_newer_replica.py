"""A control plane of this release on a store that a newer one writes to as well."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.service import Service

from api.resources.versions import VERSION
from api.store.sqlite.store import SqliteStore

NEW = {"a": [1]}
MERGE = {"content-type": "application/merge-patch+json"}
JSON_PATCH = {"content-type": "application/json-patch+json"}


def write(service: Service, key: str, change: Any) -> None:
    """As a newer replica on the same file does it."""

    async def body() -> None:
        store = SqliteStore(service.directory / "routed.db")
        found = [item for item in (await store.scan(key))[1] if item.key == key]
        document = json.loads(found[0].value) if found else {}
        change(document)
        data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
        await store.commit({key: found[0].revision if found else 0}, {key: data})
        await store.close()

    asyncio.run(body())


@pytest.fixture
def admin(service: Service) -> Iterator[httpx.Client]:
    with service.http() as found:
        made = found.post("/nodes", json={"metadata": {"name": "h1"}, "spec": {}})
        assert made.status_code == 201
        yield found


def newer(document: dict[str, Any]) -> None:
    for part in (document["metadata"], document["spec"], document["status"]):
        part["fromTheFuture"] = NEW


def has_new(held: dict[str, Any]) -> bool:
    return all(held[part].get("fromTheFuture") == NEW for part in ("metadata", "spec", "status"))


def test_what_a_newer_replica_wrote_stays_through_every_change(
    service: Service, admin: httpx.Client
) -> None:
    write(service, "/nodes/h1", newer)
    held = admin.get("/nodes/h1").json()
    assert has_new(held)
    for change, headers in (
        ({"spec": {"unschedulable": True}}, MERGE),
        ([{"op": "replace", "path": "/spec/unschedulable", "value": False}], JSON_PATCH),
        ({"metadata": {"labels": {"a": "b"}}}, MERGE),
    ):
        made = admin.patch("/nodes/h1", content=json.dumps(change), headers=headers)
        assert made.status_code == 200, made.text
        assert has_new(made.json())
    told = {"status": {"versions": {"routed": "0.2.0"}}}
    made = admin.patch("/nodes/h1/status", json=told, headers=MERGE)
    assert made.status_code == 200, made.text
    assert has_new(made.json())
    plain = {"metadata": {"name": "h1"}, "spec": {"addresses": ["192.0.2.9"]}}
    plain["metadata"]["resourceVersion"] = made.json()["metadata"]["resourceVersion"]  # type: ignore[index]
    made = admin.put("/nodes/h1", json=plain)
    assert made.status_code == 200, made.text
    assert has_new(made.json())
    assert made.json()["spec"]["addresses"] == ["192.0.2.9"]
    same = admin.patch("/nodes/h1", json={"spec": {"addresses": ["192.0.2.9"]}}, headers=MERGE)
    assert same.json()["metadata"]["resourceVersion"] == made.json()["metadata"]["resourceVersion"]
    assert admin.delete("/nodes/h1").status_code == 200


def test_what_cannot_be_read_is_not_changed_and_hinders_nothing_else(
    service: Service, admin: httpx.Client
) -> None:
    def odd(document: dict[str, Any]) -> None:
        document["spec"]["allocation"] = "Borrowed"

    write(service, "/ippools/main", odd)
    write(service, "/telescopes/t1", lambda document: document.update(newer=1))
    refused = admin.patch("/ippools/main", json={"spec": {"disabled": True}}, headers=MERGE)
    assert refused.status_code == 503
    assert "spec.allocation" in refused.json()["message"]
    assert "a newer control plane wrote it" in refused.json()["message"]
    assert admin.get("/ippools/main").json()["spec"]["allocation"] == "Borrowed"
    assert admin.get("/telescopes").status_code == 404
    claim = {"spec": {"node": "h1", "pool": "main"}}
    refused = admin.post("/ipblocks", json=claim)  # nobody claims of it here
    assert refused.status_code in (409, 422), refused.text
    inside = {"metadata": {"name": "in"}, "spec": {"cidr": "10.65.1.0/24"}}
    refused = admin.post("/ippools", json=inside)
    assert "overlaps pool main" in refused.json()["message"]
    other = {"metadata": {"name": "other"}, "spec": {"cidr": "10.66.0.0/16"}}
    assert admin.post("/ippools", json=other).status_code == 201
    claim["spec"]["pool"] = "other"
    assert admin.post("/ipblocks", json=claim).status_code == 201


def test_a_newer_file_is_refused_with_who_wrote_it(tmp_path: Path) -> None:
    fixture = Path(__file__).parents[1] / "store" / "schema2.sql"
    path = tmp_path / "d" / "routed.db"
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.executescript(fixture.read_text(encoding="utf-8"))
    connection.execute("UPDATE meta SET value = 3 WHERE name = 'schema'")
    connection.execute("INSERT INTO meta VALUES ('program', '0.7.2')")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    words = ["server", "--data-dir", str(path.parent), "--store", f"sqlite:///{path}"]
    done = subprocess.run(
        [sys.executable, "-m", "routed.main", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    said = f"has schema 3, written by routed 0.7.2; this program (routed {VERSION}) knows schema 2"
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT value FROM meta WHERE name = 'program'").fetchone() == (
        "0.7.2",
    )
    connection.close()
    assert len(path.read_bytes()) == len(before)
