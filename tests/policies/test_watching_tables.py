"""What others change is heard, told from our own doing; applying keeps nobody waiting."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network

import pytest
from support.netns import in_fresh_namespace

from policies import watch
from policies.compile.ruleset import NO_POLICIES, Ruleset
from policies.nat import Nat, PortMapping
from policies.nft import Nft
from routed.agent.filtering import Filtering
from routed.lab.hollow.host import HollowFilter


def nft(text: str) -> None:
    subprocess.run(["nft", text], check=True, timeout=10)


def test_what_others_change_is_told_from_our_own_doing() -> None:
    async def body() -> None:
        table = Nft()
        heard = aiter(table.watch())

        async def told() -> bool:
            async with asyncio.timeout(5):
                return await anext(heard)

        assert await told(), "of what was before, nothing is known"
        table.sync()
        nft("add table inet other")
        assert await told() is False, "ours first, and not told of"
        nft("add chain inet other routed")
        assert await told() is False
        nft("add table ip routed")
        assert await told() is False, "of that name, of another family"
        nft("add chain inet routed stray")
        assert await told()
        nft("flush ruleset")
        assert await told()
        table.sync()
        nft("delete chain inet routed leaving")
        assert await told(), "ours and theirs at a time"
        table.sync()
        nft("add table inet routed { flags dormant; }")
        assert await told(), "put to sleep"
        table.close()

    in_fresh_namespace(body)


def test_what_is_done_to_ours_is_heard_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done to others is gathered for a moment, and somebody may do that all the time."""
    monkeypatch.setattr(watch, "SETTLE", 3600.0)

    async def body() -> None:
        table = Nft()
        table.sync()
        heard = aiter(table.watch())
        assert await anext(heard), "of what was before, nothing is known"
        for words in ("flush ruleset", "add table inet routed { flags dormant; }"):
            nft(words)
            async with asyncio.timeout(5):
                assert await anext(heard), words
            table.sync()
        nft("add table inet other")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(heard)
        table.close()

    in_fresh_namespace(body)


class Slow(HollowFilter):
    """Takes until it may go on."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.threads: set[str] = set()
        self.busy = 0
        self.most = 0

    def sync(self, nat: Nat | None, rules: Ruleset | None = None, *, trusted: bool = False) -> bool:
        self.threads.add(threading.current_thread().name)
        self.busy += 1
        self.most = max(self.most, self.busy)
        self.may.wait(10)
        self.busy -= 1
        return True


def test_a_table_that_takes_long_keeps_nobody_waiting_and_has_one_user() -> None:
    async def body() -> None:
        table = Slow()
        filtering = Filtering(table)
        filtering.nat = Nat()
        first = asyncio.create_task(filtering.keep())
        await asyncio.sleep(0)  # the loop goes on
        gone = asyncio.create_task(filtering.keep())
        await asyncio.sleep(0)
        gone.cancel()
        second = asyncio.create_task(filtering.keep())
        await asyncio.sleep(0)
        assert not first.done()
        table.may.set()
        assert await first is None
        assert await second is None
        assert filtering.ready
        assert table.most == 1
        assert len(table.threads) == 1
        assert threading.current_thread().name not in table.threads

    asyncio.run(body())


class Counting(HollowFilter):
    """Says what it is told."""

    def __init__(self) -> None:
        self.asked: list[Nat | None] = []
        self.changes: asyncio.Queue[bool] = asyncio.Queue()

    def sync(self, nat: Nat | None, rules: Ruleset | None = None, *, trusted: bool = False) -> bool:
        self.asked.append(nat)
        return False

    async def watch(self) -> AsyncIterator[bool]:
        while True:
            yield await self.changes.get()


def test_only_what_may_have_changed_is_read_again() -> None:
    async def body() -> None:
        table, woken = Counting(), asyncio.Event()
        filtering = Filtering(table)
        serving = asyncio.create_task(filtering.serve(woken.set))
        mapping = PortMapping("tcp", 8080, ip_address("10.65.0.1"), 80)
        empty = Nat(outgoing=frozenset([ip_network("10.65.0.0/24")]))
        filtering.nat = empty
        for _ in range(3):
            await filtering.keep()
        assert len(table.asked) == 1
        await filtering.map_ports(frozenset([mapping]), add=True)
        assert filtering.nat != empty
        await filtering.keep()
        assert len(table.asked) == 1, "it is as it was mapped"
        filtering.nat = Nat()
        await filtering.keep()
        assert table.asked == [empty, Nat()]
        for touched, times in ((False, 2), (True, 4)):  # put back, then looked at
            woken.clear()
            table.changes.put_nowait(touched)
            await woken.wait()
            await filtering.keep()
            assert len(table.asked) == times
        filtering._read_took = 0.0
        filtering.look()
        await filtering.keep()
        assert len(table.asked) == 5
        filtering._read_took = 10.0
        filtering.look()
        await filtering.keep()
        assert len(table.asked) == 5, "so soon after one that took long"
        serving.cancel()

    asyncio.run(body())


def test_where_nobody_has_done_anything_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        table, reads = Nft(), []
        read = table._table
        monkeypatch.setattr(table, "_table", lambda *size: reads.append(size) or read(*size))
        assert table.sync(None, NO_POLICIES)
        for _ in range(3):
            assert not table.sync(None, NO_POLICIES)
        assert len(reads) == 2, "before and after it was made"
        nft("add table inet other")
        assert not table.sync(None, NO_POLICIES)
        assert len(reads) == 3
        nft("flush ruleset")
        assert table.sync(None, NO_POLICIES)
        nft("delete chain inet routed leaving")
        assert table.sync(None, NO_POLICIES)
        assert not table.sync(None, NO_POLICIES)
        table.close()

    in_fresh_namespace(body)
