"""The handlers of core/v1 events: `kubectl describe`, `kubectl events`, `kubectl get events`.

They are worked out of the objects when somebody asks (api.resources.event): who may list an object
may see its events, so there is no other right to them. Those of a named object are all there are.
Of all objects they are those of the ones that changed last: a store may have a million, and the
answer takes memory and time of everybody else's.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Request, Response

from api.auth.identity import Identity
from api.auth.rights import Grant, grant
from api.resources.columns import age
from api.resources.errors import MethodNotAllowed, NotFound
from api.resources.event import CORE_VERSION, EVENTS, NAMESPACE, events_of, object_of
from api.resources.registry import KINDS, Kind
from api.service import listing, options, table
from api.service.answers import json_answer
from api.service.codec import document_of
from api.service.judging import Judge, forbidden
from api.service.mirror import Mirror
from api.service.selection import Selection, field_terms, selection
from api.service.state import State
from api.store import Item

Document = dict[str, Any]
OBJECTS_MOST = 500


@dataclass(frozen=True, slots=True)
class About:
    """What objects the events must be of: of one kind, with one name ("": any)."""

    kind: str = ""
    name: str = ""

    @classmethod
    def of(cls, fields: str) -> About:
        """As far as a field selector says it."""
        found = {path: value for path, how, value in field_terms(EVENTS, fields) if how != "!="}
        if name := found.get("metadata.name"):
            kind, of = _object_of(name)
            return cls(kind.kind if kind else name, of)  # which is no kind either
        return cls(found.get("involvedObject.kind", ""), found.get("involvedObject.name", ""))


class Events:
    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror

    async def list(self, request: Request, who: Identity) -> Response:
        """Those of all objects, or of those that a field selector names; the oldest first."""
        query = request.query_params
        if options.boolean(query, "watch"):
            raise MethodNotAllowed("cannot watch events: watch the objects that they are of")
        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        selected, about = selection(EVENTS, labels, fields), About.of(fields)
        limit, after = options.number(query, "limit"), query.get("continue", "")
        state = await self.mirror.fresh()
        found = [
            event
            for kind, item in await latest(state, who, about)
            for event in events_of(kind, document_of(item.value, item.revision))
            if selected(event) and _place(event) > after
        ]
        found.sort(key=_place)
        metadata: Document = {"resourceVersion": str(state.revision)}
        if limit and len(found) > limit:
            metadata["remainingItemCount"] = len(found) - limit
            found = found[:limit]
            metadata["continue"] = _place(found[-1])
        if table.wanted(request.headers.get("accept", "")):
            include = table.included(query.get("includeObject", ""))
            return json_answer(table.table(LAYOUT, found, metadata, include))
        head = {"apiVersion": CORE_VERSION, "kind": "EventList", "metadata": metadata}
        return json_answer({**head, "items": found})

    async def of_namespace(self, request: Request, who: Identity) -> Response:
        """All are in one namespace; others have none."""
        if request.path_params["name"] == NAMESPACE:
            return await self.list(request, who)
        _kinds(who)
        version = str((await self.mirror.fresh()).revision)
        head = {"apiVersion": CORE_VERSION, "kind": "EventList"}
        return json_answer({**head, "metadata": {"resourceVersion": version}, "items": []})

    async def get(self, request: Request, who: Identity) -> Response:
        """Who may read the object may read it."""
        name = request.path_params["name"]
        missing = NotFound(f'events "{name}" not found', kind=EVENTS.kind, name=name)
        kind, of = _object_of(name)
        if kind is None:
            raise missing
        judge = Judge(kind)
        granted = judge.granted(who, "get", of)
        item = (await self.mirror.fresh()).item(kind.plural, of)
        if item is None:
            raise missing
        document = document_of(item.value, item.revision)
        judge.covered(who, "get", granted, document)
        for event in events_of(kind, document):
            if event["metadata"]["name"] == name:
                if table.wanted(request.headers.get("accept", "")):
                    include = table.included(request.query_params.get("includeObject", ""))
                    return json_answer(table.one(LAYOUT, event, include))
                return json_answer(event)
        raise missing


def _object_of(event: str) -> tuple[Kind | None, str]:
    """What the event called so is of."""
    singular, name = object_of(event)
    return next((kind for kind in KINDS.values() if kind.singular == singular), None), name


def _kinds(who: Identity) -> list[tuple[Kind, Grant]]:
    """Those of whose objects `who` may see some; Forbidden if there is none."""
    found = [(kind, grant(who, "list", kind.plural)) for kind in KINDS.values()]
    seen = [(kind, granted) for kind, granted in found if granted is not None]
    if not seen:
        raise forbidden(who, "list", "events")
    return seen


async def latest(state: State, who: Identity, about: About) -> list[tuple[Kind, Item]]:
    """The objects that `who` may see, those that changed last; others are served meanwhile."""
    wanted = Selection(about.name, "", ())
    found: list[tuple[Kind, Item]] = []
    for kind, granted in _kinds(who):
        if about.kind not in ("", kind.kind):
            continue
        seen = wanted.within(granted.name, granted.node, granted.test)
        async for items in listing.selected(state.table(kind.plural).cursor(seen)):
            found += [(kind, item) for item in items]
            if len(found) > 2 * OBJECTS_MOST:
                found = _newest(found)
    return _newest(found)


def _newest(found: list[tuple[Kind, Item]]) -> list[tuple[Kind, Item]]:
    return heapq.nlargest(OBJECTS_MOST, found, key=lambda one: one[1].revision)


def _place(event: Document) -> str:
    """In order of time; where a list goes on."""
    return f"{event['lastTimestamp']}/{event['metadata']['name']}"


def _cells(event: Document, now: datetime) -> list[str]:
    of = event["involvedObject"]
    where = f"{of['kind'].lower()}/{of['name']}"
    when = age(event["lastTimestamp"], now)
    return [
        when,
        event["type"],
        event["reason"],
        where,
        event["message"],
        event["metadata"]["name"],
    ]


LAYOUT = table.Layout(
    [
        table.described("Last Seen", "Since it happened."),
        table.described("Type", "Normal or Warning."),
        table.described("Reason", "Why, in one word."),
        table.described("Object", "What it is of."),
        table.described("Message", "What happened."),
        table.described("Name", "Name of the event.", 1, "name"),
    ],
    _cells,
)
