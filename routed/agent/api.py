"""The local API: a unix socket in front of the agent, for root (or `socketGroup`) of this host.

Handlers parse, hand a job to the writer through `Agent`, and format what came back; no kernel
state changes here. Errors are the Status objects of the service's API.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.resources.errors import (
    ApplyError,
    IntentError,
    NotFound,
    RoutedError,
    SpeakerError,
    TooLarge,
)
from routed.agent import views
from routed.agent.request import parse_attach
from routed.settings import AgentSettings

if TYPE_CHECKING:
    from routed.agent.agent import Agent

BODY_LIMIT = 1 << 20  # bytes
ONE = "/v1/attachments/"


def application(agent: Agent) -> ASGIApp:
    """What is served at `/run/routed/agent.sock`: a table of paths, without a framework between
    a request and its handler."""

    async def attach(request: Request, name: str) -> Response:
        wanted = parse_attach(await _body(request))
        attachment, created = await agent.attach(wanted)
        view = agent.view(attachment)
        if request.query_params.get("wait") == "announced":
            view["announced"] = await agent.announced(attachment)
        return _json(view, 201 if created else 200)

    async def listing(request: Request, name: str) -> Response:
        return _json({"items": [agent.view(record) for record in agent.attachments()]})

    async def one(request: Request, name: str) -> Response:
        return _json(agent.view(agent.find(name)))

    async def detach(request: Request, name: str) -> Response:
        return _json(agent.view(await agent.detach(name)))

    async def status(request: Request, name: str) -> Response:
        return _json(views.status(agent))

    async def healthz(request: Request, name: str) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def readyz(request: Request, name: str) -> Response:
        missing = views.not_ready(agent)
        text = "ok\n" if not missing else "".join(f"{reason}\n" for reason in missing)
        return Response(text, 503 if missing else 200, media_type="text/plain")

    async def metrics(request: Request, name: str) -> Response:
        text = agent.metrics.text(agent) + await speakers_metrics(agent.settings)
        return Response(text, media_type="text/plain; version=0.0.4")

    handlers: dict[tuple[str, str], Handler] = {
        ("POST", "/v1/attachments"): attach,
        ("GET", "/v1/attachments"): listing,
        ("GET", "/v1/attachments/{id}"): one,
        ("DELETE", "/v1/attachments/{id}"): detach,
        ("GET", "/v1/status"): status,
        ("GET", "/healthz"): healthz,
        ("GET", "/readyz"): readyz,
        ("GET", "/metrics"): metrics,
    }

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # a websocket: closed
        request = Request(scope, receive)
        path, name = scope["path"], ""
        if path.startswith(ONE):
            path, name = f"{ONE}{{id}}", path.removeprefix(ONE)
        handler = handlers.get((request.method, path), _unknown)
        try:
            response = await handler(request, name)
        except RoutedError as error:
            response = _failure(error)
        await response(scope, receive, send)

    return serve


async def speakers_metrics(settings: AgentSettings) -> bytes:
    """What the speaker measures; nothing if it does not answer."""
    transport = httpx.AsyncHTTPTransport(uds=str(settings.speaker_metrics_socket))
    try:
        async with httpx.AsyncClient(transport=transport, timeout=2.0) as client:
            return (await client.get("http://speaker/metrics")).content
    except httpx.HTTPError:
        return b""


Handler = Callable[[Request, str], Awaitable[Response]]


async def _unknown(request: Request, name: str) -> Response:
    raise NotFound(f"cannot serve {request.method} {request.url.path}: there is no such path")


async def _body(request: Request) -> bytes:
    """The body, refused past BODY_LIMIT before it is held."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_LIMIT:
            raise TooLarge(f"cannot read the request: its body is larger than {BODY_LIMIT} bytes")
        parts.append(part)
    return b"".join(parts)


def _failure(error: RoutedError) -> Response:
    if isinstance(error, IntentError):
        code, reason, causes = error.status, error.reason, error.causes
    elif isinstance(error, ApplyError):
        code, reason, causes = (503 if error.transient else 500), "ApplyFailed", ()
    elif isinstance(error, SpeakerError):
        code, reason, causes = 503, "SpeakerUnavailable", ()
    else:
        code, reason, causes = 503, "ServiceUnavailable", ()
    status: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "message": str(error),
        "reason": reason,
        "code": code,
    }
    if causes:
        status["details"] = {
            "causes": [
                {"reason": cause.reason, "field": cause.field, "message": cause.message}
                for cause in causes
            ]
        }
    return _json(status, code)


def _json(document: Any, code: int = 200) -> Response:
    data = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    return Response(data, code, media_type="application/json")
