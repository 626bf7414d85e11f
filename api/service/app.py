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

from api import memory
from api.auth.certificates import Authority
from api.auth.identity import Identity
from api.auth.rights import grant
from api.resources.decode import parse_body
from api.resources.errors import (
    IntentError,
    MethodNotAllowed,
    NotFound,
    RoutedError,
    StorageError,
    TooManyRequests,
    Unauthorized,
)
from api.resources.event import CORE_VERSION, EVENTS, NAMESPACE
from api.resources.meta import API_VERSION
from api.resources.registry import KINDS
from api.resources.status import status_of
from api.resources.versions import VERSION
from api.service import access, discovery, envelope
from api.service.agents import Agents
from api.service.answers import Written, json_answer
from api.service.asking import identified
from api.service.audit import DELETED, DRY, AuditLog, Deed, Outcome
from api.service.bodies import bytes_of
from api.service.compaction import keep_compact
from api.service.crowd import Crowd
from api.service.events import Events
from api.service.heartbeats import Heartbeats
from api.service.identities import Identities
from api.service.index import IndexedAPI, Scope
from api.service.judging import forbidden
from api.service.listing import Streamed
from api.service.metrics import ServiceMetrics
from api.service.objects import Objects
from api.service.questions import Questions
from api.service.reading import Reading
from api.service.selections import PLURAL as SELECTIONS
from api.service.selections import Selections
from api.service.state import State
from api.service.throttle import Rates, Throttle
from api.service.writing import Writing
from api.store import Store

BASE = f"/apis/{API_VERSION}"
CORE = f"/api/{CORE_VERSION}"
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}  # that write

THRESHOLDS = (10_000, 20, 20)  # of the garbage collector
HEALTH = ("/healthz", "/livez", "/readyz")

Handler = Callable[[Request, Identity], Awaitable[Response]]
Route = Callable[[str, str, Handler, str], None]


def application(
    store: Store,
    *,
    authority: Authority | None = None,
    server_url: str = "",
    audit: AuditLog | None = None,
    rates: Rates | None = None,
) -> FastAPI:
    """The service on `store`; `authority` signs certificates, and `server_url` is what those who
    get credentials are told. Without a CA nobody does. `audit` is told of writes; `rates` are how
    often somebody may ask."""
    objects = Objects(store)
    heartbeats, questions = Heartbeats(objects), Questions(objects)
    metrics = ServiceMetrics(audit)
    throttle = Throttle(rates or Rates(), metrics.refused)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        with memory.loading(THRESHOLDS):
            await objects.mirror.fresh()  # reading a large store takes a while: not in a request
        beside = (keep_compact(store), heartbeats.serve(), questions.serve())
        tasks = [asyncio.create_task(one) for one in beside]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await objects.mirror.close()
        await store.close()
        if audit is not None:
            audit.close()

    app = IndexedAPI(title="routed", version=VERSION, lifespan=life)
    app.before = _strangers(throttle, app)

    app.state.end_watches = objects.mirror.end_watches
    route = Routes(app, objects, metrics, audit, throttle).add
    _add_kinds(route, objects, metrics)
    route(f"{BASE}/nodes/{{name}}/heartbeat", "POST", heartbeats.answer, "Say that a node lives")
    route(
        f"{BASE}/nodes/{{name}}/way", "GET", questions.ask, "Ask a node for its way to an address"
    )
    route(f"{BASE}/nodes/{{name}}/answer", "POST", questions.answered, "Answer such a question")
    follow = Selections(objects.mirror, metrics).answer
    route(f"{BASE}/{SELECTIONS}", "POST", follow, "Follow what selectors stand for")
    if authority is not None:
        _add_identities(route, Identities(objects, authority, server_url))
        _add_open(app, "/ca.crt", authority.pem)

    async def measured(request: Request, who: Identity) -> Response:
        if grant(who, "get", "metrics") is None:
            raise forbidden(who, "get", "metrics")
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    route("/metrics", "GET", measured, "Prometheus metrics")
    _add_reviews(route)
    _add_events(route, Events(objects.mirror))
    discovery.add_routes(app)
    _add_health(app, objects)
    every = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
    app.add_route("/{rest:path}", _missing, methods=every, include_in_schema=False)
    return app


