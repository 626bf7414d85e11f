"""The local API: a unix socket in front of the agent, for root and `socketGroup` of this host.

Handlers parse, hand a job to the writer through `Agent`, and format what came back; no kernel
state changes here. Errors are the Status objects of the service's API.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

from api.resources.errors import Cause, Forbidden, Invalid, NotFound, RoutedError, TooLarge
from api.resources.net import IPAddress, parse_address
from api.resources.status import status_of
from routed.agent import speakers, views
from routed.agent.callers import SCOPE, Caller
from routed.agent.request import parse_attach

if TYPE_CHECKING:
    from routed.agent.agent import Agent

BODY_LIMIT = 1 << 20  # bytes
ONE = "/v1/attachments/"
_encode = json.JSONEncoder(separators=(",", ":")).encode
TEXT = b"text/plain; charset=utf-8"


class Request(NamedTuple):
    """What a handler may look at: the query as text, the body, and the name in the path."""

    query: str
    body: bytes
    name: str


class Answer(NamedTuple):
    body: bytes
    status: int = 200
    media_type: bytes = b"application/json"


Handler = Callable[[Request], Awaitable[Answer]]


def application(agent: Agent) -> ASGIApp:
    """What is served at `/run/routed/agent.sock`: a table of paths, without a framework between
    a request and its handler."""

    async def attach(request: Request) -> Answer:
        attachment, created = await agent.attach(parse_attach(request.body))
        view = agent.view(attachment)
        if request.query and parse_qs(request.query).get("wait") == ["announced"]:
            view["announced"] = await agent.announced(attachment)
        return _json(view, 201 if created else 200)

    async def listing(request: Request) -> Answer:
        return _json({"items": [agent.view(record) for record in agent.attachments()]})

    async def one(request: Request) -> Answer:
        return _json(agent.view(agent.find(request.name)))

    async def detach(request: Request) -> Answer:
        return _json(agent.view(await agent.detach(request.name)))

    async def advertisements(request: Request) -> Answer:
        had = await speakers.told(agent.settings)
        found = {"items": sorted(map(str, agent.speech.prefixes()))}
        return _json(found if had is None else {**found, "speaker": sorted(map(str, had))})

    async def received(request: Request) -> Answer:
        return _json({"peers": await views.received(agent)})

    async def routes(request: Request) -> Answer:
        peers = parse_qs(request.query).get("peer", [])
        return _json({"items": views.routes(agent, peers)})

    async def way(request: Request) -> Answer:
        query = parse_qs(request.query)
        to, source = (_address(query, name) for name in ("to", "from"))
        if to is None:
            why = "is needed: an address"
            raise Invalid(f"cannot find a way: to {why}", causes=[Cause("to", why)])
        return _json(await agent.way(to, source))

    async def counters(request: Request) -> Answer:
        await agent.counting.refresh()
        return _json({"items": [views.counter(*row) for row in agent.counting.rows]})

    async def status(request: Request) -> Answer:
        return _json(views.status(agent))

    async def healthz(request: Request) -> Answer:
        return Answer(b"ok\n", media_type=TEXT)

    async def readyz(request: Request) -> Answer:
        missing = views.not_ready(agent)
        text = "ok\n" if not missing else "".join(f"{reason}\n" for reason in missing)
        return Answer(text.encode(), 503 if missing else 200, TEXT)

    async def metrics(request: Request) -> Answer:
        await agent.counting.refresh()
        text = agent.metrics.text(agent) + await speakers.metrics(agent.settings)
        return Answer(text, media_type=b"text/plain; version=0.0.4; charset=utf-8")

    handlers: dict[tuple[str, str], Handler] = {
        ("POST", "/v1/attachments"): attach,
        ("GET", "/v1/attachments"): listing,
        ("GET", f"{ONE}{{id}}"): one,
        ("DELETE", f"{ONE}{{id}}"): detach,
        ("GET", "/v1/advertisements"): advertisements,
        ("GET", "/v1/routes"): routes,
        ("GET", "/v1/received"): received,
        ("GET", "/v1/way"): way,
        ("GET", "/v1/counters"): counters,
        ("GET", "/v1/status"): status,
        ("GET", "/healthz"): healthz,
        ("GET", "/readyz"): readyz,
        ("GET", "/metrics"): metrics,
    }

    async def answer(scope: Scope, receive: Receive) -> Answer:
        path, name, method = scope["path"], "", scope["method"]
        if path.startswith(ONE):
            path, name = f"{ONE}{{id}}", path.removeprefix(ONE)
        handler = handlers.get((method, path))
        if handler is None:
            said = f"cannot serve {method} {scope['path']}: there is no such path"
            return _failure(NotFound(said))
        try:
            query = scope["query_string"].decode("latin-1")
            return await handler(Request(query, await _body(receive), name))
        except RoutedError as error:
            return _failure(error)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # a websocket: refused
        await _send(send, await answer(scope, receive))

    return serve


async def refused(scope: Scope, receive: Receive, send: Send) -> None:
    """What those are told who may not use the socket."""
    caller = scope.get(SCOPE)
    who = f"uid {caller.uid}" if isinstance(caller, Caller) else "an unknown caller"
    said = f"cannot serve {who}: the agent's socket is for root and members of its group"
    await _send(send, _failure(Forbidden(said)))


def _address(query: dict[str, list[str]], name: str) -> IPAddress | None:
    text = query.get(name, [""])[0]
    try:
        return parse_address(text) if text else None
    except ValueError as error:
        raise Invalid(f"cannot find a way: {error}", causes=[Cause(name, str(error))]) from error


async def _send(send: Send, answer: Answer) -> None:
    body, status, media_type = answer
    length = str(len(body)).encode()
    headers = [(b"content-type", media_type), (b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    """The body, refused past BODY_LIMIT before it is held."""
    body = b""
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > BODY_LIMIT:
            raise TooLarge(f"cannot read the request: its body is larger than {BODY_LIMIT} bytes")
        if not message.get("more_body"):
            return body


def _failure(error: RoutedError) -> Answer:
    status = status_of(error)
    return _json(status, status["code"])


def _json(document: Any, code: int = 200) -> Answer:
    return Answer(_encode(document).encode() + b"\n", code)
