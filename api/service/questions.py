"""Questions to the agents of nodes, and their answers: which way a node has to an address.

What only a host knows, and only now and then somebody asks, is in no object. An agent is reached by
what it has open anyway, the watch of its own Node: a bookmark there bears the question as an
annotation, which whoever does not know it passes over. The answer comes as a request of its own,
with the question's id, by the node itself.

Nothing of it is written down. An agent watches by one of several control planes, so a question that
nobody here can be asked is told to the others beside the log (`Store.tell`), and so is the answer
to it. What is told so has the form of what `heartbeats` tells, with nobody heard, for those of an
earlier release, who read it as that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from typing import Any

from fastapi import Request, Response

from api.auth.identity import NODE, Identity
from api.auth.rights import grant
from api.resources.errors import (
    BadRequest,
    Cause,
    Invalid,
    NoAnswer,
    NotFound,
    StorageError,
    TooManyRequests,
)
from api.resources.net import parse_address
from api.resources.questions import ANSWERS, QUESTION, WAYS
from api.resources.registry import KINDS
from api.service.answers import json_answer
from api.service.bodies import body_of
from api.service.judging import forbidden
from api.service.objects import Objects
from api.service.watch import bookmark

log = logging.getLogger("routed.service")

WAIT_SECONDS = 8.0  # for an answer
HERE_SECONDS = 1.0  # for one by a watch that is here, until the others are told
LOOK_SECONDS = 5.0  # between looks at what the others tell
HURRY_SECONDS = 0.25  # while somebody waits for one of them
MOST = 100  # questions that are open at a time
HEARD_MOST = 1000  # ids that are remembered
NODES = KINDS["nodes"]


class Questions:
    """One process's part. `serve` runs beside the service."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.name = secrets.token_hex(8)
        self._open: dict[str, tuple[str, asyncio.Future[Any]]] = {}  # node and answer, by id
        self._elsewhere: dict[str, tuple[str, Any]] = {}  # node and question, for the others
        self._heard: dict[str, str] = {}  # the node that was asked here for another, by id
        self._answered: dict[str, tuple[str, Any, float]] = {}  # for another, and until when
        self._nudged = asyncio.Event()
        self._said = b""  # to the others

    async def ask(self, request: Request, who: Identity) -> Response:
        """GET by whoever may look at nodes: its agent's answer. NoAnswer."""
        node = request.path_params["name"]
        granted = grant(who, "get", WAYS)
        if granted is None:
            raise forbidden(who, "get", WAYS, node)
        await self.objects.get(NODES, node)
        question = _question(dict(request.query_params))
        return json_answer({"kind": "Way", "way": await self.answer_of(node, question)})

    async def answer_of(self, node: str, question: dict[str, str]) -> Any:
        if len(self._open) >= MOST:
            raise TooManyRequests(f"cannot ask node {node}: {MOST} questions are open")
        number, loop = secrets.token_hex(8), asyncio.get_running_loop()
        answer = loop.create_future()
        self._open[number] = node, answer

        def elsewhere() -> None:
            self._elsewhere[number] = node, question
            self._nudged.set()

        # a watch that nobody reads any more may not be known to have ended
        patience = HERE_SECONDS if self._put(node, number, question) else 0.0
        timer = loop.call_later(patience, elsewhere)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await answer
        except TimeoutError:
            said = "it does not run, is cut off from the control plane, or is of an older release"
            raise NoAnswer(f"node {node} has not answered in {WAIT_SECONDS:g} s: {said}") from None
        finally:
            timer.cancel()
            del self._open[number]
            self._elsewhere.pop(number, None)

    async def answered(self, request: Request, who: Identity) -> Response:
        """POST by the node itself."""
        node = request.path_params["name"]
        granted = grant(who, "create", ANSWERS)
        if granted is None or granted.name not in ("", node):
            raise forbidden(who, "create", ANSWERS, node)
        body = await body_of(request)
        number, way = body.get("id"), body.get("way")
        if not isinstance(number, str) or not isinstance(way, dict) or len(body) > 2:
            raise BadRequest("cannot take the answer: it is not {id: TEXT, way: OBJECT}")
        self.hand_on(number, node, way)
        return json_answer({"kind": "Answer"}, 201)

    def hand_on(self, number: str, node: str, way: Any) -> None:
        """An answer to whoever waits for it, here or elsewhere. NotFound."""
        if self._heard.get(number) == node:
            until = asyncio.get_running_loop().time() + WAIT_SECONDS
            self._answered[number] = node, way, until
            self._nudged.set()
        elif not self._take(number, node, way):
            raise NotFound(f"nobody waits for an answer {number[:40]!r} of node {node}")

    def _take(self, number: str, node: str, way: Any) -> bool:
        asked, answer = self._open.get(number, ("", None))
        if answer is None or asked != node or answer.done():
            return False
        answer.set_result(way)
        return True

    def _put(self, node: str, number: str, question: Any) -> bool:
        """Into the watch that its agent has here; whether it has one."""
        mirror = self.objects.mirror
        text = json.dumps({"id": number, **question}, separators=(",", ":"))
        line = bookmark(NODES, mirror.revision, {QUESTION: text})
        return mirror.say(NODES.plural, node, ("roles", NODE), line)

    async def serve(self) -> None:
        """Exchange with the others for ever."""
        try:
            while True:
                try:
                    await self._exchange()
                except StorageError as error:
                    log.warning("questions not exchanged why=%s", error)
                wait = HURRY_SECONDS if self._elsewhere else LOOK_SECONDS
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._nudged.wait()
                self._nudged.clear()
        finally:
            with contextlib.suppress(StorageError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._tell(b"")

    async def _exchange(self) -> None:
        now = asyncio.get_running_loop().time()
        self._answered = {key: one for key, one in self._answered.items() if one[2] > now}
        answers = {key: (node, way) for key, (node, way, _) in self._answered.items()}
        mine = {"asked": self._elsewhere, "answered": answers}
        await self._tell(json.dumps([0, [], mine]).encode() if any(mine.values()) else b"")
        for other, text in (await self.objects.store.told()).items():
            if other != self.name and len(said := json.loads(text)) > 2:
                self._hear(said[2])

    async def _tell(self, text: bytes) -> None:
        if text != self._said:
            await self.objects.store.tell(self.name, text)
            self._said = text

    def _hear(self, said: Any) -> None:
        for number, (node, question) in said["asked"].items():
            if number not in self._heard and self._put(node, number, question):
                self._heard[number] = node
        for number, (node, way) in said["answered"].items():
            self._take(number, node, way)
        while len(self._heard) > HEARD_MOST:
            del self._heard[next(iter(self._heard))]


def _question(asked: dict[str, str]) -> dict[str, str]:
    """`to` and perhaps `from`, of one family; Invalid."""
    for name in asked:
        if name not in ("to", "from"):
            raise BadRequest(f"cannot find a way: there is no parameter {name[:40]!r}")
    found = {}
    for name, text in asked.items():
        try:
            found[name] = parse_address(text)
        except ValueError as error:
            raise _invalid(name, str(error)) from None
    if "to" not in found:
        raise _invalid("to", "is needed: an address")
    if len({address.version for address in found.values()}) > 1:
        raise _invalid("from", f"must be IPv{found['to'].version} as to is")
    return {name: str(address) for name, address in found.items()}


def _invalid(name: str, why: str) -> Invalid:
    return Invalid(f"cannot find a way: {name} {why}", causes=[Cause(name, why)])
