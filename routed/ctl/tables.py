"""What objects look like: kubectl-like tables from the registry's columns, YAML, JSON, names."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

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
    rows = [["NAME", *(column.name for column in columns), "AGE"]] if header else []
    for document in documents:
        cells = [cell(document, column.path) for column in columns]
        created = document["metadata"].get("creationTimestamp")
        rows.append([document["metadata"]["name"], *cells, age(created)])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def cell(document: Document, path: str) -> str:
    """The text of one cell; ``status.conditions[Ready]`` is that condition's status."""
    value: Any = document
    for part in path.split("."):
        match = re.fullmatch(r"(\w+)\[(\w+)\]", part)
        name = match[1] if match else part
        value = value.get(name) if isinstance(value, dict) else None
        if match:
            of_type = [c for c in value or [] if c.get("type") == match[2]]
            value = of_type[0]["status"] if of_type else None
    if isinstance(value, list):
        return ",".join(map(str, value)) or "<none>"
    if value is None or value == "":
        return "<none>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def age(created: str | None) -> str:
    """As kubectl: 5s, 3m, 2h, 4d."""
    if not created:
        return "<unknown>"
    then = datetime.fromisoformat(created)
    seconds = max(int((datetime.now(UTC) - then).total_seconds()), 0)
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86_400}d"
