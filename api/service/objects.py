"""The verbs, for every kind alike: get, list, create, update, status, patch, delete.

A write is decided on what was read and committed against those revisions; if another writer came
between, it is decided anew, unless the caller named the revision itself (409 Conflict).
What is created and deleted, whose rules concern other objects, is decided in turns; an update
concerns its object alone. No-op writes make no revision; generation grows with the spec only.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from api.auth.identity import of_node
from api.resources.decode import decode, invalid
from api.resources.errors import AlreadyExists, BadRequest, Cause, Conflict, NotFound
from api.resources.meta import Condition, Resource
from api.resources.registry import Kind
from api.service.admission import admit, release, report, revise
from api.service.codec import document_of, encoded, key_of, stored
from api.service.mirror import Mirror
from api.service.selection import at
from api.service.state import State, fact_of
from api.service.turns import TRIES, Decision, Turns, too_many
from api.store import Item, Store, StoreConflict

Document = dict[str, Any]
# Raises Forbidden: it is asked of an object as it is, and as it would become.
May = Callable[[Document], None]


def anything(document: Document) -> None:
    """What the service itself may write."""


class Objects:
    """The resources in one store. Each answer is the object as it is stored."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.mirror = Mirror(store)
        self.turns = Turns(self.mirror)

    async def get(self, kind: Kind, name: str) -> Item:
        return _item(await self.mirror.fresh(), kind, name)

    async def list(self, kind: Kind) -> tuple[int, list[Item]]:
        """The store's revision and every object, by name."""
        state = await self.mirror.fresh()
        table = state.table(kind.plural)
        return state.revision, [table.items[name] for name in table.names()]

    async def create(self, kind: Kind, document: Any, may: May = anything) -> tuple[Item, bool]:
        """The object as created, and whether it is new (a repeated claim of a block is not)."""
        wanted = decode(kind, _claim_name(kind, document))
        may(wanted.wire())
        new = False

        def creation(state: State) -> Decision:
            nonlocal new
            name = wanted.metadata.name
            if kind.plural != "ipblocks" and state.item(kind.plural, name) is not None:
                raise AlreadyExists(
                    f'{kind.plural} "{name}" already exists', kind=kind.kind, name=name
                )
            admitted = admit(state, wanted)
            new, made = not admitted.existing, admitted.document
            key = key_of(kind.plural, made["metadata"]["name"])
            if admitted.existing:
                return Decision(key, stays=True)
            _born(made)
            fact = admitted.fact or fact_of(kind.plural, made)
            expect = {**admitted.expect, key: 0}
            return Decision(key, encoded(made), fact, expect, admitted.guard, also=admitted.also)

        made = await self.turns.decided(creation)
        assert made is not None
        return made, new

    async def update(
        self, kind: Kind, name: str, document: Any, may: May, *, status: bool = False
    ) -> Item:
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
        return await self._replace(kind, name, lambda held: (wanted, based_on), may, status=status)

    async def patch(
        self, kind: Kind, name: str, change: Any, may: May, *, status: bool = False
    ) -> Item:
        """JSON merge patch (RFC 7386)."""
        if not isinstance(change, dict):
            raise BadRequest("cannot patch: a merge patch is an object")

        def patched(held: Document) -> tuple[Resource, str]:
            based_on = at(change, "metadata.resourceVersion") or ""
            return decode(kind, merge(held, change)), str(based_on)

        return await self._replace(kind, name, patched, may, status=status)

    async def _replace(
        self,
        kind: Kind,
        name: str,
        wanted_of: Callable[[Document], tuple[Resource, str]],
        may: May,
        *,
        status: bool,
    ) -> Item:
        for _ in range(TRIES):
            state = await self.mirror.fresh()
            item = _item(state, kind, name)
            document = document_of(item.value, item.revision)
            may(document)
            held = kind.model.model_validate(document)
            wanted, based_on = wanted_of(document)
            if based_on and based_on != str(item.revision):
                raise Conflict(
                    f'Operation cannot be fulfilled on {kind.plural} "{name}": the object has been '
                    f"modified (it is at resourceVersion {item.revision}, not {based_on}); apply "
                    "your changes to the latest version and try again",
                    kind=kind.kind,
                    name=name,
                )
            made = _with_status(held, wanted) if status else _with_spec(kind, held, wanted)
            after = stored(made)
            may(after)
            value = encoded(after)
            if value == item.value:
                return item
            expect, puts = {item.key: item.revision}, {item.key: value}
            if guard := report(state, held, made) if status else revise(held, made):
                expect[guard], puts[guard] = state.revision_of(guard), b"{}"
            try:
                revisions = await self.store.commit(expect, puts)
            except StoreConflict:
                continue
            return Item(item.key, value, revisions[item.key], item.created)
        raise too_many()

    async def delete(
        self,
        kind: Kind,
        name: str,
        preconditions: Document,
        may: May,
        *,
        node: str = "",
        user: str = "",
    ) -> Document:
        """The object as it was, or as it waits for its owner; `user` deletes, who is `node` ("":
        none). Conflict if `preconditions` (uid, resourceVersion) do not hold."""
        gone: Document = {}

        def deletion(state: State) -> Decision:
            nonlocal gone
            item = _item(state, kind, name)
            gone = document_of(item.value, item.revision)
            may(gone)
            for wanted in ("uid", "resourceVersion"):
                value = preconditions.get(wanted)
                if value and value != gone["metadata"][wanted]:
                    raise Conflict(
                        f'cannot delete {kind.plural} "{name}": precondition failed: {wanted} is '
                        f"{gone['metadata'][wanted]}, not {value}",
                        kind=kind.kind,
                        name=name,
                    )
            how = release(state, kind.plural, gone, node, user)
            expect = {item.key: item.revision}
            if not how.asked:
                nodes = kind.plural == "nodes"
                ends = state.credentials_of(of_node(name)) if nodes else ()
                also = {**how.also, **dict.fromkeys(ends)}
                return Decision(item.key, expect=expect, guard=how.guard, also=also)
            if "deletionTimestamp" in gone["metadata"]:
                return Decision(item.key, stays=True)
            gone["metadata"]["deletionTimestamp"] = _now()
            made = stored(kind.model.model_validate(gone))
            return Decision(item.key, encoded(made), fact_of(kind.plural, made), expect)

        await self.turns.decided(deletion)
        return gone