class Routes:
    """Declares what somebody has to be known for; every write is told to the audit log."""

    def __init__(
        self,
        app: IndexedAPI,
        objects: Objects,
        metrics: ServiceMetrics,
        audit: AuditLog | None,
        throttle: Throttle,
    ) -> None:
        self._app = app
        self._mirror = objects.mirror
        self._metrics = metrics
        self._audit = audit
        self._throttle = throttle
        self._crowd = Crowd(metrics.refused)
        self._agents = Agents()

    def add(self, path: str, method: str, handler: Handler, summary: str) -> None:
        within = EVENTS.plural if path.startswith(CORE) else path.removeprefix(f"{BASE}/")
        resource, _, rest = within.removeprefix("/").partition("/")
        whole = "/".join([resource, *rest.split("/")[1:]])  # as nodes/status
        verb = VERBS.get(method, "") if path.startswith(BASE) else ""  # a review writes nothing,
        if rest.endswith(("/heartbeat", "/answer")) or resource == SELECTIONS:  # nor do these
            verb = ""
        if verb == "delete" and "{name}" not in path:
            verb = "deletecollection"

        async def answer(request: Request) -> Response:
            began = time.perf_counter()
            said = await self._judged(request, handler, verb, whole)
            self._metrics.answered(method, resource, said.status_code, began)
            return said

        self._app.add(path, method, answer, summary)

    async def _judged(
        self, request: Request, handler: Handler, verb: str, resource: str
    ) -> Response:
        who, outcome = None, Outcome(500, "InternalError")
        try:
            who = self._identified(await self._mirror.fresh(), request)
            self._throttle.known(who)
            if who.node:
                self._agents.asked(who.node, request.headers.get("user-agent", ""))
            with self._crowd.entered(who):
                said = await handler(request, who)
                if isinstance(said, Streamed):
                    said.body_iterator = self._crowd.during(who, said.body_iterator)
            outcome = outcome_of(said)
            return said
        except (IntentError, StorageError) as error:
            status = status_of(error)
            outcome = Outcome(status["code"], status["reason"], getattr(error, "name", ""))
            return refusal(error)
        finally:  # also what is a bug
            if verb and who is not None:
                self._tell(request, who, verb, resource, outcome)

    def _identified(self, state: State, request: Request) -> Identity:
        """Who is asking; whoever is nobody is counted by his address."""
        try:
            return identified(state, request, time.time())
        except Unauthorized:
            self._throttle.stranger(address_of(request.scope))
            raise

    def _tell(
        self, request: Request, who: Identity, verb: str, resource: str, outcome: Outcome
    ) -> None:
        """The audit log. Dry runs too: whoever only says that it is one hides nothing."""
        if self._audit is None:
            return
        name, source = request.path_params.get("name") or outcome.name, _source(request)
        query = request.query_params if request.scope["query_string"] else {}
        dry = bool(query.get("dryRun") or request.scope.get(DRY))
        for gone in request.scope.get(DELETED, ()):
            self._audit.write(Deed(who, "delete", resource, gone.name, gone, source))
        self._audit.write(Deed(who, verb, resource, name, outcome, source, dry))


def _add_kinds(route: Route, objects: Objects, metrics: ServiceMetrics) -> None:
    for kind in KINDS.values():
        reads, writes = Reading(objects, kind, metrics), Writing(objects, kind)
        at, one = f"{BASE}/{kind.plural}", f"{BASE}/{kind.plural}/{{name}}"
        route(at, "GET", reads.list, f"List or watch {kind.plural}")
        route(at, "POST", writes.create, f"Create a {kind.kind}")
        route(at, "DELETE", writes.delete_all, f"Delete {kind.plural} by selector")
        route(one, "GET", reads.get, f"Read a {kind.kind}")
        route(one, "PUT", writes.update, f"Replace a {kind.kind}")
        route(one, "PATCH", writes.patch, f"Patch a {kind.kind}")
        route(one, "DELETE", writes.delete, f"Delete a {kind.kind}")
        route(f"{one}/status", "GET", reads.get, f"Read the status of a {kind.kind}")
        route(f"{one}/status", "PUT", writes.update_status, f"Replace the status of a {kind.kind}")
        route(f"{one}/status", "PATCH", writes.patch_status, f"Patch the status of a {kind.kind}")


