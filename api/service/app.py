"""The routes, generated from the registry: a kind's declaration is all it needs.

Every route authenticates and asks `rights.allowed` before anything else is looked at; a path that
is not listed here does not exist.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from api.auth import kubeconfig, tokens
from api.auth.rights import Request as Asked
from api.auth.tokens import Identity
from api.resources.errors import BadRequest, IntentError, NotFound, StorageError, Unauthorized
from api.resources.meta import API_VERSION, dns_subdomain
from api.resources.registry import KINDS
from api.resources.status import status_of
from api.service import discovery
from api.service.compaction import keep_compact
from api.service.index import IndexedAPI
from api.service.metrics import ServiceMetrics
from api.service.objects import Objects
from api.service.verbs import Verbs, json_answer, permit
from api.store import Store

BASE = f"/apis/{API_VERSION}"

Handler = Callable[[Request, Identity], Awaitable[Response]]
Route = Callable[[str, str, Handler, str], None]


def application(store: Store, *, ca: bytes = b"", server_url: str = "") -> FastAPI:
    """The service on `store`; `ca` and `server_url` go into the credentials of nodes."""
    objects = Objects(store)
    metrics = ServiceMetrics()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await objects.mirror.fresh()  # reading a large store takes a while: not in a request
        compacting = asyncio.create_task(keep_compact(store))
        yield
        compacting.cancel()
        await asyncio.wait([compacting])
        await objects.mirror.close()
        await store.close()

    app = IndexedAPI(title="routed", version=discovery.VERSION, lifespan=life)

    def route(path: str, method: str, handler: Handler, summary: str) -> None:
        resource = path.removeprefix(f"{BASE}/").partition("/")[0].removeprefix("/")

        async def judged(request: Request) -> Response:
            try:
                known = (await objects.mirror.fresh()).world.identities
                who = tokens.identify(known, request.headers.get("authorization", ""))
                if who is None:
                    raise Unauthorized("cannot serve this request: no valid bearer token")
                return await handler(request, who)
            except (IntentError, StorageError) as error:
                status = status_of(error)
                return json_answer(status, status["code"])

        async def answer(request: Request) -> Response:
            began = time.perf_counter()
            said = await judged(request)
            metrics.answered(method, resource, said.status_code, began)
            return said

        app.add(path, method, answer, summary)

    _add_kinds(route, objects, metrics)
    _add_credentials(route, store, ca, server_url)

    async def measured(request: Request, who: Identity) -> Response:
        permit(who, Asked("get", "metrics"))
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    route("/metrics", "GET", measured, "Prometheus metrics")
    discovery.add_routes(app)
    _add_health(app, objects)
    every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app.add_route("/{rest:path}", _missing, methods=every, include_in_schema=False)
    return app


def _add_kinds(route: Route, objects: Objects, metrics: ServiceMetrics) -> None:
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


def _add_credentials(route: Route, store: Store, ca: bytes, server_url: str) -> None:
    async def credentials(request: Request, who: Identity) -> Response:
        """A new kubeconfig for a node; the ones before it stop to work."""
        name = request.path_params["name"]
        permit(who, Asked("create", "credentials", name))
        if not _is_name(name):
            raise BadRequest(f"cannot make credentials: {name!r} is no node name")
        await tokens.revoke_node(store, name)
        identity = tokens.node_identity(name)
        token = await tokens.issue(store, identity)
        text = kubeconfig.render(server_url, ca, identity.user, token)
        return Response(text, 201, media_type="application/yaml")

    route(f"{BASE}/nodes/{{name}}/credentials", "POST", credentials, "Make a node's kubeconfig")


async def _missing(request: Request) -> Response:
    status = status_of(NotFound(f"the server has no path {request.url.path}"))
    return json_answer(status, 404)


def _add_health(app: FastAPI, objects: Objects) -> None:
    """What anybody may ask: whether it lives, whether its store answers."""

    async def healthz(request: Request) -> Response:
        return Response("ok", media_type="text/plain")

    async def readyz(request: Request) -> Response:
        await objects.mirror.fresh()
        return Response("ok", media_type="text/plain")

    app.add_route("/healthz", healthz)
    app.add_route("/livez", healthz)
    app.add_route("/readyz", readyz)


def _is_name(name: str) -> bool:
    try:
        dns_subdomain(name)
    except ValueError:
        return False
    return True
