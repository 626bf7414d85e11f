"""The handlers of one kind: who may, what is asked, and the answer as it goes over the wire."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

from fastapi import Request, Response
from starlette.datastructures import QueryParams

from api.auth.identity import Identity
from api.auth.rights import Grant, grant
from api.resources.errors import (
    BadRequest,
    Expired,
    Forbidden,
    NotFound,
    Unsupported,
)
from api.resources.registry import Kind
from api.resources.status import success
from api.service import listing, options, patches, table
from api.service.audit import DELETED, DRY, Outcome
from api.service.bodies import body_of, bytes_of
from api.service.codec import compact, document_of, wire
from api.service.connections import READER
from api.service.metrics import ServiceMetrics
from api.service.objects import Document, May, Objects
from api.service.options import Options
from api.service.selection import Selection, selection
from api.service.watch import WatchAnswer, stream
from api.store import Item


class Verbs:
    def __init__(self, objects: Objects, kind: Kind, metrics: ServiceMetrics) -> None:
        self.objects = objects
        self.kind = kind
        self.metrics = metrics

    async def get(self, request: Request, who: Identity) -> Response:
        name = request.path_params["name"]
        granted = self._granted(who, "get", name)
        item = await self.objects.get(self.kind, name)
        tabular = table.wanted(request.headers.get("accept", ""))
        if granted.whole and not tabular:
            return object_answer(item)
        document = document_of(item.value, item.revision)
        self._covered(who, "get", granted, document)
        if tabular:
            include = table.included(request.query_params.get("includeObject", ""))
            return json_answer(table.one(self.kind, document, include))
        return object_answer(item)

    async def list(self, request: Request, who: Identity) -> Response:
        query = request.query_params
        watching = query.get("watch") in ("1", "true")
        granted = self._granted(who, "watch" if watching else "list")
        selected = self._selected(query, granted)
        state = await self.objects.mirror.fresh()
        tabular = table.wanted(request.headers.get("accept", ""))
        include = table.included(query.get("includeObject", ""))
        if watching:
            version = query.get("resourceVersion") or "0"
            initial = query.get("sendInitialEvents") == "true"
            after = None if initial else _number("resourceVersion", version) or None
            if after is not None and after > state.revision:
                raise Expired(
                    f"cannot watch {self.kind.plural} from {after}: the store is at "
                    f"{state.revision}, an older one was put in its place; list again"
                )
            lines = stream(
                self.objects.mirror,
                self.kind,
                selected,
                who=who,
                after=after,
                bookmarks=query.get("allowWatchBookmarks") in ("1", "true"),
                mark_initial=initial,
                seconds=_seconds(query.get("timeoutSeconds") or "0", who),
                reader=request.scope.get(READER),
            )
            if tabular:
                lines = table.watched(self.kind, lines, include)
            return WatchAnswer(lines, self.metrics.watching(self.kind.plural))
        limit = _number("limit", query.get("limit") or "0")
        return await listing.answered(
            self.kind,
            state,
            selected,
            limit=limit,
            token=query.get("continue", ""),
            include=include if tabular else None,
        )

    async def create(self, request: Request, who: Identity) -> Response:
        granted = self._granted(who, "create")
        how = asked(request)
        document = await body_of(request)
        may = self._judge(who, "create", granted)
        status = grant(who, "update", self.kind.plural, status=True)

        def says(made: Document) -> bool:
            return status is not None and status.covers(made)

        made, new = await self.objects.create(self.kind, document, may, how, says)
        return warned(object_answer(made, 201 if new else 200), how)

    async def update(self, request: Request, who: Identity) -> Response:
        return await self._update(request, who, status=False)

    async def update_status(self, request: Request, who: Identity) -> Response:
        return await self._update(request, who, status=True)

    async def _update(self, request: Request, who: Identity, *, status: bool) -> Response:
        name = request.path_params["name"]
        may = await self._permit_change(who, "update", name, status=status)
        how = asked(request)
        document = await body_of(request)
        made = await self.objects.update(self.kind, name, document, may, status=status, options=how)
        return warned(object_answer(made), how)

    async def patch(self, request: Request, who: Identity) -> Response:
        return await self._patch(request, who, status=False)

    async def patch_status(self, request: Request, who: Identity) -> Response:
        return await self._patch(request, who, status=True)

    async def _patch(self, request: Request, who: Identity, *, status: bool) -> Response:
        name = request.path_params["name"]
        may = await self._permit_change(who, "patch", name, status=status)
        media = request.headers.get("content-type", "").partition(";")[0].strip()
        if media not in (*patches.KNOWN, "application/json"):
            raise Unsupported(f"cannot patch with {media!r}: one of {', '.join(patches.KNOWN)}")
        how = asked(request)
        if media == patches.APPLY:
            return await self._apply(request, who, may, how, status=status)
        change = await body_of(request, array=media == patches.JSON_PATCH)
        made = await self.objects.patch(
            self.kind, name, change, may, media_type=media, status=status, options=how
        )
        return warned(object_answer(made), how)

    async def _apply(
        self, request: Request, who: Identity, may: May, how: Options, *, status: bool
    ) -> Response:
        """Server-side apply: it may create, so that must be allowed as well."""
        name = request.path_params["name"]
        if not how.manager:
            raise BadRequest(f"cannot apply {self.kind.plural} {name}: fieldManager is required")
        document = patches.yaml_document(await bytes_of(request))
        state = await self.objects.mirror.fresh()
        if state.item(self.kind.plural, name) is None and not status:
            may = self._judge(who, "create", self._granted(who, "create", name))
        made, new = await self.objects.apply(
            self.kind, name, document, may, status=status, options=how
        )
        return warned(object_answer(made, 201 if new else 200), how)

    async def delete(self, request: Request, who: Identity) -> Response:
        name = request.path_params["name"]
        may = await self._permit_change(who, "delete", name)
        preconditions, how = await self._deleting(request)
        metadata = await self._deleted(who, name, preconditions, may, how)
        said = compact(success(self.kind.plural, name, metadata["uid"]))
        return Written(said, 200, name, metadata["resourceVersion"])

    async def delete_all(self, request: Request, who: Identity) -> Response:
        """Those that the selectors select, one after the other: one that is refused ends it."""
        query = request.query_params
        granted = self._granted(who, "delete")
        preconditions, how = await self._deleting(request)
        selected = self._selected(query, granted)
        may = self._judge(who, "delete", granted)
        state = await self.objects.mirror.fresh()
        async for part in listing.selected(state.table(self.kind.plural).reading(selected)):
            for name in (item.key.rpartition("/")[2] for item in part):
                with contextlib.suppress(NotFound):  # somebody else was quicker
                    metadata = await self._deleted(who, name, preconditions, may, how)
                    if not how.dry:
                        gone = Outcome(200, "", name, metadata["resourceVersion"])
                        request.scope.setdefault(DELETED, []).append(gone)
        return json_answer(success(self.kind.plural, "", ""))

    async def _deleted(
        self, who: Identity, name: str, preconditions: Document, may: May, how: Options
    ) -> Document:
        """The metadata of what is gone, or on its way back."""
        held = await self.objects.delete(
            self.kind, name, preconditions, may, node=who.node, user=who.user, options=how
        )
        metadata: Document = held["metadata"]
        return metadata

    async def _deleting(self, request: Request) -> tuple[Document, Options]:
        """The preconditions, and how; the body's dryRun counts as the query's."""
        body = await body_of(request, empty={})
        preconditions = body.get("preconditions") or {}
        if not isinstance(preconditions, dict):
            raise BadRequest("cannot read the request: preconditions must be an object")
        query = dict(request.query_params)
        dry = body.get("dryRun")
        if dry:
            query["dryRun"] = ",".join(map(str, dry)) if isinstance(dry, list) else str(dry)
        how = options.of(query)
        request.scope[DRY] = how.dry
        return preconditions, how

    async def _permit_change(
        self, who: Identity, verb: str, name: str, *, status: bool = False
    ) -> May:
        """Refuse at once what is not permitted. What is returned judges the object as it is when
        the change is decided, for it may be another's by then, and as it would become."""
        granted = self._granted(who, verb, name, status=status)
        may = self._judge(who, verb, granted, status=status)
        item = (await self.objects.mirror.fresh()).item(self.kind.plural, name)
        if item is not None and not granted.whole:
            may(document_of(item.value, item.revision))
        return may

    def _granted(self, who: Identity, verb: str, name: str = "", *, status: bool = False) -> Grant:
        """What `who` may do it with; Forbidden if that is nothing, or cannot have this name."""
        granted = grant(who, verb, self.kind.plural, status=status)
        if granted is None or (name and granted.name not in ("", name)):
            raise self._forbidden(who, verb, name, status=status)
        return granted

    def _selected(self, query: QueryParams, granted: Grant) -> Selection:
        """Those that the request selects, and `granted` lets it see."""
        chosen = selection(
            self.kind, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        return chosen.within(granted.name, granted.node, granted.test)

    def _judge(self, who: Identity, verb: str, granted: Grant, *, status: bool = False) -> May:
        """What refuses an object that `granted` does not cover."""
        return lambda document: self._covered(who, verb, granted, document, status=status)

    def _covered(
        self, who: Identity, verb: str, granted: Grant, document: Document, *, status: bool = False
    ) -> None:
        if not granted.covers(document):
            raise self._forbidden(who, verb, document["metadata"]["name"], status=status)

    def _forbidden(self, who: Identity, verb: str, name: str, *, status: bool) -> Forbidden:
        return forbidden(who, verb, f"{self.kind.plural}{'/status' if status else ''}", name)


def forbidden(who: Identity, verb: str, plural: str, name: str = "") -> Forbidden:
    what = f"{plural} {name}".strip()
    return Forbidden(
        f"cannot {verb} {what}: role {who.role} of {who.user} does not allow it",
        kind=plural,
        name=name,
    )


def asked(request: Request) -> Options:
    """How a write is to be done; most do not say."""
    return options.of(request.query_params) if request.scope["query_string"] else options.PLAIN


def warned(response: Response, how: Options) -> Response:
    """With a Warning header (RFC 7234, section 5.5) for each field that is not known."""
    for text in how.warnings:
        quoted = text.replace("\\", "").replace('"', '\\"')
        response.headers.append("warning", f'299 - "{quoted}"')
    return response


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadRequest(f"cannot read {name} {text[:40]!r}: it must be a number")
    return int(text)


def _seconds(asked: str, who: Identity) -> float | None:
    """How long a watch may go on: as asked, and no longer than what was shown of `who` is good."""
    ends = [float(seconds)] if (seconds := _number("timeoutSeconds", asked)) else []
    if who.until < math.inf:
        ends.append(max(who.until - time.time(), 0.001))
    return min(ends, default=None)


class Written(Response):
    """The answer to a write: of which object, at which revision."""

    def __init__(self, body: bytes, code: int, name: str, revision: str) -> None:
        super().__init__(body, code, media_type="application/json")
        self.name = name
        self.revision = revision


def object_answer(item: Item, code: int = 200) -> Response:
    return Written(wire(item), code, item.key.rpartition("/")[2], str(item.revision))


def json_answer(document: Any, code: int = 200) -> Response:
    return answer(compact(document), code)


def answer(data: bytes, code: int = 200) -> Response:
    return Response(data, code, media_type="application/json")
