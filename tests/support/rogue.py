"""A host's speaker that is told something behind its agent's back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from api.resources.net import host_prefix, parse_address
from bgp import wire
from bgp.seam import Advertisement
from routed.lab.lab import Lab


def tell(lab: Lab, host: str, *messages: wire.Message) -> None:
    """Say something to the host's speaker behind its agent's back; ExaBGP has it afterwards."""

    async def body() -> None:
        path = str(lab.directory / host / "run" / "speaker.sock")
        reader, writer = await asyncio.open_unix_connection(path, limit=wire.LINE_LIMIT)
        for message in (*messages, wire.Sync(1)):
            writer.write(wire.op(message))
        while not isinstance(wire.parse_event(await reader.readline()), wire.Synced):
            pass
        writer.close()
        await writer.wait_closed()

    asyncio.run(asyncio.wait_for(body(), 20))


@contextmanager
def announced(lab: Lab, host: str, address: str) -> Iterator[float]:
    """By the host's speaker, though nothing there has it; since when."""
    one = host_prefix(parse_address(address))
    began = time.monotonic()
    tell(lab, host, Advertisement(one))
    try:
        yield began
    finally:
        tell(lab, host, wire.Withdraw(one))
