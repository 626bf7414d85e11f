"""The handlers that read objects of one kind: get, list and watch, as objects or as a table."""

from __future__ import annotations

import math
import time

from fastapi import Request, Response

from api.auth.identity import Identity
from api.resources.errors import Expired
from api.resources.registry import Kind
from api.service import listing, options, table
from api.service.answers import json_answer, object_answer
from api.service.codec import document_of
from api.service.connections import READER
from api.service.judging import Judge
from api.service.metrics import ServiceMetrics
from api.service.objects import Objects
from api.service.watch import WatchAnswer, stream


class Reading:
    def __init__(self, objects: Objects, kind: Kind, metrics: ServiceMetrics) -> None:
        self.objects = objects
        self.kind = kind
        self.judge = Judge(kind)
        self.layout = table.layout_of(kind)
        self.metrics = metrics

    async def get(self, request: Request, who: Identity) -> Response:
        name = request.path_params["name"]
        granted = self.judge.granted(who, "get", name)
        item = await self.objects.get(self.kind, name)
        tabular = table.wanted(request.headers.get("accept", ""))
        if granted.whole and not tabular:
            return object_answer(item)
        document = document_of(item.value, item.revision)
        self.judge.covered(who, "get", granted, document)
        if tabular:
            include = table.included(request.query_params.get("includeObject", ""))
            return json_answer(table.one(self.layout, document, include))
        return object_answer(item)

    async def list(self, request: Request, who: Identity) -> Response:
        query = request.query_params
        options.read(query)
        watching = options.boolean(query, "watch")
        granted = self.judge.granted(who, "watch" if watching else "list")
        selected = self.judge.selected(query, granted)
        state = await self.objects.mirror.fresh()
        tabular = table.wanted(request.headers.get("accept", ""))
        include = table.included(query.get("includeObject", ""))
        if watching:
            initial = options.boolean(query, "sendInitialEvents")
            after = None if initial else options.number(query, "resourceVersion") or None
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
                bookmarks=options.boolean(query, "allowWatchBookmarks"),
                mark_initial=initial,
                seconds=seconds_of(options.number(query, "timeoutSeconds"), who),
                reader=request.scope.get(READER),
            )
            if tabular:
                lines = table.watched(self.layout, lines, include)
            return WatchAnswer(lines, self.metrics.watching(self.kind.plural))
        limit = options.number(query, "limit")
        return await listing.answered(
            self.kind,
            self.layout,
            state,
            selected,
            limit=limit,
            token=query.get("continue", ""),
            include=include if tabular else None,
        )


def seconds_of(asked: int, who: Identity) -> float | None:
    """How long a watch may go on: as asked, and no longer than what was shown of `who` is good."""
    ends = [float(asked)] if asked else []
    if who.until < math.inf:
        ends.append(max(who.until - time.time(), 0.001))
    return min(ends, default=None)
