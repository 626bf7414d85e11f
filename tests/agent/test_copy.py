"""The copy of intent on disk: it forgets a block before another node can have it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from api.client import Unreachable, WatchEvent
from api.resources import IPBlock, ObjectMeta
from api.resources.errors import Conflict, NotFound, StorageError
from api.resources.ippool import IPBlockSpec
from api.resources.net import parse_cidr
from routed.agent.control import Control
from routed.agent.intent import WATCHED
from routed.settings import AgentSettings

BLOCK = "10-65-0-0-26"


class Service:
    """Deletes, and looks at the copy on disk at that moment."""

    def __init__(self, path: Path, *, refuses: bool) -> None:
        self.path, self.refuses = path, refuses
        self.seen: list[list[str]] = []
        self.lost: Exception | None = None  # what becomes of the answer
        self.held: IPBlock | None = None  # by that name, whosever

    async def delete(self, model: Any, name: str, *, uid: str = "") -> None:
        self.seen.append(blocks(self.path))
        if self.lost is not None:
            raise self.lost
        if self.refuses or (self.held is not None and uid != self.held.metadata.uid):
            raise Conflict(f"cannot delete {name}: it has addresses in use, or is another")

    async def get(self, model: Any, name: str) -> IPBlock:
        if self.held is None:
            raise NotFound(f"{name} not found")
        return self.held


def blocks(path: Path) -> list[str]:
    return list(json.loads(path.read_bytes())["blocks"])


@asynccontextmanager
async def with_block(directory: Path, *, refuses: bool) -> AsyncIterator[tuple[Control, Service]]:
    """A node that has a block and a copy that says so, and the service."""
    control = Control(AgentSettings(node="h1", run_dir=directory, state_dir=directory), None)
    spec = IPBlockSpec(node="h1", pool="main", cidr=parse_cidr("10.65.0.0/26"))
    block = IPBlock(metadata=ObjectMeta(name=BLOCK, uid="one", resource_version="5"), spec=spec)
    for plural in WATCHED:
        control.known.take(plural, WatchEvent("BEGIN"))
        if plural == "ipblocks":
            control.known.take(plural, WatchEvent("ADDED", block))
        control._changed(control.known.take(plural, WatchEvent("END")))
    service = Service(control.path, refuses=refuses)
    service.held = block
    control.client = service  # type: ignore[assignment]
    keeping = asyncio.create_task(control.copy.serve())
    try:
        await control.copy.written()
        yield control, service
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_block_is_forgotten_before_it_is_given_back(tmp_path: Path, refuses: bool) -> None:
    async def body() -> None:
        async with with_block(tmp_path, refuses=refuses) as (control, service):
            assert blocks(control.path) == [BLOCK]
            try:
                await control.release(BLOCK)
            except Conflict:
                assert refuses
            assert service.seen == [[]], "the copy still had it when the service was asked"
            await control.copy.written()
            assert blocks(control.path) == ([BLOCK] if refuses else [])

    asyncio.run(body())


@pytest.mark.parametrize("lost", [Unreachable("no answer"), StorageError("no quorum")])
@pytest.mark.parametrize("then", ["gone", "another's", "ours"])
def test_a_block_is_nobodys_to_use_until_it_is_known_whose_it_is(
    tmp_path: Path, lost: Exception, then: str
) -> None:
    async def body() -> None:
        async with with_block(tmp_path, refuses=False) as (control, service):
            service.lost = lost
            with pytest.raises(type(lost)):
                await control.release(BLOCK)
            await control.copy.written()
            assert blocks(control.path) == [], "an agent that starts now must not use it"
            service.lost = None
            ours = control.known.blocks[BLOCK]
            metadata = ours.metadata.model_copy(update={"uid": "another"})
            service.held = {
                "gone": None,
                "another's": ours.model_copy(update={"metadata": metadata}),
                "ours": ours,
            }[then]
            service.refuses = then == "ours"
            if then == "ours":
                with pytest.raises(Conflict):
                    await control.release(BLOCK)
            else:
                await control.release(BLOCK)
            await control.copy.written()
            assert blocks(control.path) == ([BLOCK] if then == "ours" else [])
            assert (BLOCK in control.known.blocks) == (then == "ours")

    asyncio.run(body())


def test_a_disk_that_cannot_take_it_keeps_the_block(tmp_path: Path) -> None:
    async def body() -> None:
        async with with_block(tmp_path, refuses=False) as (control, service):
            control.copy.path = tmp_path / "gone" / "intent.json"
            with pytest.raises(OSError, match="No such file"):
                await control.release(BLOCK)
            assert service.seen == []
            assert BLOCK in control.known.blocks

    asyncio.run(body())
