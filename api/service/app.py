"""The routes, generated from the registry: a kind's declaration is all it needs.

Every route authenticates and asks `rights.allowed` before anything else is looked at; a path that
is not listed here does not exist.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from api.auth import kubeconfig, tokens
from api.auth.rights import Request as Asked
from api.auth.rights import allowed
from api.auth.tokens import Identity
from api.resources.decode import parse_body
from api.resources.errors import (
    BadRequest,
    Expired,
    Forbidden,
    IntentError,
    NotFound,
    StorageError,
    TooLarge,
    Unauthorized,
)
from api.resources.meta import API_VERSION, dns_subdomain
from api.resources.registry import KINDS, Kind
from api.service import discovery
from api.service.codec import document_of, key_of
from api.service.errors import status_of, success
from api.service.metrics import ServiceMetrics
from api.service.objects import Objects
from api.service.selection import selection
from api.service.watch import stream
from api.store import Store

BODY_LIMIT = 1 << 20
BASE = f"/apis/{API_VERSION}"

Handler = Callable[[Request, Identity], Awaitable[Response]]


def application(store: Store, *, ca: bytes = b"", server_url: str = "") -> FastAPI:
    """The service on `store`; `ca` and `server_url` go into the credentials of nodes."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await store.close()

    app = FastAPI(title="routed", version=discovery.VERSION, lifespan=life)
    objects = Objects(store)
    metrics = ServiceMetrics()

    def route(path: str, method: str, handler: Handler, summary: str) -> None:
        resource = path.removeprefix(f"{BASE}/").partition("/")[0].removeprefix("/")

        async def judged(request: Request) -> Response:
            try:
                who = await tokens.identify(store, request.headers.get("authorization", ""))
                if who is None:
                    raise Unauthorized("cannot serve this request: no valid bearer token")
                return await handler(request, who)
            except (IntentError, StorageError) as error:
                status = status_of(error)
                return _json(status, status["code"])

        async def answer(request: Request) -> Response:
            began = time.perf_counter()
            said = await judged(request)
            metrics.answered(method, resource, said.status_code, began)
            return said

        app.add_api_route(path, answer, methods=[method], summary=summary, response_model=None)

    for kind in KINDS.values():
        verbs = Verbs(objects, kind, metrics)
        at, one = f"{BASE}/{kind.plural}", f"{BASE}/{kind.plural}/{{name}}"
        route(at, "GET", verbs.list, f"List or watch {kind.plural}")
        route(at, "POST", verbs.create, f"Create a {kind.kind}")
        route(one, "GET", verbs.get, f"Read a {kind.kind}")
        route(one, "PUT", verbs.update, f"Replace a {kind.kind}")
        route(one, "PATCH", verbs.patch, f"Patch a {kind.kind}")
        route(one, "DELETE", verbs.delete, f"Delete a {kind.kind}")
        route(f"{one}/status", "GET", verbs.get, f"Read the status of a {kind.kind}")
        route(f"{one}/status", "PUT", verbs.update_status, f"Replace the status of a {kind.kind}")
        route(f"{one}/status", "PATCH", verbs.patch_status, f"Patch the status of a {kind.kind}")

    async def credentials(request: Request, who: Identity) -> Response:
        """A new kubeconfig for a node; the ones before it stop to work."""
        name = request.path_params["name"]
        _permit(who, Asked("create", "credentials", name))
        if not _is_name(name):
            raise BadRequest(f"cannot make credentials: {name!r} is no node name")
        await tokens.revoke_node(store, name)
        identity = tokens.node_identity(name)
        token = await tokens.issue(store, identity)
        text = kubeconfig.render(server_url, ca, identity.user, token)
        return Response(text, 201, media_type="application/yaml")

    route(f"{BASE}/nodes/{{name}}/credentials", "POST", credentials, "Make a node's kubeconfig")

    async def measured(request: Request, who: Identity) -> Response:
        _permit(who, Asked("get", "metrics"))
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    route("/metrics", "GET", measured, "Prometheus metrics")
    discovery.add_routes(app)

    _add_health(app, store)

    every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app.add_route("/{rest:path}", _missing, methods=every, include_in_schema=False)
    return app


async def _missing(request: Request) -> Response:
    status = status_of(NotFound(f"the server has no path {request.url.path}"))
    return _json(status, 404)


def _add_health(app: FastAPI, store: Store) -> None:
    """What anybody may ask: whether it lives, whether its store answers."""

    async def healthz(request: Request) -> Response:
        return Response("ok", media_type="text/plain")

    async def readyz(request: Request) -> Response:
        await store.get("/ready")
        return Response("ok", media_type="text/plain")

    app.add_route("/healthz", healthz)
    app.add_route("/livez", healthz)
    app.add_route("/readyz", readyz)


