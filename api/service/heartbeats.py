"""Which nodes are alive: an agent says so every few seconds, and a Node that is silent for long has
all its conditions made Unknown (Kubernetes does so to NodeStatus).

A heartbeat is a time in memory and no more: it is written nowhere, so ten thousand nodes cost the
log nothing. Control planes on one store tell each other what they have heard, beside the objects
(`Store.tell`); none believes a node to be silent that another has just heard. Only the transition
to Unknown is a write; back is the agent's own, who finds that its Node says otherwise.

How often an agent is to come is told to it in the answer: with many nodes more seldom, so that the
heartbeats of all take no more than MOST requests a second.

Times are monotonic and of this process: what the others heard counts from when it came here. A
process that begins, or that stood still itself, has heard nobody and gives everybody time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response

from api.auth.identity import Identity
from api.auth.rights import grant
from api.resources.errors import Conflict, IntentError, NotFound, StorageError
from api.resources.media import STRATEGIC
from api.resources.registry import KINDS
from api.service.answers import json_answer
from api.service.codec import document_of
from api.service.connections import READER
from api.service.judging import forbidden
from api.service.objects import Objects, anything

log = logging.getLogger("routed.service")

EVERY_SECONDS = 10.0  # between heartbeats of one node, at least
MOST = 500.0  # a second, of all nodes
MISSED = 4  # heartbeats, until a node counts as silent
LOOK_SECONDS = 5.0  # between looks, and between what the processes tell each other
STOPPED_SECONDS = 3 * LOOK_SECONDS  # without a look: this process stood still
FORGET_LOOKS = 120  # without a word of another process
REASON = "NodeSilent"
FEW = 10  # names in a line of the log
NODES = KINDS["nodes"]


@dataclass(slots=True)
class Pulse:
    """When each node was heard. No I/O; `now` is of one clock, in seconds."""

    heard: dict[str, float] = field(default_factory=dict)
    looked: float | None = None

    def beat(self, node: str, now: float) -> None:
        self.heard[node] = now

    def look(self, nodes: Iterable[str], now: float) -> list[str]:
        """Those of `nodes`, which are all there are, that are silent."""
        stood_still = self.looked is None or now - self.looked > STOPPED_SECONDS
        self.looked = now
        known = {} if stood_still else self.heard
        self.heard = {node: known.get(node, now) for node in nodes}
        limit = MISSED * interval(len(self.heard)) + 2 * LOOK_SECONDS
        return [node for node, when in self.heard.items() if now - when > limit]


def interval(nodes: int) -> float:
    """Seconds between heartbeats of one of `nodes`."""
    return max(EVERY_SECONDS, nodes / MOST)


class Heartbeats:
    """One process's part. `serve` runs beside the service."""

    def __init__(self, objects: Objects, *, look_seconds: float = LOOK_SECONDS) -> None:
        self.objects = objects
        self.pulse = Pulse()
        self.name = secrets.token_hex(8)
        self._look_seconds = look_seconds
        self._new: set[str] = set()  # heard since the others were told
        self._told = 0
        self._unknown: dict[str, int] = {}  # silent ones, by the revision that says so
        self._others: dict[str, tuple[bytes, int]] = {}  # what they said last, and for how long

    async def answer(self, request: Request, who: Identity) -> Response:
        """POST by the node itself."""
        name = request.path_params["name"]
        granted = grant(who, "create", "heartbeats")
        if granted is None or granted.name not in ("", name):
            raise forbidden(who, "create", "heartbeats", name)
        seconds = await self.beat(name)
        connection = request.scope.get(READER)
        if connection is not None:
            connection.keep()
        return json_answer({"kind": "Heartbeat", "seconds": seconds}, 201)

    async def beat(self, node: str) -> float:
        """`node` lives; in how many seconds it should say so again. NotFound."""
        await self.objects.get(NODES, node)
        self.pulse.beat(node, asyncio.get_running_loop().time())
        self._new.add(node)
        return interval(len(self.pulse.heard))

    async def serve(self) -> None:
        """Look for ever."""
        try:
            while True:
                try:
                    await self._look()
                except (StorageError, IntentError) as error:
                    log.warning("nodes not looked at why=%s", error)
                await asyncio.sleep(self._look_seconds)
        finally:
            await self._leave()

    async def _look(self) -> None:
        await self._exchange()
        state = await self.objects.mirror.fresh()
        now = asyncio.get_running_loop().time()
        made: list[str] = []
        silent = self.pulse.look(state.table(NODES.plural).items, now)
        self._unknown = {node: self._unknown.get(node, 0) for node in silent}
        for node in silent:
            with contextlib.suppress(Conflict, NotFound):  # somebody has just said something of it
                if await self._made_unknown(node):
                    made.append(node)
        if made:
            few = ",".join(made[:FEW])
            log.warning(
                "nodes silent count=%d nodes=%s", len(made), few + ",..." * (len(made) > FEW)
            )

    async def _exchange(self) -> None:
        """Tell the others who was heard here, and take in who was heard there."""
        store, self._told = self.objects.store, self._told + 1
        said, self._new = sorted(self._new), set()
        await store.tell(self.name, json.dumps([self._told, said]).encode())
        now, others = asyncio.get_running_loop().time(), dict[str, tuple[bytes, int]]()
        for other, text in (await store.told()).items():
            before, looks = self._others.get(other, (b"", 0))
            if other == self.name:
                continue
            if text == before and looks > FORGET_LOOKS:  # it was killed
                await store.tell(other, b"")
                continue
            others[other] = (text, looks + 1 if text == before else 0)
            if before and text != before:  # the first may be of long ago
                for node in json.loads(text)[1]:
                    self.pulse.beat(node, now)
        self._others = others

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(1):
                await self.objects.store.tell(self.name, b"")
        except (StorageError, TimeoutError) as error:
            log.info("not taken leave of the others why=%s", error)

    async def _made_unknown(self, node: str) -> bool:
        """Say so, if nobody has. One that is still as it was found to say so is not read again."""
        item = (await self.objects.mirror.fresh()).item(NODES.plural, node)
        if item is None or self._unknown[node] == item.revision:
            return False
        conditions = document_of(item.value, item.revision)["status"]["conditions"]
        if all(condition["status"] == "Unknown" for condition in conditions):
            self._unknown[node] = item.revision
            return False
        change = {
            "metadata": {"resourceVersion": str(item.revision)},  # as it was looked at
            "status": {"conditions": [_silent(one) for one in conditions]},
        }
        await self.objects.patch(NODES, node, change, anything, media_type=STRATEGIC, status=True)
        return True


def _silent(condition: dict[str, Any]) -> dict[str, Any]:
    said = f"its agent says nothing any more; it said {condition['status']}"
    before = f" ({condition['reason']})" if condition.get("reason") else ""
    return {**condition, "status": "Unknown", "reason": REASON, "message": said + before}
