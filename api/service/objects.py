"""The verbs, for every kind alike: get, list, create, update, status, patch, delete.

A write is decided on what was read and committed against those revisions; if another writer came
between, it is decided anew, unless the caller named the revision itself (409 Conflict).
What is created and deleted, whose rules concern other objects, is decided in turns; an update
concerns its object alone. No-op writes make no revision; generation grows with the spec only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from api.auth.identity import of_node
from api.resources.decode import decode, invalid
from api.resources.errors import AlreadyExists, Cause, Conflict, NotFound
from api.resources.media import MERGE
from api.resources.meta import Resource
from api.resources.reading import keeping
from api.resources.registry import Kind
from api.service.admission import admit, report, revise
from api.service.codec import document_of, encoded, key_of, stored, understood
from api.service.fields import Managed
from api.service.judging import May
from api.service.making import (
    born,
    managed,
    named,
    now,
    unborn,
    with_managed,
    with_spec,
    with_status,
    without_status,
)
from api.service.mirror import Mirror
from api.service.options import PLAIN, Options
from api.service.patches import patched
from api.service.releasing import release
from api.service.selection import at
from api.service.state import State, fact_of
from api.service.turns import TRIES, Decision, Turns, too_many
from api.store import Item, Store, StoreConflict

Document = dict[str, Any]
Says = Callable[[Document], bool]


def anything(document: Document) -> None:
    """What the service itself may write."""


def whatever(document: Document) -> bool:
    """What the service itself may say."""
    return True


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an object is to become: on top of which revision ("": of whichever it has), and whose
    its fields are then (None: that is to be worked out)."""

    made: Resource
    based_on: str
    whose: Managed | None = None


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

    async def create(
        self,
        kind: Kind,
        document: Any,
        may: May = anything,
        options: Options = PLAIN,
        says: Says = whatever,
    ) -> tuple[Item, bool]:
        """The object as created, and whether it is new (a repeated claim of a block is not). What
        is in its status counts only of who `says` statuses of it."""
        wanted = unborn(decode(kind, named(kind, document), options.unknown))
        asked = wanted.wire()
        may(asked)
        if not says(asked):
            wanted = without_status(wanted)
        wanted = managed({}, wanted, options, status=False)
        return await self.created(kind, wanted, options)

    async def created(self, kind: Kind, wanted: Resource, options: Options) -> tuple[Item, bool]:
        """`wanted` as it is created in its turn, and whether it is new."""
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
            born(made)
            fact = admitted.fact or fact_of(kind.plural, made)
            expect = {**admitted.expect, key: 0}
            return Decision(key, encoded(made), fact, expect, admitted.guard, also=admitted.also)

        made = await (self.turns.dry if options.dry else self.turns.decided)(creation)
        assert made is not None
        return made, new

    async def update(
        self,
        kind: Kind,
        name: str,
        document: Any,
        may: May,
        *,
        status: bool = False,
        options: Options = PLAIN,
    ) -> Item:
        """Replace spec and metadata, or with `status` the status only. The object must name the
        resourceVersion it is based on; Conflict if that is not the present one."""
        wanted = decode(kind, document, options.unknown)
        is_called(kind, name, wanted.metadata.name)
        based_on = wanted.metadata.resource_version
        if not based_on:
            await self.get(kind, name)  # what is not there cannot name a revision: NotFound
            raise invalid(
                kind, name, [Cause("metadata.resourceVersion", "must be specified for an update")]
            )
        return await self.replaced(
            kind, name, lambda held: Wanted(wanted, based_on), may, status, options
        )

    async def patch(
        self,
        kind: Kind,
        name: str,
        change: Any,
        may: May,
        *,
        media_type: str = MERGE,
        status: bool = False,
        options: Options = PLAIN,
    ) -> Item:
        """A JSON patch, or a merge patch."""

        def wanted(held: Document) -> Wanted:
            made = patched(media_type, held, change)
            is_called(kind, name, at(made, "metadata.name"))
            based_on = at(made, "metadata.resourceVersion")
            same = based_on == held["metadata"]["resourceVersion"]
            return Wanted(decode(kind, made, options.unknown), "" if same else str(based_on or ""))

        return await self.replaced(kind, name, wanted, may, status, options)

    async def replaced(
        self,
        kind: Kind,
        name: str,
        wanted_of: Callable[[Document], Wanted],
        may: May,
        status: bool,
        options: Options,
    ) -> Item:
        """The object with what `wanted_of` makes of it as it is at that moment in its place."""
        for _ in range(TRIES):
            state = await self.mirror.fresh()
            item = _item(state, kind, name)
            document = document_of(item.value, item.revision)
            may(document)
            held, newer = understood(kind.model, document)
            if newer:  # the change is of what is known here; the rest stays
                document = held.wire()
            wanted = wanted_of(document)
            if wanted.based_on and wanted.based_on != str(item.revision):
                raise Conflict(
                    f'Operation cannot be fulfilled on {kind.plural} "{name}": the object has been '
                    f"modified (it is at resourceVersion {item.revision}, not {wanted.based_on}); "
                    "apply your changes to the latest version and try again",
                    kind=kind.kind,
                    name=name,
                )
            made = with_status(held, wanted.made) if status else with_spec(kind, held, wanted.made)
            if wanted.whose is not None:
                made = with_managed(made, wanted.whose)
            else:
                made = managed(document, made, options, status)
            after = stored(made)
            if newer:
                after = keeping(json.loads(item.value), stored(held), after)
            may(after)
            value = encoded(after)
            if value == item.value:
                return item
            expect, puts = {item.key: item.revision}, {item.key: value}
            if guard := report(state, held, made) if status else revise(state, held, made):
                expect[guard], puts[guard] = state.revision_of(guard), b"{}"
            if options.dry:
                return Item(item.key, value, item.revision, item.created)
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
        options: Options = PLAIN,
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
            how = release(state, kind.plural, gone, node, user, options.statement)
            expect = {item.key: item.revision}
            if not how.asked:
                nodes = kind.plural == "nodes"
                ends = state.credentials_of(of_node(name)) if nodes else ()
                also = {**how.also, **dict.fromkeys(ends)}
                return Decision(item.key, expect=expect, guard=how.guard, also=also)
            if "deletionTimestamp" in gone["metadata"]:
                return Decision(item.key, stays=True)
            gone["metadata"]["deletionTimestamp"] = now()
            made = {**gone, "metadata": dict(gone["metadata"])}
            del made["metadata"]["resourceVersion"]
            return Decision(item.key, encoded(made), fact_of(kind.plural, made), expect)

        await (self.turns.dry if options.dry else self.turns.decided)(deletion)
        return gone


def _item(state: State, kind: Kind, name: str) -> Item:
    item = state.item(kind.plural, name)
    if item is None:
        raise NotFound(f'{kind.plural} "{name}" not found', kind=kind.kind, name=name)
    return item


def is_called(kind: Kind, name: str, found: Any) -> None:
    """Invalid if an object is sent to the URL of another."""
    if found != name:
        message = f"must be {name!r}, the name in the URL"
        raise invalid(kind, name, [Cause("metadata.name", message)])
