"""Telling the control plane that this node lives, as often as it wants to hear it.

Nothing here depends on it: a heartbeat that is lost is followed by the next, and a Node that was
made Unknown meanwhile is reported again like any other difference (`routed.agent.reporting`).
"""

from __future__ import annotations

import asyncio
import logging
import random

from api.client import Client, Unreachable
from api.resources.errors import RoutedError

log = logging.getLogger("routed.control")

FIRST_SECONDS = 10.0  # until the service has said how often, and when it cannot be reached


async def keep_beating(client: Client, node: str) -> None:
    """For ever. The first comes at once, the others with jitter."""
    while True:
        try:
            try:
                seconds = await client.heartbeat(node)
            except Unreachable:  # its connection may have been of one that is gone
                seconds = await client.heartbeat(node)
        except RoutedError as error:  # NotFound too: an older service has no such path
            log.debug("no heartbeat: %s", error)
            seconds = FIRST_SECONDS
        await asyncio.sleep(seconds * random.uniform(0.9, 1.0))  # noqa: S311 - jitter
