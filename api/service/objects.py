"""The verbs, for every kind alike: get, list, create, update, status, patch, delete.

A write is decided on what was read and committed against those revisions; if another writer came
between, it is decided anew, unless the caller named the revision itself (409 Conflict).
No-op writes make no revision; generation grows with the spec only.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from api.resources.decode import decode, invalid
from api.resources.errors import AlreadyExists, BadRequest, Cause, Conflict, NotFound
from api.resources.meta import Condition, Resource
from api.resources.registry import Kind
from api.service.admission import admit, release
from api.service.codec import document_of, kept, key_of, stored
from api.service.selection import at
from api.store import Item, Store, StoreConflict

Document = dict[str, Any]
T = TypeVar("T")
TRIES = 100


class Objects:
    """The resources in one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def get(self, kind: Kind, name: str) -> Document:
        item = await self._item(kind, name)
        return document_of(item.value, item.revision)

    async def list(self, kind: Kind) -> tuple[int, list[Document]]:
        revision, items = await self.store.scan(f"/{kind.plural}/")
        return revision, [document_of(item.value, item.revision) for item in items]

    async def create(self, kind: Kind, document: Any) -> tuple[Document, bool]:
        """The object as created, and whether it is new (a repeated claim of a block is not)."""
        wanted = decode(kind, _claim_name(kind, document))

        async def attempt() -> tuple[Document, bool]:
            name = wanted.metadata.name
            if kind.plural != "ipblocks" and await self.store.get(key_of(kind.plural, name)):
                raise _exists(kind, name)
            admitted = await admit(self.store, wanted)
            if admitted.existing:
                return admitted.object.wire(), False
            made = _born(admitted.object)
            key = key_of(kind.plural, made.metadata.name)
            value = stored(made)
            revisions = await self.store.commit(
                {**admitted.expect, key: 0}, {key: value, **admitted.puts}
            )
            return document_of(value, revisions[key]), True

        return await self._decided(attempt)

    async def update(
        self, kind: Kind, name: str, document: Any, *, status: bool = False
    ) -> Document:
        """Replace spec and metadata, or with `status` the status only. The object must name the
        resourceVersion it is based on; Conflict if that is not the present one."""
        wanted = decode(kind, document)
        if wanted.metadata.name != name:
            message = f"must be {name!r}, the name in the URL"
            raise invalid(kind, name, [Cause("metadata.name", message)])
        based_on = wanted.metadata.resource_version
        if not based_on:
            raise invalid(
                kind, name, [Cause("metadata.resourceVersion", "must be specified for an update")]
            )
        return await self._replace(kind, name, lambda held: (wanted, based_on), status=status)

    async def patch(self, kind: Kind, name: str, change: Any, *, status: bool = False) -> Document:
        """JSON merge patch (RFC 7386)."""
        if not isinstance(change, dict):
            raise BadRequest("cannot patch: a merge patch is an object")

        def patched(held: Document) -> tuple[Resource, str]:
            based_on = at(change, "metadata.resourceVersion") or ""
            return decode(kind, merge(held, change)), str(based_on)

        return await self._replace(kind, name, patched, status=status)

    async def _replace(
        self,
        kind: Kind,
        name: str,
        wanted_of: Callable[[Document], tuple[Resource, str]],
        *,
        status: bool,
    ) -> Document:
        async def attempt() -> Document:
            item = await self._item(kind, name)
            held = kept(kind.model, item)
            wanted, based_on = wanted_of(document_of(item.value, item.revision))
            if based_on and based_on != str(item.revision):
                raise Conflict(
                    f'Operation cannot be fulfilled on {kind.plural} "{name}": the object has been '
                    f"modified (it is at resourceVersion {item.revision}, not {based_on}); apply "
                    "your changes to the latest version and try again",
                    kind=kind.kind,
                    name=name,
                )
            made = _with_status(held, wanted) if status else _with_spec(kind, held, wanted)
            value = stored(made)
            if value == item.value:
                return document_of(item.value, item.revision)
            key = key_of(kind.plural, name)
            revisions = await self.store.commit({key: item.revision}, {key: value})
            return document_of(value, revisions[key])

        return await self._decided(attempt)

    async def delete(self, kind: Kind, name: str, preconditions: Document) -> Document:
        """The object as it was; Conflict if `preconditions` (uid, resourceVersion) do not hold."""

        async def attempt() -> Document:
            item = await self._item(kind, name)
            document = document_of(item.value, item.revision)
            for wanted in ("uid", "resourceVersion"):
                value = preconditions.get(wanted)
                if value and value != document["metadata"][wanted]:
                    raise Conflict(
                        f'cannot delete {kind.plural} "{name}": precondition failed: {wanted} is '
                        f"{document['metadata'][wanted]}, not {value}",
                        kind=kind.kind,
                        name=name,
                    )
            admitted = await release(self.store, kept(kind.model, item))
            key = key_of(kind.plural, name)
            await self.store.commit(
                {**admitted.expect, key: item.revision}, {key: None, **admitted.puts}
            )
            return document

        return await self._decided(attempt)

    async def _item(self, kind: Kind, name: str) -> Item:
        item = await self.store.get(key_of(kind.plural, name))
        if item is None:
            raise NotFound(f'{kind.plural} "{name}" not found', kind=kind.kind, name=name)
        return item

    async def _decided(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Decide again for as long as others commit in between."""
        for _ in range(TRIES):
            try:
                return await attempt()
            except StoreConflict:
                continue
        raise Conflict("cannot commit: too many others are writing; try again")


def merge(held: Any, change: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(change, dict):
        return change
    base = dict(held) if isinstance(held, dict) else {}
    for name, value in change.items():
        if value is None:
            base.pop(name, None)
        else:
            base[name] = merge(base.get(name), value)
    return base


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _claim_name(kind: Kind, document: Any) -> Any:
    """A claim needs no name: the block's CIDR names it."""
    if kind.plural == "ipblocks" and isinstance(document, dict):
        metadata = document.get("metadata")
        if metadata is None or (isinstance(metadata, dict) and not metadata.get("name")):
            return {**document, "metadata": {**(metadata or {}), "name": "claim"}}
    return document


def _born(held: Resource) -> Resource:
    metadata = held.metadata.model_copy(
        update={
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "creation_timestamp": _now(),
            "resource_version": "",
        }
    )
    return _timed(held.model_copy(update={"metadata": metadata}), None)


def _with_spec(kind: Kind, held: Resource, wanted: Resource) -> Resource:
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


def _with_status(held: Resource, wanted: Resource) -> Resource:
    made = held.model_copy(update={"status": wanted.status})  # type: ignore[attr-defined]
    return _timed(made, held)


def _timed(made: Resource, before: Resource | None) -> Resource:
    """Conditions get the time of their last transition."""
    old = {c.type: c for c in before.status.conditions} if before else {}  # type: ignore[attr-defined]

    def timed(condition: Condition) -> Condition:
        known = old.get(condition.type)
        same = known is not None and known.status == condition.status
        when = known.last_transition_time if same and known else None
        return condition.model_copy(update={"last_transition_time": when or _now()})

    conditions = [timed(condition) for condition in made.status.conditions]  # type: ignore[attr-defined]
    status = made.status.model_copy(update={"conditions": conditions})  # type: ignore[attr-defined]
    return made.model_copy(update={"status": status})


def _exists(kind: Kind, name: str) -> AlreadyExists:
    return AlreadyExists(f'{kind.plural} "{name}" already exists', kind=kind.kind, name=name)
