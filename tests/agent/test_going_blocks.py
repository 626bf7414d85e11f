"""An attach asks for an address in a block on its way back: it stays, or the answer is no."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.agents import agent_on, owned

from api.client import Unreachable
from api.resources.errors import Conflict, PoolExhausted
from api.resources.net import IPAddress, parse_address, parse_cidr
from api.resources.workload import Origin
from routed.agent import attaching
from routed.agent.agent import Agent
from routed.agent.attachment import Attachment
from routed.agent.intent import Intent
from routed.agent.request import AttachRequest
from routed.kernel.fake import FakeKernel

NAME, ADDRESS = "10-65-0-0-26", "10.65.0.5"
AT_ONCE = 2.0  # seconds


class Going:
    """An agent that gives its block back: `settled` and `answered` hold that up."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agent = agent
        self.up = True
        self.settling, self.settled = asyncio.Event(), asyncio.Event()
        self.asked, self.answered = asyncio.Event(), asyncio.Event()
        self.failure: Exception | None = None
        block = agent.known_intent().blocks[NAME]
        agent.control.known.objects["ipblocks"][NAME] = block
        monkeypatch.setattr(agent.speech, "all_established", lambda peers: self.up)
        monkeypatch.setattr(agent.speech, "settled", self._settle)
        monkeypatch.setattr(agent.control, "release", self._release)
        monkeypatch.setattr(agent.control, "claim", self._claim)

    async def _settle(self) -> None:
        self.settling.set()
        await self.settled.wait()

    async def _release(self, name: str) -> None:
        assert name == NAME
        self.asked.set()
        await self.answered.wait()
        if self.failure is not None:
            raise self.failure
        self.agent.intent_changed(replace(self.agent.known_intent(), blocks={}))

    async def _claim(self, **_: object) -> Intent:
        raise AssertionError("nobody has to be asked")

    async def attach(self) -> Attachment:
        body = {"name": "web", "netns": "web", "addresses": [ADDRESS]}
        async with asyncio.timeout(AT_ONCE):
            record, _ = await self.agent.attach(AttachRequest.model_validate(body))
        return record

    def announced(self) -> list[str]:
        return [str(prefix) for prefix in self.agent.speech.prefixes()]


@asynccontextmanager
async def going(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Going]:
    """Its pool is disabled, so that the empty block goes back."""
    kernel = FakeKernel()
    kernel.add_namespace("web")
    agent = agent_on(kernel, directory, disabled=True)
    writing = asyncio.create_task(agent.writer.serve())
    made = Going(agent, monkeypatch)
    made.settled.set()
    made.answered.set()
    try:
        yield made
        assert not writing.done()
    finally:
        writing.cancel()


Body = Callable[[Going], Awaitable[None]]


