"""Server-side apply: an object is created or changed, whichever it takes when that is written.

Which of both it is decides what one must be allowed to do. So that is not asked beforehand, but in
the attempt that writes: whoever may only patch makes no object anew by applying it while somebody
else deletes it, and whoever may create changes none that he may not patch and has just appeared.
"""

from __future__ import annotations

from typing import Any

from api.resources.decode import decode, known, of_kind
from api.resources.errors import AlreadyExists, BadRequest, NotFound
from api.resources.meta import API_VERSION, Resource
from api.resources.registry import Kind
from api.service import fields
from api.service.fields import APPLY, Manager
from api.service.judging import May
from api.service.making import unborn, with_managed, without_status
from api.service.objects import Document, Objects, Wanted, is_called
from api.service.options import Options
from api.service.selection import at
from api.service.turns import TRIES, too_many
from api.store import Item


async def apply(
    objects: Objects,
    kind: Kind,
    name: str,
    document: Any,
    may: May,
    may_create: May,
    *,
    status: bool = False,
    options: Options,
) -> tuple[Item, bool]:
    """The object with the fields of `document`, and whether it is new; a new one needs both `may`
    and `may_create`. Of /status only the status counts, elsewhere all but that."""
    who = Manager(options.manager, APPLY, "status" if status else "")
    if not isinstance(document, dict):
        raise BadRequest(f"cannot apply {kind.kind} {name}: it must be an object")
    document = of_kind(kind, document)
    is_called(kind, name, at(document, "metadata.name"))
    applied = fields.of_subresource(known(kind, document, options.unknown), who.subresource)

    def wanted(held: Document) -> Wanted:
        whose = fields.read(at(held, "metadata.managedFields") or [])
        made, whose = fields.applied(held, applied, who, whose, force=options.force)
        return Wanted(decode(kind, made, options.unknown), "", whose)

    def new() -> Resource:
        made = wanted({"apiVersion": API_VERSION, "kind": kind.kind, "metadata": {"name": name}})
        held = without_status(unborn(made.made))
        for judge in (may, may_create):
            judge(held.wire())
        if kind.plural == "ipblocks":
            raise BadRequest(f"cannot apply {name}: a block is claimed by creating one")
        assert made.whose is not None
        return with_managed(held, made.whose)

    for _ in range(TRIES):
        there = (await objects.mirror.fresh()).item(kind.plural, name) is not None
        if there or status:
            try:
                return await objects.replaced(kind, name, wanted, may, status, options), False
            except NotFound:
                if status:
                    raise
                continue  # it was there a moment ago
        try:
            return await objects.created(kind, new(), options)
        except AlreadyExists:
            continue  # by now it is there, and is another's perhaps
    raise too_many()
