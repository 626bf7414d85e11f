"""Requests decided together: one commit for many, and no answer that rests on what is not so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.stores import Watched

from api.resources.errors import Conflict, Invalid, NotFound, PoolExhausted, StorageError
from api.resources.registry import KINDS
from api.service.codec import encoded
from api.service.objects import Objects
from api.service.state import State
from api.store import Item
from api.store.sqlite.store import SqliteStore

Puts = Mapping[str, bytes | None]


def with_service(path: Path, body: Callable[[Objects, Watched], Awaitable[None]]) -> None:
    """A service with pool main (four blocks), pool six, and the nodes h1, h2, h3."""

    async def whole() -> None:
        store = Watched(path / "s.db")
        service = Objects(store)
        await make(service, "ippools", "main", cidr="10.65.0.0/24")
        await make(service, "ippools", "six", cidr="fd00::/120")
        for node in ("h1", "h2", "h3"):
            await make(service, "nodes", node)
        store.commits = 0
        try:
            await body(service, store)
        finally:
            await service.mirror.close()
            await store.close()

    asyncio.run(whole())


async def make(service: Objects, plural: str, name: str, **spec: Any) -> Item:
    made, _ = await service.create(KINDS[plural], {"metadata": {"name": name}, "spec": spec})
    return made


async def claim(service: Objects, node: str, **spec: Any) -> str:
    made, _ = await service.create(KINDS["ipblocks"], {"spec": {"node": node, **spec}})
    held = json.loads(made.value)["spec"]
    assert held["node"] == node
    return str(held["cidr"])


async def all_of(*asked: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*asked, return_exceptions=True)


def test_many_claims_are_one_commit_and_no_block_is_given_twice(tmp_path: Path) -> None:
    async def body(service: Objects, store: Watched) -> None:
        pools = ("main", "six")
        asked = [claim(service, "h1", pool=pools[n % 2]) for n in range(6)]
        given = await asyncio.gather(*asked)
        assert store.commits == 1
        assert given[::2] == ["10.65.0.0/26", "10.65.0.64/26", "10.65.0.128/26"]
        assert given[1::2] == ["fd00::/122", "fd00::40/122", "fd00::80/122"]

    with_service(tmp_path, body)


def test_a_refusal_rests_on_what_is_committed(tmp_path: Path) -> None:
    async def body(service: Objects, store: Watched) -> None:
        for _ in range(3):
            await claim(service, "h1", pool="main")
        last, second, third = await all_of(
            *(claim(service, node, pool="main") for node in ("h1", "h2", "h3"))
        )
        assert last == "10.65.0.192/26"
        for refused in (second, third):
            assert isinstance(refused, PoolExhausted)
            assert "4 are owned" in str(refused)

    with_service(tmp_path, body)


def test_of_a_turn_that_cannot_be_written_nobody_is_told_anything_of_it(tmp_path: Path) -> None:
    """With one block left, the second claim of a turn would be refused because of the first. The
    first is not written: so the second is not refused, it is tried."""

    async def body(service: Objects, store: Watched) -> None:
        for _ in range(3):
            await claim(service, "h1", pool="main")
        store.broken = True
        for outcome in await all_of(*(claim(service, n, pool="main") for n in ("h1", "h2"))):
            assert isinstance(outcome, StorageError)
        assert store.commits == 3 + 2
        store.broken = False
        assert await claim(service, "h2", pool="main") == "10.65.0.192/26"
        _, blocks = await service.list(KINDS["ipblocks"])
        assert len(blocks) == 4

    with_service(tmp_path, body)


def test_the_same_block_asked_for_twice_at_once(tmp_path: Path) -> None:
    async def body(service: Objects, store: Watched) -> None:
        first, again, other = await all_of(
            *(claim(service, node, address="10.65.0.9") for node in ("h1", "h1", "h2"))
        )
        assert first == again == "10.65.0.0/26"
        assert isinstance(other, Conflict)
        assert "node h1" in str(other)

    with_service(tmp_path, body)


def test_a_block_given_back_and_claimed_at_once_has_one_owner_at_a_time(tmp_path: Path) -> None:
    async def body(service: Objects, store: Watched) -> None:
        await claim(service, "h1", pool="main")
        before = await service.get(KINDS["ipblocks"], "10-65-0-0-26")
        block = service.delete(KINDS["ipblocks"], "10-65-0-0-26", {}, lambda held: None, node="h1")
        gone, given = await all_of(block, claim(service, "h2", address="10.65.0.1"))
        assert gone["spec"]["node"] == "h1"
        assert given == "10.65.0.0/26"
        events = (await store.since(before.revision))[1]
        told = [(event.value or b"").count(b'"node":"h2"') for event in events
                if event.key == before.key]  # fmt: skip
        assert told == [0, 1], "deleted first, then another's"

    with_service(tmp_path, body)


def test_objects_made_in_the_same_turn_count_for_each_other(tmp_path: Path) -> None:
    async def body(service: Objects, store: Watched) -> None:
        one, two, twin, node, given = await all_of(
            make(service, "ippools", "one", cidr="10.70.0.0/16"),
            make(service, "ippools", "two", cidr="10.70.4.0/24"),
            make(service, "ippools", "one", cidr="10.71.0.0/16"),
            make(service, "nodes", "h9"),
            claim(service, "h9", pool="one"),
        )
        assert isinstance(one, Item)
        assert isinstance(two, Invalid)
        assert "overlaps pool one" in str(two)
        assert "already exists" in str(twin)
        assert isinstance(node, Item)
        assert given == "10.70.0.0/26"

    with_service(tmp_path, body)


@pytest.mark.parametrize("what", ["the node", "the pool", "the selector"])
def test_what_a_claim_rests_on_is_compared(tmp_path: Path, what: str) -> None:
    """Another process takes away what makes the claim right, between decision and commit."""

    async def body(service: Objects, store: Watched) -> None:
        other_store = SqliteStore(tmp_path / "s.db")
        other = Objects(other_store)

        async def meddle(puts: Puts) -> None:
            store.before = None
            if what == "the node":
                await other.delete(KINDS["nodes"], "h1", {}, lambda held: None)
            else:
                change = {"disabled": True} if what == "the pool" else {"nodeSelector": "has(gpu)"}
                patch = {"spec": change}
                await other.patch(KINDS["ippools"], "main", patch, lambda held: None)

        store.before = meddle
        with pytest.raises(Invalid):
            await claim(service, "h1", pool="main")
        assert (await service.list(KINDS["ipblocks"]))[1] == []
        await other_store.close()

    with_service(tmp_path, body)


@pytest.mark.parametrize("what", ["pools", "workloads", "a workload and a block"])
def test_what_concerns_many_objects_is_decided_under_one_key(tmp_path: Path, what: str) -> None:
    """Another process makes what overlaps, under another name, between decision and commit."""

    async def body(service: Objects, store: Watched) -> None:
        other_store = SqliteStore(tmp_path / "s.db")
        other = Objects(other_store)

        async def meddle(puts: Puts) -> None:
            store.before = None
            if what == "pools":
                await make(other, "ippools", "theirs", cidr="10.70.0.0/16")
            elif what == "workloads":
                await make(other, "workloads", "theirs", node="h2", addresses=["10.65.0.3"])
            else:
                await claim(other, "h2", address="10.65.0.3")

        store.before = meddle
        with pytest.raises((Invalid, Conflict), match=r"theirs|node h2"):
            if what == "pools":
                await make(service, "ippools", "ours", cidr="10.70.4.0/24")
            else:
                await make(service, "workloads", "ours", node="h1", addresses=["10.65.0.3"])
        await other_store.close()

    with_service(tmp_path, body)


def test_two_services_never_give_one_block(tmp_path: Path) -> None:
    async def body(service: Objects, store: Watched) -> None:
        other_store = SqliteStore(tmp_path / "s.db", commit_delay=0.002)
        other = Objects(other_store)
        await make(service, "ippools", "big", cidr="10.80.0.0/16")
        asked = [claim((service, other)[n % 2], f"h{n % 3 + 1}", pool="big") for n in range(40)]
        given = await asyncio.gather(*asked)
        assert len(set(given)) == 40
        assert len((await other.list(KINDS["ipblocks"]))[1]) == 40, "each sees what the other did"
        await other_store.close()

    with_service(tmp_path, body)


def test_the_copy_is_what_reading_all_anew_would_be(tmp_path: Path) -> None:
    """What this service decided itself it does not read again, unless another came before it."""

    async def body(service: Objects, store: Watched) -> None:
        other_store = SqliteStore(tmp_path / "s.db")
        other = Objects(other_store)

        async def meddle(puts: Puts) -> None:
            store.before = None
            await claim(other, "h2", pool="main")
            await make(other, "nodes", "h9", asNumber=64_999)

        await make(service, "workloads", "w", node="h1", addresses=["10.65.0.70"])
        await claim(service, "h1", pool="six")
        for kind in KINDS.values():
            assert len((await service.list(kind))[1]) == len((await other.list(kind))[1])
        store.before = meddle
        await all_of(claim(service, "h1", pool="main"), make(service, "nodes", "h9"))
        kind = KINDS["ipblocks"]
        await service.delete(kind, "10-65-0-0-26", {}, lambda held: None, node="h2")
        await service.patch(
            KINDS["ippools"], "six", {"spec": {"disabled": True}}, lambda held: None
        )
        await service.delete(KINDS["workloads"], "w", {}, lambda held: None)
        ours, anew = await service.mirror.fresh(), State(*await store.scan("/"))
        assert ours.revision == anew.revision
        assert ours.world.space.blocks == anew.world.space.blocks
        assert set(ours.world.space.blocks) == {"10-65-0-64-26", f"{'fd00' + '-0000' * 7}-122"}
        assert ours.world.space.pools == anew.world.space.pools
        for pool in anew.world.space.pools.values():
            assert ours.world.space.lowest_free(pool) == anew.world.space.lowest_free(pool)
            assert ours.world.space.owned(pool.metadata.name) == 1
        for part in ("nodes", "asns", "workloads", "users", "credentials"):
            assert getattr(ours.world, part) == getattr(anew.world, part), part
        assert 64_999 in ours.world.asns
        for plural in ("ipblocks", "nodes", "ippools", "workloads", "guard"):
            table, fresh = ours.table(plural), anew.table(plural)
            assert (table.items, table.nodes) == (fresh.items, fresh.nodes)
            assert [table.names(), table.names("h1")] == [fresh.names(), fresh.names("h1")]
        await other_store.close()

    with_service(tmp_path, body)


def test_a_pool_of_a_newer_service_can_be_claimed_of(tmp_path: Path) -> None:
    async def body(service: Objects, store: Watched) -> None:
        document = json.loads((await make(service, "ippools", "new", cidr="10.90.0.0/16")).value)
        document["spec"]["colour"] = "blue"
        document["metadata"]["shade"] = "dark"
        await store.commit({}, {"/ippools/new": encoded(document)})
        assert await claim(service, "h1", pool="new") == "10.90.0.0/26"

    with_service(tmp_path, body)


def test_a_store_that_cannot_be_read_leaves_nobody_waiting(tmp_path: Path) -> None:
    async def body(service: Objects, store: Watched) -> None:
        async def unreadable(after: int) -> tuple[int, list[Any]]:
            raise StorageError("cannot read the store: gone")

        store.since = unreadable  # type: ignore[method-assign]
        outcomes = await asyncio.wait_for(
            all_of(*(claim(service, "h1", pool="main") for _ in range(3))), 10
        )
        assert [type(outcome) for outcome in outcomes] == [StorageError] * 3

    with_service(tmp_path, body)


def test_a_bug_in_a_decision_leaves_nobody_waiting(tmp_path: Path) -> None:
    async def body(service: Objects, store: Watched) -> None:
        def bug(state: Any) -> Any:
            raise ZeroDivisionError

        first, second = (claim(service, node, pool="main") for node in ("h1", "h2"))
        outcomes = await asyncio.wait_for(all_of(first, service.turns.decided(bug), second), 10)
        assert [o for o in outcomes if not isinstance(o, BaseException)] == []
        assert await claim(service, "h1", pool="main") == "10.65.0.0/26", "and nothing is left"

    with_service(tmp_path, body)


def test_the_object_is_judged_as_it_is_when_it_is_decided(tmp_path: Path) -> None:
    async def body(service: Objects, store: Watched) -> None:
        await claim(service, "h2", pool="main")
        seen: list[str] = []

        def only_h1(held: dict[str, Any]) -> None:
            seen.append(held["spec"]["node"])
            if held["spec"]["node"] != "h1":
                raise NotFound("not its own")

        kind, name = KINDS["ipblocks"], "10-65-0-0-26"
        with pytest.raises(NotFound, match="not its own"):
            await service.delete(kind, name, {}, only_h1)
        with pytest.raises(NotFound, match="not its own"):
            await service.patch(kind, name, {"status": {"assigned": 3}}, only_h1, status=True)
        assert seen == ["h2", "h2"]
        assert b'"assigned":0' in (await service.get(kind, name)).value

    with_service(tmp_path, body)


def test_a_turn_takes_no_more_bytes_than_a_store_does_at_once(tmp_path: Path) -> None:
    """etcd refuses a request of more than 1.5 MiB; one object alone has at most one."""

    async def body(service: Objects, store: Watched) -> None:
        sizes: list[int] = []

        async def measured(puts: Puts) -> None:
            sizes.append(sum(len(value or b"") for value in puts.values()))

        store.before = measured
        large = {"note": "x" * 100_000}
        await all_of(
            *(
                service.create(
                    KINDS["nodes"],
                    {"metadata": {"name": f"n{n}", "annotations": large}, "spec": {}},
                )
                for n in range(20)
            )
        )
        assert sum(sizes) > 2_000_000
        assert max(sizes) < 400_000
        assert len(sizes) < 10

    with_service(tmp_path, body)
