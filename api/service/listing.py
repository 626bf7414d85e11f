"""Lists: of any length, answered in parts between which others are served.

Clients of the Kubernetes API expect all objects where they do not ask for pages, so there is no
limit of ours on a list; but it takes neither the loop for long nor the memory of its whole answer:
what is sent is made a part at a time, and only when the client has taken the part before. A page is
of PAGE objects at most. What tells of more (`continue`) names the last object and the revision of
the first page, which later pages repeat: they show objects as they are by then, so whoever goes on
with a watch from that revision is told once more of what changed in between, and misses nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import Any

from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from api.resources.errors import BadRequest
from api.resources.meta import API_VERSION
from api.resources.registry import Kind
from api.service import table
from api.service.codec import compact, document_of, wire
from api.service.collection import DECODED, PART, Cursor
from api.service.selection import Selection
from api.service.state import State
from api.service.table import Layout
from api.store import Item

PAGE = 10_000  # objects
READ_SECONDS = 300.0  # for the whole of an answer, by whoever asked

Encode = Callable[[Item], bytes]


class Streamed(StreamingResponse):
    """A list that is sent while it is made. Who does not read it in time is left: until then what
    has changed since is held for him."""

    async def stream_response(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + READ_SECONDS

        async def timely(message: Message) -> None:
            async with asyncio.timeout_at(ends):
                await send(message)

        try:
            await super().stream_response(timely)
        except TimeoutError:
            return  # the connection is closed, as the answer is not whole


async def answered(
    kind: Kind,
    layout: Layout,
    state: State,
    wanted: Selection,
    *,
    limit: int,
    token: str,
    include: str | None,
) -> Response:
    """A list of what `wanted` selects, from where `token` says on; `include`: as a table whose
    rows carry that much of the object. BadRequest."""
    revision, after = _place(token) if token else (state.revision, "")
    cursor = state.table(kind.plural).cursor(wanted, after)
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    most = PART if include is None else DECODED
    if limit:
        page, more = await _page(cursor, min(limit, PAGE))
        if more:
            metadata["continue"] = _token(revision, page[-1].key.rpartition("/")[2])
            if not cursor.tested:
                metadata["remainingItemCount"] = cursor.count - len(page)
        parts, few = _cut(page, most), len(page) <= PART
    else:
        parts, few = selected(cursor, most), cursor.count <= PART
    made = _encoded(_head(kind, layout, metadata, include), parts, _encode(layout, include))
    if not few:
        return Streamed(made, media_type="application/json")
    return Response(b"".join([part async for part in made]), media_type="application/json")


async def selected(cursor: Cursor, most: int = PART) -> AsyncGenerator[list[Item], None]:
    """What a cursor selects, in parts of `most` at most; others are served between two."""
    most = min(most, DECODED) if cursor.tested else most
    while (part := cursor.part(most)) is not None:
        if part:
            yield part
        await asyncio.sleep(0)


async def _page(cursor: Cursor, limit: int) -> tuple[list[Item], bool]:
    """The first `limit`, and whether there are more."""
    page: list[Item] = []
    async for part in selected(cursor):
        page += part
        if len(page) > limit:
            return page[:limit], True
    return page, False


async def _cut(page: list[Item], most: int) -> AsyncGenerator[list[Item], None]:
    for first in range(0, len(page), most):
        yield page[first : first + most]
        await asyncio.sleep(0)


async def _encoded(
    head: bytes, parts: AsyncIterator[list[Item]], encode: Encode
) -> AsyncIterator[bytes]:
    """The bytes of an answer that begins with `head`, up to its list."""
    before = head
    async for items in parts:
        yield before + b",".join(map(encode, items))
        before = b","
    yield b"]}" if before == b"," else head + b"]}"


def _head(kind: Kind, layout: Layout, metadata: dict[str, Any], include: str | None) -> bytes:
    if include is not None:
        begun: Iterable[Any] = table.table(layout, (), metadata, include)
        return compact(begun).removesuffix(b"]}")
    begun = {"apiVersion": API_VERSION, "kind": f"{kind.kind}List", "metadata": metadata}
    return compact({**begun, "items": []}).removesuffix(b"]}")


def _encode(layout: Layout, include: str | None) -> Encode:
    if include is None:
        return wire
    row = table.rows(layout, include)
    return lambda item: compact(row(document_of(item.value, item.revision)))


def _token(revision: int, name: str) -> str:
    return base64.urlsafe_b64encode(f"{revision}/{name}".encode()).decode()


def _place(token: str) -> tuple[int, str]:
    """The revision of the first page, and the last name before this one."""
    try:
        revision, slash, name = (
            base64.b64decode(token.encode("ascii"), b"-_", validate=True).decode().partition("/")
        )
        if not slash or not revision.isdecimal() or len(revision) > 18:
            raise ValueError
        return int(revision), name
    except (ValueError, binascii.Error):
        raise BadRequest("cannot read continue: it must be what a list before said") from None
