"""Event: what has become of an object and when, for people (core/v1, as Kubernetes has it).

No event is kept. All that routed can say of the past of an object that exists is in the object:
when it was created, since when it is wanted back, when each condition last changed. So its events
are worked out from it (`events_of`): whoever has the object has them, on every replica, after every
restart, and there is nothing to bound. What is gone has none; that is in the audit log (ADR 6).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from api.resources.ippool import FORCED, RECLAIMED
from api.resources.meta import Model, ObjectMeta, Resource
from api.resources.registry import Kind

Document = dict[str, Any]
CORE_VERSION = "v1"
NAMESPACE = "default"  # where Kubernetes has the events of what is in none
COMPONENT = "routed"
ADVERSE = frozenset(  # conditions that are well when False
    {
        "ForwardBlocked",
        "ForwardIPv6Refused",
        "ParentModeSwitched",
        "Renumbered",
        "RouteFlapping",
        "VersionSkew",
    }
)
_NO_LETTER = re.compile(r"[^a-z0-9]")
SUFFIX = "-"  # between the kind and what happened, in an event's name


class ObjectReference(Model):
    api_version: str
    """Of its kind."""
    kind: str
    """Its kind."""
    name: str
    """Its name."""
    uid: str
    """Tells it from an earlier one of the same name."""


class EventSource(Model):
    component: str = COMPONENT
    """Who says it."""


class EventMeta(ObjectMeta):
    name: str
    """Of the object, its kind, and what happened; it may be longer than other names."""
    namespace: str = NAMESPACE
    """Where Kubernetes has the events of objects that are in no namespace."""


class Event(Resource):
    """What has become of an object, worked out from the object itself. Nobody writes events."""

    KIND: ClassVar[str] = "Event"

    api_version: str = CORE_VERSION
    """v1."""
    kind: str = Field(default="Event", pattern="^Event$")
    metadata: EventMeta
    """Its name says what it is of; its time is that of the event."""
    involved_object: ObjectReference
    """What it is of."""
    type: Literal["Normal", "Warning"]
    """Warning: somebody should look at it."""
    reason: str
    """Why, in one word."""
    message: str
    """What happened, for people."""
    source: EventSource = Field(default_factory=EventSource)
    """Who says it."""
    reporting_component: str = COMPONENT
    """Who says it."""
    count: int = 1
    """How often it was seen."""
    first_timestamp: str
    """When (RFC 3339, UTC)."""
    last_timestamp: str
    """The same: of one thing only the last time is known."""


EVENTS = Kind(
    kind="Event",
    plural="events",
    singular="event",
    short=("ev",),
    model=Event,
    columns=(),
    selectable=(
        "metadata.namespace",
        *(f"involvedObject.{field}"
          for field in ("kind", "name", "namespace", "uid", "apiVersion", "resourceVersion",
                        "fieldPath")),
        "reason",
        "type",
        "source.component",
        "reportingComponent",
    ),
    immutable=(),
    kept=(),
)  # fmt: skip


def events_of(kind: Kind, document: Document) -> list[Document]:
    """The events of one object of `kind`, in order of time."""
    metadata = document["metadata"]
    reference = ObjectReference(
        api_version=document["apiVersion"],
        kind=kind.kind,
        name=metadata["name"],
        uid=metadata["uid"],
    )
    found = []
    for what, reason, message, when, well in _happened(kind, document):
        event = Event(
            metadata=EventMeta(
                name=f"{metadata['name']}.{kind.singular}{SUFFIX}{what}",
                uid=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{metadata['uid']}/{what}")),
                resource_version=metadata.get("resourceVersion", ""),
                creation_timestamp=when,
            ),
            involved_object=reference,
            type="Normal" if well else "Warning",
            reason=reason,
            message=message,
            first_timestamp=when,
            last_timestamp=when,
        )
        found.append(event.wire())
    return sorted(found, key=lambda event: str(event["lastTimestamp"]))


def object_of(name: str) -> tuple[str, str]:
    """The singular of the kind, and the name, of what the event called `name` is of."""
    held, _, rest = name.rpartition(".")
    return rest.partition(SUFFIX)[0], held


def _happened(kind: Kind, document: Document) -> Iterator[tuple[str, str, str, str, bool]]:
    """What, reason, message, when, and whether that is well."""
    metadata, spec = document["metadata"], document.get("spec", {})
    created = metadata["creationTimestamp"]
    name = metadata["name"]
    if kind.plural == "ipblocks":
        said = f"node {spec['node']} claimed {spec['cidr']} of pool {spec['pool']}"
        yield "claimed", "Claimed", said, created, True
        notes = metadata.get("annotations", {})
        before, by, statement = (notes.get(f"{RECLAIMED}{key}") for key in FORCED)
        if before:
            said = f"{by} had taken it from node {before} before, stating: {statement}"
            yield "reclaimed", "Reclaimed", said, created, False
        if since := metadata.get("deletionTimestamp"):
            said = f"node {spec['node']} is asked to give it back"
            yield "wanted", "ReleaseRequested", said, since, True
    elif kind.plural == "workloads" and spec["origin"] == "Node":
        yield "reported", "Reported", f"node {spec['node']} has attached it", created, True
    else:
        yield "created", "Created", f"{kind.kind} {name} was created", created, True
    for condition in document.get("status", {}).get("conditions", ()):
        of, status = condition["type"], condition["status"]
        why = condition.get("message", "")
        said = f"{of} is {status}{': ' if why else ''}{why}"
        well = status == ("False" if of in ADVERSE else "True")
        when = condition.get("lastTransitionTime") or created
        yield (
            f"is-{_NO_LETTER.sub('-', of.lower())}",
            condition.get("reason") or of,
            said,
            when,
            well,
        )
