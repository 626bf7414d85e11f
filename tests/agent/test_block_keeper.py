"""When spare blocks go back: no event is waited for that has come already."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from routed.agent.agent import Agent
from routed.agent.blocks import SPARE_SECONDS, BlockKeeper


def block(cooling: int = 0) -> SimpleNamespace:
    return SimpleNamespace(status=SimpleNamespace(assigned=0, cooling=cooling))


class Fake:
    """What a keeper asks of the agent: one block, and sessions that are up or not."""

    def __init__(self) -> None:
        self.spare: list[str] = []
        self.up = True
        self.released = asyncio.Event()
        self.woken = asyncio.Event()
        self.cooling = False  # as the book has it
        self.blocks = {"one": block()}  # as the service shows them
        self.intent = SimpleNamespace(node=None, peers={})
        self.book = SimpleNamespace(
            pools_below_mark=lambda intent: [],
            only_cooling=lambda intent: self.cooling,
            spare_blocks=lambda intent: [] if self.cooling else list(self.spare),
            own=lambda intent: None,
            releasing=set(),
        )
        self.control = SimpleNamespace(
            known=SimpleNamespace(blocks=self.blocks),
            look_at_blocks=self.woken.set,
            report=self._report,
            release=self._release,
        )
        self.speech = SimpleNamespace(all_established=lambda peers: self.up, settled=self._settled)
        self.writer = SimpleNamespace(synced=self._settled)

    async def _settled(self) -> None: ...

    def _report(self) -> None:
        """What the service shows then wakes, as every change does."""
        self.blocks["one"] = block(int(self.cooling))
        self.woken.set()

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


def test_a_block_whose_last_address_has_cooled_down_goes_without_anything_else() -> None:
    """The service counts it as cooling until it is told; nobody else tells it."""

    async def change(agent: Fake, keeper: BlockKeeper) -> None:
        agent.cooling, agent.blocks["one"] = True, block(cooling=1)
        agent.spare.append("one")
        await keeper.keep()
        agent.cooling = False

    _released_after(change)
