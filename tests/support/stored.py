"""Stores that hold much, made without asking the service for each object."""

from __future__ import annotations

import json
from pathlib import Path

from api.resources import Workload
from api.service.codec import encoded, stored
from api.store.sqlite.store import SqliteStore


def name_of(number: int, nodes: int = 10) -> str:
    """In order of their numbers."""
    return f"w{number:06}.h{number % nodes}"


async def workloads(path: Path, count: int, nodes: int = 10) -> None:
    """A new SQLite store with `count` workloads on that many nodes; every hundredth has the
    label rare=yes."""
    store, puts = SqliteStore(path), dict[str, bytes | None]()
    whole = stored(
        Workload.model_validate(
            {
                "metadata": {
                    "name": "w",
                    "uid": "0" * 36,
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                },
                "spec": {"node": "h", "origin": "Node", "netns": "/run/netns/of-this-workload"},
                "status": {
                    "phase": "Ready",
                    "hostInterface": "rt0123456789",
                    "gateway": "169.254.1.1",
                },
            }
        )
    )
    for number in range(count):
        made = json.loads(json.dumps(whole))
        made["metadata"]["name"] = name = name_of(number, nodes)
        made["metadata"]["labels"] = {"rare": "yes"} if number % 100 == 0 else {"app": "web"}
        made["spec"]["node"] = f"h{number % nodes}"
        made["status"]["addresses"] = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"]
        puts[f"/workloads/{name}"] = encoded(made)
        if len(puts) == 5000:
            await store.commit({}, puts)
            puts = {}
    await store.commit({}, puts)
    await store.close()
