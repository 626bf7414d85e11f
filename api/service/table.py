"""Lists, objects and watches as tables (meta.k8s.io/v1): what `kubectl get` prints.

Pure. The columns are the kind's; `priority` 1 is shown with ``-o wide``. Each row carries the
object's metadata, or all of it, or nothing, as the client asks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from api.resources.columns import age, cell
from api.resources.errors import BadRequest
from api.resources.registry import Kind
from api.service.codec import compact, line

Document = dict[str, Any]
API = "meta.k8s.io/v1"
INCLUDED = ("None", "Metadata", "Object")


def wanted(accept: str) -> bool:
    """Whether the Accept header prefers a table: of what it names the first that we know counts."""
    for part in accept.split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        if media not in ("application/json", "*/*"):
            continue
        asked = dict(one.split("=", 1) for one in parameters if "=" in one)
        if asked.get("as") == "Table" and asked.get("g") == "meta.k8s.io":
            if asked.get("v") == "v1":
                return True
            continue
        if "as" not in asked:
            return False
    return False


def included(text: str) -> str:
    """What of the object a row carries; BadRequest."""
    if text and text not in INCLUDED:
        raise BadRequest(f"cannot read includeObject {text[:40]!r}: one of {', '.join(INCLUDED)}")
    return text or "Metadata"


def table(
    kind: Kind,
    documents: Iterable[Document],
    metadata: Document,
    include: str,
    *,
    columns: bool = True,
) -> Document:
    """The table of `documents`; `metadata` is the list's."""
    return {
        "kind": "Table",
        "apiVersion": API,
        "metadata": metadata,
        "columnDefinitions": _columns(kind) if columns else [],
        "rows": list(map(rows(kind, include), documents)),
    }


def rows(kind: Kind, include: str) -> Callable[[Document], Document]:
    """What makes the row of an object."""
    now = datetime.now(UTC)
    return lambda document: _row(kind, document, include, now)


def one(kind: Kind, document: Document, include: str) -> Document:
    """The table of a single object."""
    version = {"resourceVersion": document["metadata"].get("resourceVersion", "")}
    return table(kind, [document], version, include)


async def watched(
    kind: Kind, lines: AsyncGenerator[bytes, None], include: str
) -> AsyncGenerator[bytes, None]:
    """A watch's lines with a table of one row in place of each object; the columns come once."""
    told = False
    try:
        async for part in lines:
            made = []
            for text in part.splitlines():
                event = json.loads(text)
                held, word = event["object"], event["type"]
                if word != "ERROR":
                    rows = [] if word == "BOOKMARK" else [held]
                    held = table(kind, rows, held["metadata"], include, columns=not told)
                    told = True
                made.append(line(word, compact(held)))
            yield b"".join(made)
    finally:
        await lines.aclose()


def _columns(kind: Kind) -> list[Document]:
    name = {"name": "Name", "format": "name", "description": "Name of the object."}
    found = [{**name, "type": "string", "priority": 0}]
    for column in kind.columns:
        described = {"name": column.name.title(), "format": "", "description": column.path}
        found.append({**described, "type": "string", "priority": column.priority})
    made = {"name": "Age", "format": "", "description": "Since its creation."}
    return [*found, {**made, "type": "string", "priority": 0}]


def _row(kind: Kind, document: Document, include: str, now: datetime) -> Document:
    metadata = document["metadata"]
    cells = [cell(document, column.path) for column in kind.columns]
    made: Document = {
        "cells": [metadata["name"], *cells, age(metadata.get("creationTimestamp"), now)]
    }
    if include == "Metadata":
        partial = {"kind": "PartialObjectMetadata", "apiVersion": API, "metadata": metadata}
        made["object"] = partial
    elif include == "Object":
        made["object"] = document
    return made