def _item(state: State, kind: Kind, name: str) -> Item:
    item = state.item(kind.plural, name)
    if item is None:
        raise NotFound(f'{kind.plural} "{name}" not found', kind=kind.kind, name=name)
    return item


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
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _claim_name(kind: Kind, document: Any) -> Any:
    """A claim needs no name: the block's CIDR names it."""
    if kind.plural == "ipblocks" and isinstance(document, dict):
        metadata = document.get("metadata")
        if metadata is None or (isinstance(metadata, dict) and not metadata.get("name")):
            return {**document, "metadata": {**(metadata or {}), "name": "claim"}}
    return document


def _born(document: Document) -> None:
    """What the service says of a new object."""
    document["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": _now()}
    for condition in document["status"]["conditions"]:
        condition["lastTransitionTime"] = _now()


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


def _timed(made: Resource, before: Resource) -> Resource:
    """Conditions get the time of their last transition."""
    old = {c.type: c for c in before.status.conditions}  # type: ignore[attr-defined]

    def timed(condition: Condition) -> Condition:
        known = old.get(condition.type)
        same = known is not None and known.status == condition.status
        when = known.last_transition_time if same and known else None
        return condition.model_copy(update={"last_transition_time": when or _now()})

    conditions = [timed(condition) for condition in made.status.conditions]  # type: ignore[attr-defined]
    status = made.status.model_copy(update={"conditions": conditions})  # type: ignore[attr-defined]
    return made.model_copy(update={"status": status})