def run(body: Body, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole() -> None:
        async with going(directory, monkeypatch) as made:
            await body(made)

    asyncio.run(whole())


def test_it_goes_back_when_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(made: Going) -> None:
        await made.agent.blocks.keep()
        assert made.asked.is_set()
        assert not made.agent.known_intent().blocks

    run(body, tmp_path, monkeypatch)


def test_it_stays_while_the_service_has_not_been_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(made: Going) -> None:
        made.settled.clear()
        giving = asyncio.create_task(made.agent.blocks.keep())
        await made.settling.wait()
        assert made.agent.book.releasing == {NAME}
        record = await made.attach()
        assert [str(address) for address in record.addresses] == [ADDRESS]
        assert f"{ADDRESS}/32" in made.announced()
        made.settled.set()
        await giving
        assert not made.asked.is_set(), "a block that is in use was given back"
        assert NAME in made.agent.known_intent().blocks

    run(body, tmp_path, monkeypatch)


def test_it_is_refused_at_once_when_the_service_has_been_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(made: Going) -> None:
        made.answered.clear()
        giving = asyncio.create_task(made.agent.blocks.keep())
        await made.asked.wait()
        with pytest.raises(Conflict, match="its block is being given back"):
            await made.attach()
        made.answered.set()
        await giving
        assert not made.agent.book.allocator.assigned

    run(body, tmp_path, monkeypatch)


def test_it_does_not_begin_to_go_while_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(made: Going) -> None:
        with made.agent.blocks.asked_for([parse_address(ADDRESS)]):
            await made.agent.blocks.keep()
            assert not made.asked.is_set()
        made.agent.blocks._due()
        await made.agent.blocks.keep()
        assert made.asked.is_set(), "afterwards it does"

    run(body, tmp_path, monkeypatch)


def test_what_is_wanted_back_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(made: Going) -> None:
        intent = made.agent.known_intent()
        block = intent.blocks[NAME]
        metadata = block.metadata.model_copy(update={"deletion_timestamp": "now"})
        wanted_back = block.model_copy(update={"metadata": metadata})
        made.agent.intent_changed(replace(intent, blocks={NAME: wanted_back}))
        made.settled.clear()
        giving = asyncio.create_task(made.agent.blocks.keep())
        await made.settling.wait()
        with pytest.raises(Conflict, match="its block is being given back"):
            await made.attach()
        made.settled.set()
        await giving
        assert made.asked.is_set()

    run(body, tmp_path, monkeypatch)


def test_what_was_not_answered_is_not_used_though_sessions_are_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(made: Going) -> None:
        made.failure = Unreachable("no answer")
        with pytest.raises(Unreachable):
            await made.agent.blocks.keep()
        made.up = False
        made.agent.blocks._due()
        await made.agent.blocks.keep()
        assert made.agent.book.releasing == {NAME}, "it may be another node's by now"
        with pytest.raises(Conflict, match="whether it was is not known yet"):
            await made.attach()
        made.up, made.failure = True, None
        made.agent.blocks._due()
        await made.agent.blocks.keep()
        assert not made.agent.known_intent().blocks

    run(body, tmp_path, monkeypatch)


def candidate(*addresses: IPAddress) -> Attachment:
    """As a declared workload is attached that had `addresses` before."""
    return Attachment(
        id="web", name="web", node="h1", origin=Origin.NODE, netns="web", addresses=list(addresses)
    )


def test_a_full_pool_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `prepare` raises is final: asking again would only be slower."""

    async def body(made: Going) -> None:
        asked = []

        async def claim(*, pool: str = "", **_: object) -> Intent:
            asked.append(pool)
            raise PoolExhausted("cannot claim a block: 0 free")

        monkeypatch.setattr(made.agent.control, "claim", claim)
        intent = made.agent.known_intent()
        pool = intent.pools["main"]
        spec = pool.spec.model_copy(update={"disabled": False})
        pools = {"main": pool.model_copy(update={"spec": spec})}
        made.agent.intent_changed(replace(intent, pools=pools, blocks={}))
        with pytest.raises(PoolExhausted, match="no block more: cannot claim a block: 0 free"):
            await made.agent.attach_candidate(candidate())
        assert asked == ["main"]

    run(body, tmp_path, monkeypatch)


def test_who_cannot_have_its_address_again_gets_a_block_more(tmp_path: Path) -> None:
    """It would need none for its own address; somebody else has that, and all others."""

    async def body() -> None:
        kernel = FakeKernel()
        kernel.add_namespace("web")
        agent = agent_on(kernel, tmp_path, block_size=31)
        for number in range(2):
            agent.book.allocator.hold(parse_address(f"10.65.0.{number}"), f"other{number}")
        claimed = []

        async def claim(*, pool: str = "", **_: object) -> Intent:
            claimed.append(pool)
            block = owned(parse_cidr("10.65.0.2/31"))
            intent = agent.known_intent()
            blocks = {**intent.blocks, block.metadata.name: block}
            agent.intent_changed(replace(intent, blocks=blocks))
            return agent.known_intent()

        agent.control.claim = claim  # type: ignore[method-assign]
        writing = asyncio.create_task(agent.writer.serve())
        record, _ = await attaching.attach_candidate(agent, candidate(parse_address("10.65.0.0")))
        writing.cancel()
        assert [str(address) for address in record.addresses] == ["10.65.0.2"]
        assert claimed == ["main"]

    asyncio.run(body())
