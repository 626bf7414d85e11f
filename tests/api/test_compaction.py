"""The log is bounded: what is old is forgotten, what a watcher may come back for is not."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from api.resources.errors import StorageError
from api.service.compaction import Horizon, keep_compact
from api.store.sqlite.store import SqliteStore


def test_what_is_old_by_time_and_by_number() -> None:
    horizon = Horizon(keep_seconds=300, keep_revisions=100)
    assert horizon.before(0, 1000) == 0, "nothing is known to be old yet"
    assert horizon.before(299, 5000) == 0
    assert horizon.before(300, 5000) == 1000
    assert horizon.before(598, 5000) == 1000
    assert horizon.before(599, 5050) == 4950, "never fewer than the last hundred"
    assert horizon.before(5000, 9000) == 5050
    assert horizon.before(5300, 9000) == 8900


def test_a_store_that_is_written_to_for_ever_does_not_grow_for_ever(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path / "s.db")
        horizon = Horizon(keep_seconds=0.02, keep_revisions=50)
        compacting = asyncio.create_task(keep_compact(store, horizon, every=0.005))
        connection = sqlite3.connect(tmp_path / "s.db")

        def rows() -> int:
            return int(connection.execute("SELECT count(*) FROM log").fetchone()[0])

        async with asyncio.timeout(20):
            for _ in range(600):
                last = await store.commit({}, {"/k": b"x", "/gone": None})
            while rows() > 100:
                await asyncio.sleep(0.005)
        revision, events, _ = await store.since(last["/gone"] - 50)
        assert (revision, len(events)) == (last["/gone"], 50)
        compacting.cancel()
        await asyncio.wait([compacting])
        connection.close()
        await store.close()

    asyncio.run(body())


def test_a_full_disk_does_not_end_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full(SqliteStore):
        refused = 0

        async def compact(self, before: int) -> None:
            if not self.refused:
                self.refused += 1
                raise StorageError("cannot write to the store: no room", full=True)
            await super().compact(before)

    async def body() -> None:
        store = Full(tmp_path / "s.db")
        for _ in range(10):
            last = await store.commit({}, {"/k": b"x"})
        horizon = Horizon(keep_seconds=0.0, keep_revisions=0)
        compacting = asyncio.create_task(keep_compact(store, horizon, every=0.001))
        connection = sqlite3.connect(tmp_path / "s.db")
        async with asyncio.timeout(20):
            query = "SELECT value FROM meta WHERE name = 'compacted'"
            while connection.execute(query).fetchone()[0] < last["/k"] - 1:
                await asyncio.sleep(0.001)
        assert store.refused == 1
        assert "not compacted why=cannot write" in caplog.text
        compacting.cancel()
        await asyncio.wait([compacting])
        connection.close()
        await store.close()

    asyncio.run(body())