def _add_events(route: Route, events: Events) -> None:
    namespaces = f"{CORE}/namespaces"
    route(f"{CORE}/events", "GET", events.list, "List events")
    route(f"{namespaces}/{{name}}/events", "GET", events.of_namespace, "List a namespace's events")
    route(f"{namespaces}/{NAMESPACE}/events/{{name}}", "GET", events.get, "Read an event")


def _add_identities(route: Route, identities: Identities) -> None:
    node, user = f"{BASE}/nodes/{{name}}", f"{BASE}/users/{{name}}"
    route(f"{node}/bootstrap", "POST", identities.invite, "Make a node's bootstrap token")
    route(f"{node}/certificate", "POST", identities.certify, "Sign a node's certificate")
    route(f"{node}/credentials", "POST", identities.node, "Make a node's kubeconfig with a token")
    route(f"{node}/credentials", "DELETE", identities.end_node, "End all credentials of a node")
    route(f"{BASE}/users", "GET", identities.list, "List who may be asking")
    route(f"{user}/certificate", "POST", identities.certify_user, "Sign a user's certificate")
    route(f"{user}/credentials", "POST", identities.user, "Make a user's kubeconfig")
    route(f"{user}/credentials", "DELETE", identities.end_user, "End all credentials of a user")


def _add_reviews(route: Route) -> None:
    def handler(kind: str) -> Handler:
        async def review(request: Request, who: Identity) -> Response:
            body = await bytes_of(request)
            media = request.headers.get("content-type", "").partition(";")[0].strip()
            read = envelope.document if media == envelope.MEDIA_TYPE else parse_body
            made = access.reviewed(kind, who, read(body), request.url.path)
            return json_answer(made, 201)

        return review

    reviews = [*access.REVIEWS.items(), ("SelfSubjectReview", access.BEFORE)]
    for kind, path in reviews:
        route(path, "POST", handler(kind), f"Ask by a {kind}")


def _add_open(app: FastAPI, path: str, text: bytes) -> None:
    """What anybody may read."""

    async def read(request: Request) -> Response:
        return Response(text, media_type="text/plain")

    app.add_route(path, read)


def _strangers(throttle: Throttle, app: IndexedAPI) -> Callable[[Scope], Response | None]:
    """What refuses requests that nobody has to be known for: too many, but for those about health,
    and those by a method that a path of ours does not know."""

    def refused(scope: Scope) -> Response | None:
        if scope["path"] in HEALTH:
            return None
        try:
            throttle.stranger(address_of(scope))
        except TooManyRequests as error:
            return refusal(error)
        if not (known := app.allowed(scope["path"])):
            return None
        allow = ", ".join(known)
        said = f"cannot {scope['method'][:20]} {scope['path']}: it knows {allow}"
        answered = refusal(MethodNotAllowed(said))
        answered.headers["allow"] = allow
        return answered

    return refused


def refusal(error: RoutedError) -> Response:
    status = status_of(error)
    answered = json_answer(status, status["code"])
    if isinstance(error, TooManyRequests):
        answered.headers["retry-after"] = str(error.retry_seconds)
    return answered


def address_of(scope: Scope) -> str:
    """Of the client; a proxy's, where there is one."""
    client = scope["client"]
    return str(client[0]) if client else ""


def outcome_of(said: Response) -> Outcome:
    if isinstance(said, Written):
        return Outcome(said.status_code, "", said.name, said.revision)
    return Outcome(said.status_code)


def _source(request: Request) -> str:
    client = request.client
    return f"{client.host} {client.port}" if client else ""


async def _missing(request: Request) -> Response:
    return refusal(NotFound(f"the server has no path {request.url.path}"))


def _add_health(app: FastAPI, objects: Objects) -> None:
    """What anybody may ask: whether it lives, whether its store answers."""

    async def readyz(request: Request) -> Response:
        await objects.mirror.fresh()
        return Response("ok", media_type="text/plain")

    health, live, ready = HEALTH
    _add_open(app, health, b"ok")
    _add_open(app, live, b"ok")
    app.add_route(ready, readyz)
