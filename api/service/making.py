"""What a write makes of an object. Pure, but for a new object's uid and the time."""

from __future__ import annotations

import secrets
import uuid
from datetime import UTC, datetime
from typing import Any

from api.resources.decode import invalid
from api.resources.errors import Cause, Conflict
from api.resources.ippool import IPBlock
from api.resources.meta import Condition, Resource
from api.resources.registry import Kind
from api.service import fields
from api.service.fields import UPDATE, Managed, Manager
from api.service.options import Options
from api.service.selection import at

Document = dict[str, Any]
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: it makes no words


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def named(kind: Kind, document: Any) -> Any:
    """`document` with a name: one made of `generateName`, if it has none. A claim needs none: the
    block's CIDR names it."""
    if not isinstance(document, dict):
        return document
    metadata = document.get("metadata")
    if not isinstance(metadata, dict | None) or (metadata and metadata.get("name")):
        return document
    metadata = dict(metadata or {})
    prefix = metadata.pop("generateName", "")
    if kind.plural == "ipblocks":
        metadata["name"] = "claim"
    elif isinstance(prefix, str) and prefix:
        metadata["name"] = prefix + "".join(secrets.choice(_SUFFIX) for _ in range(5))
    return {**document, "metadata": metadata}


def unborn(wanted: Resource) -> Resource:
    """Without what only the service says of a new object."""
    if wanted.metadata.deletion_timestamp is None and not wanted.metadata.managed_fields:
        return wanted
    mine: Document = {"deletion_timestamp": None, "managed_fields": []}
    metadata = wanted.metadata.model_copy(update=mine)
    return wanted.model_copy(update={"metadata": metadata})


def without_status(wanted: Resource) -> Resource:
    """As it is before anybody has said anything of it."""
    status = type(wanted.status)()  # type: ignore[attr-defined]
    return wanted.model_copy(update={"status": status})


def born(document: Document) -> None:
    """What the service says of a new object."""
    document["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": now()}
    for condition in document["status"]["conditions"]:
        condition["lastTransitionTime"] = now()


def with_spec(kind: Kind, held: Resource, wanted: Resource) -> Resource:
    old, new = held.spec, wanted.spec  # type: ignore[attr-defined]
    untold = {name: getattr(old, name) for name in kind.kept if name not in new.model_fields_set}
    wanted = wanted.model_copy(update={"spec": new.model_copy(update=untold)})
    before, after = held.wire(), wanted.wire()
    causes = [
        Cause(path, f"is immutable (it is {at(before, path)!r})", "FieldValueForbidden")
        for path in kind.immutable
        if at(before, path) != at(after, path)
    ]
    if causes:
        raise invalid(kind, held.metadata.name, causes)
    metadata = held.metadata.model_copy(
        update={
            "labels": wanted.metadata.labels,
            "annotations": wanted.metadata.annotations,
            "generation": held.metadata.generation + (before["spec"] != after["spec"]),
        }
    )
    return held.model_copy(update={"metadata": metadata, "spec": wanted.spec})  # type: ignore[attr-defined]


def with_status(held: Resource, wanted: Resource) -> Resource:
    """Conflict if it is said of a block as an earlier owner had it."""
    if isinstance(held, IPBlock) and isinstance(wanted, IPBlock):
        _of_this_epoch(held, wanted)
    made = held.model_copy(update={"status": wanted.status})  # type: ignore[attr-defined]
    return _timed(made, held)


def _of_this_epoch(held: IPBlock, wanted: IPBlock) -> None:
    epoch = wanted.spec.epoch
    if "epoch" in wanted.spec.model_fields_set and epoch != held.spec.epoch:
        name = held.metadata.name
        said = f"{epoch} is not the present epoch, {held.spec.epoch}: the block was claimed anew"
        raise Conflict(
            f"cannot report on block {name}: spec.epoch: {said}",
            causes=[Cause("spec.epoch", said)],
            kind="IPBlock",
            name=name,
        )


def _timed(made: Resource, before: Resource) -> Resource:
    """Conditions get the time of their last transition."""
    old = {c.type: c for c in before.status.conditions}  # type: ignore[attr-defined]

    def timed(condition: Condition) -> Condition:
        known = old.get(condition.type)
        same = known is not None and known.status == condition.status
        when = known.last_transition_time if same and known else None
        return condition.model_copy(update={"last_transition_time": when or now()})

    conditions = [timed(condition) for condition in made.status.conditions]  # type: ignore[attr-defined]
    status = made.status.model_copy(update={"conditions": conditions})  # type: ignore[attr-defined]
    return made.model_copy(update={"status": status})


def managed(before: Document, made: Resource, options: Options, status: bool) -> Resource:
    """`made` with account kept of who set what, where `before` has such, or a manager is named."""
    entries = before.get("metadata", {}).get("managedFields", ())
    if not options.manager and (status or not entries):
        return made
    who = Manager(options.manager or "unknown", UPDATE, "status" if status else "")
    return with_managed(made, fields.updated(before, made.wire(), who, fields.read(entries)))


def with_managed(made: Resource, whose: Managed) -> Resource:
    before = made.metadata.managed_fields
    entries = fields.written(whose, before, now())
    metadata = made.metadata.model_copy(update={"managed_fields": entries})
    return made.model_copy(update={"metadata": metadata})
