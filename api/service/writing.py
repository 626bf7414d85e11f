"""The handlers that write objects of one kind: who may, what is asked, and the answer."""

from __future__ import annotations

import contextlib

from fastapi import Request, Response

from api.auth.identity import Identity
from api.auth.rights import grant
from api.resources.errors import BadRequest, NotFound, Unsupported
from api.resources.media import APPLY, JSON_PATCH
from api.resources.registry import Kind
from api.resources.status import success
from api.service import listing, options, patches
from api.service.answers import Written, json_answer, object_answer, warned
from api.service.applying import apply
from api.service.audit import DELETED, DRY, Outcome
from api.service.bodies import body_of, bytes_of
from api.service.codec import compact, document_of
from api.service.judging import Judge, May
from api.service.objects import Document, Objects
from api.service.options import Options


class Writing:
    def __init__(self, objects: Objects, kind: Kind) -> None:
        self.objects = objects
        self.kind = kind
        self.judge = Judge(kind)

    async def create(self, request: Request, who: Identity) -> Response:
        granted = self.judge.granted(who, "create")
        how = asked(request)
        document = await body_of(request)
        may = self.judge.may(who, "create", granted)
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
        if media == APPLY:
            return await self._apply(request, who, may, how, status=status)
        change = await body_of(request, array=media == JSON_PATCH)
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
        may_create = self.judge.may_create(who, name)
        made, new = await apply(
            self.objects, self.kind, name, document, may, may_create, status=status, options=how
        )
        return warned(object_answer(made, 201 if new else 200), how)

    async def delete(self, request: Request, who: Identity) -> Response:
        name = request.path_params["name"]
        may = await self._permit_change(who, "delete", name)
        preconditions, how = await self._deleting(request)
        if how.statement:  # else whoever may ask a node for its block could take it
            await self._permit_change(who, "update", name)
        metadata = await self._deleted(who, name, preconditions, may, how)
        said = compact(success(self.kind.plural, name, metadata["uid"]))
        return Written(said, 200, name, metadata["resourceVersion"])

    async def delete_all(self, request: Request, who: Identity) -> Response:
        """Those that the selectors select, one after the other: one that is refused ends it."""
        query = request.query_params
        granted = self.judge.granted(who, "delete")
        options.read(query)
        preconditions, how = await self._deleting(request)
        if how.statement:
            raise BadRequest("cannot read the request: a statement is of one block, by name")
        selected = self.judge.selected(query, granted)
        may = self.judge.may(who, "delete", granted)
        state = await self.objects.mirror.fresh()
        async for part in listing.selected(state.table(self.kind.plural).cursor(selected)):
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
        """The preconditions, and how."""
        body = await body_of(request, empty={})
        preconditions = options.deletion(body)
        how = options.deleting(request.query_params, body)
        request.scope[DRY] = how.dry
        return preconditions, how

    async def _permit_change(
        self, who: Identity, verb: str, name: str, *, status: bool = False
    ) -> May:
        """Refuse at once what is not permitted. What is returned judges the object as it is when
        the change is decided, for it may be another's by then, and as it would become."""
        granted = self.judge.granted(who, verb, name, status=status)
        may = self.judge.may(who, verb, granted, status=status)
        item = (await self.objects.mirror.fresh()).item(self.kind.plural, name)
        if item is not None and not granted.whole:
            may(document_of(item.value, item.revision))
        return may


def asked(request: Request) -> Options:
    """How a write is to be done; what our own clients say is not taken apart."""
    if request.scope["query_string"] == options.OUR_OWN:
        return options.PLAIN
    return options.of(request.query_params)