class Verbs:
    """The handlers of one kind."""

    def __init__(self, objects: Objects, kind: Kind, metrics: ServiceMetrics) -> None:
        self.objects = objects
        self.kind = kind
        self.metrics = metrics

    async def get(self, request: Request, who: Identity) -> Response:
        _permit(who, Asked("get", self.kind.plural))
        return _json(await self.objects.get(self.kind, request.path_params["name"]))

    async def list(self, request: Request, who: Identity) -> Response:
        query = request.query_params
        watching = query.get("watch") in ("1", "true")
        _permit(who, Asked("watch" if watching else "list", self.kind.plural))
        selected = selection(
            self.kind, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        if watching:
            version = query.get("resourceVersion") or "0"
            initial = query.get("sendInitialEvents") == "true"
            after = None if initial else _number("resourceVersion", version) or None
            present, _ = await self.objects.store.scan("/none/")
            if after is not None and after > present:
                raise Expired(
                    f"cannot watch {self.kind.plural} from {after}: the store is at {present}, "
                    "an older one was put in its place; list again"
                )
            lines = stream(
                self.objects,
                self.kind,
                selected,
                after=after,
                bookmarks=query.get("allowWatchBookmarks") in ("1", "true"),
                mark_initial=initial,
                seconds=_number("timeoutSeconds", query.get("timeoutSeconds") or "0"),
            )
            counted = self.metrics.counted(self.kind.plural, lines)
            return StreamingResponse(counted, media_type="application/json")
        revision, documents = await self.objects.list(self.kind)
        chosen = [document for document in documents if selected(document)]
        chosen, metadata = _page(chosen, query.get("limit", "0"), query.get("continue", ""))
        return _json(
            {
                "apiVersion": API_VERSION,
                "kind": f"{self.kind.kind}List",
                "metadata": {"resourceVersion": str(revision), **metadata},
                "items": chosen,
            }
        )

    async def create(self, request: Request, who: Identity) -> Response:
        document = await _body(request)
        _permit(who, Asked("create", self.kind.plural, wanted=document))
        made, new = await self.objects.create(self.kind, document)
        return _json(made, 201 if new else 200)

    async def update(self, request: Request, who: Identity) -> Response:
        return await self._update(request, who, status=False)

    async def update_status(self, request: Request, who: Identity) -> Response:
        return await self._update(request, who, status=True)

    async def _update(self, request: Request, who: Identity, *, status: bool) -> Response:
        name, document = request.path_params["name"], await _body(request)
        await self._permit_change(who, "update", name, document, status=status)
        return _json(await self.objects.update(self.kind, name, document, status=status))

    async def patch(self, request: Request, who: Identity) -> Response:
        return await self._patch(request, who, status=False)

    async def patch_status(self, request: Request, who: Identity) -> Response:
        return await self._patch(request, who, status=True)

    async def _patch(self, request: Request, who: Identity, *, status: bool) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0]
        if kind not in ("application/merge-patch+json", "application/json"):
            error = BadRequest(f"cannot patch with {kind}: application/merge-patch+json is known")
            return _json(status_of(error) | {"code": 415, "reason": "UnsupportedMediaType"}, 415)
        name, change = request.path_params["name"], await _body(request)
        await self._permit_change(who, "patch", name, None, status=status)
        if who.role != "admin" and not status:
            raise Forbidden(f"{who.user} cannot patch {self.kind.plural}")
        return _json(await self.objects.patch(self.kind, name, change, status=status))

    async def delete(self, request: Request, who: Identity) -> Response:
        name = request.path_params["name"]
        await self._permit_change(who, "delete", name, None, status=False)
        options = await _body(request, empty={})
        preconditions = options.get("preconditions") or {}
        if not isinstance(preconditions, dict):
            raise BadRequest("cannot read the request: preconditions must be an object")
        held = await self.objects.delete(self.kind, name, preconditions)
        return _json(success(self.kind.plural, name, held["metadata"]["uid"]))

    async def _permit_change(
        self, who: Identity, verb: str, name: str, wanted: Any, *, status: bool
    ) -> None:
        item = await self.objects.store.get(key_of(self.kind.plural, name))
        if item is None and who.role == "admin":
            return  # the verb itself says that it is not there
        held = document_of(item.value, item.revision) if item else None
        _permit(who, Asked(verb, self.kind.plural, name, status, held, wanted))


def _permit(who: Identity, asked: Asked) -> None:
    if not allowed(who, asked):
        what = f"{asked.plural}{'/status' if asked.status else ''} {asked.name}".strip()
        raise Forbidden(f"{who.user} cannot {asked.verb} {what}: it is not its own")


async def _body(request: Request, empty: Any = None) -> Any:
    """The JSON body; refused past BODY_LIMIT before it is held."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_LIMIT:
            raise TooLarge(f"cannot read the request: its body is larger than {BODY_LIMIT} bytes")
        parts.append(part)
    body = b"".join(parts)
    if not body and empty is not None:
        return empty
    return parse_body(body)


def _page(
    documents: list[dict[str, Any]], limit_text: str, after: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One page: `continue` is the last name of the page before."""
    limit = _number("limit", limit_text or "0")
    rest = [d for d in documents if d["metadata"]["name"] > after] if after else documents
    if not limit or len(rest) <= limit:
        return rest, {}
    page = rest[:limit]
    remaining = {"remainingItemCount": len(rest) - limit}
    return page, {"continue": page[-1]["metadata"]["name"], **remaining}


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadRequest(f"cannot read {name} {text[:40]!r}: it must be a number")
    return int(text)


def _is_name(name: str) -> bool:
    try:
        dns_subdomain(name)
    except ValueError:
        return False
    return True


def _json(document: Any, code: int = 200) -> Response:
    data = json.dumps(document, separators=(",", ":")).encode()
    return Response(data, code, media_type="application/json")
