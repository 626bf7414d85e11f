"""What objects look like: kubectl-like tables from the registry's columns, YAML, JSON, names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from api.resources.columns import age, cell
from api.resources.meta import API_GROUP
from api.resources.registry import Kind

Document = dict[str, Any]


def formatted(kind: Kind, documents: Sequence[Document], output: str, *, single: bool) -> str:
    """`documents` as `-o` says; an empty `output` is the table."""
    if output in ("json", "yaml"):
        whole: Any = documents[0] if single else listing(kind, documents)
        if output == "json":
            return json.dumps(whole, indent=4)
        return str(yaml.safe_dump(whole, sort_keys=False)).rstrip()
    if output == "name":
        return "\n".join(f"{said(kind, d['metadata']['name'])}" for d in documents)
    return table(kind, documents, wide=output == "wide")


def said(kind: Kind, name: str) -> str:
    """``ippool.routed.dev/main``"""
    return f"{kind.singular}.{API_GROUP}/{name}"


def listing(kind: Kind, documents: Sequence[Document]) -> Document:
    return {
        "apiVersion": f"{API_GROUP}/v1",
        "kind": f"{kind.kind}List",
        "items": list(documents),
    }


def table(kind: Kind, documents: Sequence[Document], *, wide: bool, header: bool = True) -> str:
    """Columns padded to their widest cell."""
    columns = [column for column in kind.columns if wide or column.priority == 0]
    now = datetime.now(UTC)
    rows = [["NAME", *(column.name for column in columns), "AGE"]] if header else []
    for document in documents:
        cells = [cell(document, column.path) for column in columns]
        created = document["metadata"].get("creationTimestamp")
        rows.append([document["metadata"]["name"], *cells, age(created, now)])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def described(document: Document, events: Sequence[Document]) -> str:
    """All of one object and what has become of it, for people."""
    metadata = document["metadata"]
    lines = [f"Name:     {metadata['name']}"]
    for title in ("labels", "annotations"):
        held = metadata.get(title) or {}
        text = ", ".join(f"{k}={v}" for k, v in sorted(held.items())) or "<none>"
        lines.append(f"{title.capitalize() + ':':<10}{text}")
    lines.append(f"Created:  {metadata.get('creationTimestamp', '<unknown>')}")
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
    return "\n".join(lines) + "\n"
