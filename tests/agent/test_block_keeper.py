"""When spare blocks go back: no event is waited for that has come already."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from routed.agent.agent import Agent
from routed.agent.blocks import SPARE_SECONDS, BlockKeeper

EMPTY = SimpleNamespace(status=SimpleNamespace(assigned=0, cooling=0))


class Fake:
    """What a keeper asks of the agent: one block, and sessions that are up or not."""

    def __init__(self) -> None:
        self.spare: list[str] = []
        self.up = True
        self.released = asyncio.Event()
        self.woken = asyncio.Event()
        self.intent = SimpleNamespace(node=None, peers={})
        self.book = SimpleNamespace(
            pools_below_mark=lambda intent: [],
            only_cooling=lambda intent: False,
            spare_blocks=lambda intent: list(self.spare),
            own=lambda intent: None,
            releasing=set(),
        )
        known = SimpleNamespace(blocks={"one": EMPTY})
        look = self.woken.set
        self.control = SimpleNamespace(known=known, look_at_blocks=look, release=self._release)
        self.speech = SimpleNamespace(all_established=lambda peers: self.up, settled=self._settled)
        self.writer = SimpleNamespace(synced=self._settled)

    async def _settled(self) -> None: ...

    async def _release(self, name: str) -> None:
        self.spare.remove(name)
        self.released.set()


async def _keeping(agent: Fake, keeper: BlockKeeper) -> None:
    """As the connection to the service does it: a look whenever something woke it."""
    while True:
        await agent.woken.wait()
        agent.woken.clear()
        await keeper.keep()


def _released_after(change: Any) -> None:
    """`change` of an agent that has just looked; nothing else ever happens."""

    async def body() -> None:
        agent = Fake()
        keeper = BlockKeeper(cast(Agent, agent))
        serving = asyncio.create_task(_keeping(agent, keeper))
        try:
            await change(agent, keeper)
            await asyncio.wait_for(agent.released.wait(), 5 * SPARE_SECONDS)
        finally:
            serving.cancel()

    asyncio.run(body())


def test_a_block_that_became_empty_right_after_a_look_goes_at_the_next() -> None:
    async def change(agent: Fake, keeper: BlockKeeper) -> None:
        await keeper.keep()
        agent.spare.append("one")
        agent.control.look_at_blocks()

    _released_after(change)


def test_a_block_that_waited_for_a_session_goes_when_it_is_up() -> None:
    async def change(agent: Fake, keeper: BlockKeeper) -> None:
        agent.up = False
        agent.spare.append("one")
        await keeper.keep()
        agent.up = True

    _released_after(change)
