"""describe: objects in full, and what has become of them, for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import typer
import yaml

from api.client import Client
from api.resources.columns import age
from api.resources.errors import NotFound
from api.resources.registry import Kind
from routed.ctl.connection import Connection
from routed.ctl.tables import aligned
from routed.ctl.targets import Selected, Target, find

Document = dict[str, Any]


def describe(connection: Connection, wanted: Sequence[Target], selected: Selected) -> None:
    """Print them, one after the other."""

    async def work(client: Client) -> list[str]:
        return [
            described(document, await _events(client, each.kind, document))
            for each in wanted
            for document in await find(client, each, selected)
        ]

    typer.echo("\n\n".join(connection.run(work)))


async def _events(client: Client, kind: Kind, document: Document) -> list[Document]:
    """What has become of an object; a service that is older than events says nothing of it."""
    name, uid = (document["metadata"][field] for field in ("name", "uid"))
    of = f"involvedObject.kind={kind.kind},involvedObject.name={name},involvedObject.uid={uid}"
    try:
        path = f"{client.server}/api/v1/events"
        listed = await client.raw("GET", path, params={"fieldSelector": of})
    except NotFound:
        return []
    found: list[Document] = listed["items"]
    return found


def described(document: Document, events: Sequence[Document]) -> str:
    """Its text."""
    metadata = document["metadata"]
    lines = [f"Name:     {metadata['name']}", f"Kind:     {document.get('kind', '<unknown>')}"]
    for title in ("labels", "annotations"):
        held = metadata.get(title) or {}
        text = ", ".join(f"{k}={v}" for k, v in sorted(held.items())) or "<none>"
        lines.append(f"{title.capitalize() + ': ':<10}{text}")
    lines.append(f"Created:  {metadata.get('creationTimestamp', '<unknown>')}")
    if "deletionTimestamp" in metadata:
        lines.append(f"Deleted:  {metadata['deletionTimestamp']} (its owner is asked for it)")
    for title in ("spec", "status"):
        body = yaml.safe_dump(document.get(title) or {}, sort_keys=False).rstrip()
        lines.append(f"{title.capitalize()}:")
        lines += [f"  {line}" for line in body.splitlines()]
    now = datetime.now(UTC)
    rows = [["TYPE", "REASON", "AGE", "MESSAGE"]]
    for event in events:
        when = age(event["lastTimestamp"], now)
        rows.append([event["type"], event["reason"], when, event["message"]])
    lines.append("Events:" if events else "Events:   <none>")
    lines += [f"  {line}" for line in aligned(rows).splitlines() if events]
    return "\n".join(lines)
