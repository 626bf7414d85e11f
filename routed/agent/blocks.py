"""Keeping blocks: enough free addresses for an outage, nothing that others could use.

A block goes back only over established sessions that have taken its withdrawals: a switch that
keeps stale routes of ours would otherwise have two announcers for the next owner (ADR 1, R8).

An attach may ask for an address in a block that is on its way back. Until the service is asked to
delete the block, it simply stays; from then on nobody knows whose it is until there is an answer,
and the attach is refused at once. A block does not begin to go while somebody asks for an address
in it. All of this is decided between two awaits, so neither can overtake the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from api.client import Unreachable
from api.resources.errors import (
    Conflict,
    IntentError,
    Invalid,
    PoolExhausted,
    SpeakerError,
    StorageError,
)
from api.resources.net import IPAddress
from routed.agent.plan import peers_of

if TYPE_CHECKING:
    from routed.agent.agent import Agent

log = logging.getLogger("routed.agent")

SPARE_SECONDS = 1.0  # between looks for blocks to give back; those for too few are at every attach
SETTLE_SECONDS = 10.0  # for ExaBGP to take the withdrawals


class BlockKeeper:
    """Claims and gives back, outside the writer's turn."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._asked: Counter[IPAddress] = Counter()  # for by attaches that are under way
        self._sent: set[str] = set()  # blocks that the service was asked to delete
        self._spare_at = 0.0
        self._look: asyncio.TimerHandle | None = None  # the next one that is due by itself
        self._short: set[str] = set()  # pools that had no block more for us

    async def keep(self) -> None:
        """Hold the low-water mark of free addresses; give spare empty blocks back."""
        if self.agent.intent is None:
            return
        for pool in self.agent.book.pools_below_mark(self.agent.intent):
            try:
                await self.agent.control.claim(pool=pool)
            except (PoolExhausted, Invalid, Conflict) as error:
                if pool not in self._short:
                    log.warning("pool below its mark pool=%s why=%s", pool, error)
                self._short.add(pool)
            else:
                self._short.discard(pool)
        now = asyncio.get_running_loop().time()
        if now < self._spare_at:
            self._look_again()  # what woke us may be what a block waited for
            return
        self._spare_at = now + SPARE_SECONDS
        if self.agent.book.only_cooling(self.agent.intent):
            self._look_again()
        for name in sorted(self.agent.book.releasing):  # an answer was lost: is it ours?
            await self._give_back(name)
        for name in self.agent.book.spare_blocks(self.agent.intent):
            block = self.agent.control.known.blocks.get(name)
            if block is None or block.status.assigned or block.status.cooling:
                # the service does not know yet that it is empty, and would refuse; nothing else
                # has it told that a cool-down is over
                self.agent.control.report()
                continue
            if not self._sessions_up():
                self._look_again()
            elif self._spare_still(name):
                await self._give_back(name)

    @contextmanager
    def asked_for(self, addresses: Iterable[IPAddress]) -> Iterator[None]:
        """Meanwhile no block with one of them begins to go back; one that has begun stays, if it
        is not too late for that."""
        asked = list(addresses)
        self._asked.update(asked)
        for name in {block for address in asked if (block := self._block_of(address))}:
            self._keep_after_all(name)
        try:
            yield
        finally:
            self._asked.subtract(asked)
            self._asked += Counter()  # without those that nobody asks for any more

    def _keep_after_all(self, name: str) -> None:
        intent, book = self.agent.intent, self.agent.book
        if intent is None or name not in book.releasing or name in self._sent:
            return
        if not intent.draining and intent.blocks[name].metadata.deletion_timestamp is None:
            log.info("block stays, it is asked for name=%s", name)
            book.releasing.discard(name)
            book.own(intent)

    def _block_of(self, address: IPAddress) -> str:
        """The name of our block with that address; "" if there is none."""
        found = self.agent.intent.block_index.find(address) if self.agent.intent else None
        return found[0] if found else ""

    def _spare_still(self, name: str) -> bool:
        intent = self.agent.intent
        if intent is None or name in map(self._block_of, self._asked):
            return False
        return name in self.agent.book.spare_blocks(intent)

    def _look_again(self) -> None:
        """As soon as the next look may be, whether or not anything happens until then."""
        if self._look is None:
            self._look = asyncio.get_running_loop().call_at(self._spare_at, self._due)

    def _due(self) -> None:
        self._look, self._spare_at = None, 0.0
        self.agent.control.look_at_blocks()

    def _sessions_up(self) -> bool:
        return self.agent.intent is not None and self.agent.speech.all_established(
            peers_of(self.agent.intent)
        )

    async def _give_back(self, name: str) -> None:
        """Stop using the block, take its routes and announcements away, then release it. If nobody
        knows whether it was released, it is not used until somebody does."""
        self.agent.book.releasing.add(name)
        assert self.agent.intent is not None
        self.agent.book.own(self.agent.intent)
        try:
            await self.agent.writer.synced()
            withdrawn = await self._withdrawn()
            if name not in self.agent.book.releasing:
                return  # it is asked for, and was taken into use again
            if withdrawn:
                self._sent.add(name)
                await self.agent.control.release(name)
            else:
                self._look_again()
                if name in self._sent:
                    return  # it may be another's since the first try
        except (Unreachable, StorageError) as error:
            log.warning("block perhaps released name=%s why=%s", name, error)
            raise
        except (IntentError, OSError) as error:
            log.warning("block not released name=%s why=%s", name, error)
        self._sent.discard(name)
        self.agent.book.releasing.discard(name)
        self.agent.book.own(self.agent.intent)

    async def _withdrawn(self) -> bool:
        """Whether every switch has taken what was withdrawn so far."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self.agent.speech.settled()
        except (TimeoutError, SpeakerError):
            return False
        return self._sessions_up()
