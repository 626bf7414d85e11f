"""Sixteen claimers over HTTP against two processes on one store: never one block twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from support.service import process

from api.auth import tokens
from api.resources.errors import StorageError
from api.resources.registry import KINDS
from api.service.objects import Objects
from api.store.sqlite.store import SqliteStore
from routed.lab.processes import free_port

SERVER = """
import asyncio, sys, uvicorn
from pathlib import Path
from api.service.app import application
from api.store.sqlite.store import SqliteStore
store = SqliteStore(Path(sys.argv[1]), commit_delay=0.005)
uvicorn.run(application(store), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
"""
CLAIMERS, CLAIMS = 16, 8


def test_no_block_has_two_owners(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    ports = [free_port(), free_port()]

    async def prepare() -> str:
        store = SqliteStore(path)
        objects = Objects(store)
        pool = {"metadata": {"name": "main"}, "spec": {"cidr": "10.65.0.0/16"}}
        await objects.create(KINDS["ippools"], pool)
        for number in range(CLAIMERS):
            await objects.create(KINDS["nodes"], {"metadata": {"name": f"n{number}"}, "spec": {}})
        token = await tokens.issue(store, tokens.ADMIN)
        await store.close()
        return token

    async def claims(token: str) -> list[tuple[str, str]]:
        async def claimer(number: int) -> list[tuple[str, str]]:
            found = []
            headers = {"Authorization": f"Bearer {token}"}
            url = f"http://127.0.0.1:{ports[number % 2]}/apis/routed.dev/v1/ipblocks"
            async with httpx.AsyncClient(headers=headers, timeout=60) as client:
                while len(found) < CLAIMS:
                    spec = {"node": f"n{number}", "pool": "main"}
                    answer = await client.post(url, json={"spec": spec})
                    if answer.status_code == 409:
                        continue  # too many others were writing: said, and nothing was done
                    assert answer.status_code == 201, answer.text
                    made = answer.json()["spec"]
                    found.append((made["cidr"], made["node"]))
            return found

        found = await asyncio.gather(*(claimer(n) for n in range(CLAIMERS)))
        return [claim for claims in found for claim in claims]

    token = asyncio.run(prepare())
    words = [[sys.executable, "-c", SERVER, str(path), str(port)] for port in ports]
    with (
        process(words[0], path, ports[0], tmp_path / "log0"),
        process(words[1], path, ports[1], tmp_path / "log1"),
    ):
        acknowledged = asyncio.run(claims(token))

    async def stored() -> dict[str, str]:
        store = SqliteStore(path)
        _, items = await Objects(store).list(KINDS["ipblocks"])
        await store.close()
        documents = [json.loads(item.value) for item in items]
        return {d["spec"]["cidr"]: d["spec"]["node"] for d in documents}

    assert len(acknowledged) == len({cidr for cidr, _ in acknowledged}) == CLAIMERS * CLAIMS
    held = asyncio.run(stored())
    assert all(held[cidr] == node for cidr, node in acknowledged)


class Careless(SqliteStore):
    """A seeded bug: commits without looking at the revisions it was decided on."""

    async def commit(
        self, expect: Mapping[str, int], puts: Mapping[str, bytes | None]
    ) -> dict[str, int]:
        return await super().commit({}, puts)


@pytest.mark.parametrize(("store_class", "safe"), [(SqliteStore, True), (Careless, False)])
def test_the_check_finds_a_store_without_compare_and_swap(
    tmp_path: Path, store_class: type[SqliteStore], safe: bool
) -> None:
    """Two services on one file, each with a copy of its own: one does not know, when it decides,
    what the other is just writing."""

    async def body() -> bool:
        stores = [store_class(tmp_path / "s.db", commit_delay=0.001) for _ in range(2)]
        services = [Objects(store) for store in stores]
        pool = {"metadata": {"name": "main"}, "spec": {"cidr": "10.65.0.0/20"}}
        await services[0].create(KINDS["ippools"], pool)
        for number in range(8):
            node = {"metadata": {"name": f"n{number}"}, "spec": {}}
            await services[0].create(KINDS["nodes"], node)
        given: list[str] = []

        async def claim(number: int) -> None:
            wanted = {"spec": {"node": f"n{number}", "pool": "main"}}
            with contextlib.suppress(StorageError):
                made, _ = await services[number % 2].create(KINDS["ipblocks"], wanted)
                given.append(json.loads(made.value)["spec"]["cidr"])

        await asyncio.gather(*(claim(number) for number in range(8)))
        for store in stores:
            await store.close()
        return len(given) == len(set(given))

    assert asyncio.run(body()) is safe
