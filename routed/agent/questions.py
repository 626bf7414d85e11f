"""Questions that come to this node through the service, and its answers (`api.service.questions`).

They come by the watch of our own Node, and are answered one after the other. Nothing depends on
them: what cannot be answered is not, and who has asked is told that by the service.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from api.client import Client
from api.resources.errors import RoutedError
from api.resources.net import IPAddress, parse_address

log = logging.getLogger("routed.control")

MOST = 16  # that wait

Answering = Callable[[IPAddress, IPAddress | None], Awaitable[Mapping[str, Any]]]


class Questions:
    def __init__(self, node: str) -> None:
        self.node = node
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MOST)

    def take(self, text: str) -> None:
        """One that has come; beyond MOST they are dropped."""
        if not self._waiting.full():
            self._waiting.put_nowait(text)

    async def serve(self, client: Client, way: Answering) -> None:
        """Answer for ever, by `way`: to an address, perhaps from one."""
        while True:
            text = await self._waiting.get()
            try:
                asked = json.loads(text)
                source = parse_address(asked["from"]) if "from" in asked else None
                answer = await way(parse_address(asked["to"]), source)
                await client.answer(self.node, asked["id"], answer)
            except (RoutedError, ValueError, KeyError, TypeError) as error:
                log.info("question not answered: %s", error)
