"""`routectl apply` and `create`: files as objects that are checked, and one object at a time.

Applying here is reading and replacing, on the revision that was read: what somebody writes in
between is not overwritten, it is decided anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from api.client import Client
from api.resources.errors import AlreadyExists, Conflict, NotFound
from api.resources.registry import Kind
from routed.ctl import documents
from routed.ctl.tables import said

Document = dict[str, Any]
TRIES = 5


def checked(files: Sequence[Path], validation: str) -> list[tuple[Kind, Document]]:
    """The objects of `files`; of what is left out of them the user is told, if that was asked."""
    unknown: list[str] | None = None if validation == "Strict" else []
    found = documents.read(files, unknown)
    for text in (unknown or []) if validation == "Warn" else []:
        typer.echo(f"Warning: {text}", err=True)
    return found


async def applied(client: Client, kind: Kind, document: Document, validation: str) -> str:
    """created, configured or unchanged; repeated while others write in between."""
    of_kind, name = f"/{kind.plural}", document["metadata"]["name"]
    path = f"{of_kind}/{name}"
    for attempt in range(TRIES):
        try:
            held = await client.raw("GET", path)
        except NotFound:
            try:
                await client.raw("POST", of_kind, json=document, validation=validation)
            except AlreadyExists:
                continue
            return "created"
        wanted = {k: v for k, v in document.items() if k in ("apiVersion", "kind", "spec")}
        meta = {k: v for k, v in document["metadata"].items() if k in ("labels", "annotations")}
        based = {"name": held["metadata"]["name"]}
        based["resourceVersion"] = held["metadata"]["resourceVersion"]
        try:
            change = {**wanted, "metadata": {**based, **meta}}
            made = await client.raw("PUT", path, json=change, validation=validation)
        except Conflict:
            if attempt == TRIES - 1:
                raise
            continue
        same = made["metadata"]["resourceVersion"] == based["resourceVersion"]
        return "unchanged" if same else "configured"
    raise Conflict(f"cannot apply {said(kind, name)}: others keep changing it; try again")
