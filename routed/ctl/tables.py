"""What objects look like: kubectl-like tables from the registry's columns, YAML, JSON, names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from api.resources.columns import age, cell
from api.resources.meta import API_GROUP
from api.resources.registry import Kind
from routed.ctl import jsonpath
from routed.ctl.output import Output, cells

Document = dict[str, Any]
PLAIN_TABLE = Output()


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of objects: `labels` are columns of their own, `all_labels` one column.
    `managed`: who has set which field, which nobody wants to see."""

    output: Output = PLAIN_TABLE
    header: bool = True
    labels: tuple[str, ...] = ()
    all_labels: bool = False
    managed: bool = False

    def text(self, kind: Kind, documents: Sequence[Document], *, single: bool) -> str:
        """All of `documents`; a `single` one is no list."""
        return shown(self, [(kind, documents)], single=single)

    def table(self, kind: Kind, documents: Sequence[Document], *, qualified: bool = False) -> str:
        """Columns padded to their widest cell; names are ``kind/name`` if `qualified`."""
        if self.output.form == "custom-columns":
            head = [[name for name, _ in self.output.columns]] if self.header else []
            return aligned([*head, *(cells(self.output.columns, one) for one in documents)])
        wide = self.output.form == "wide"
        columns = [column for column in kind.columns if wide or column.priority == 0]
        now = datetime.now(UTC)
        titles = [one.rpartition("/")[2].upper() for one in self.labels]
        titles += ["LABELS"] if self.all_labels else []
        names = (column.name for column in columns)
        rows = [["NAME", *names, "AGE", *titles]] if self.header else []
        for document in documents:
            made = [cell(document, column.path) for column in columns]
            metadata = document["metadata"]
            name = said(kind, metadata["name"]) if qualified else metadata["name"]
            labels = metadata.get("labels") or {}
            also = [labels.get(one, "") for one in self.labels]
            if self.all_labels:
                also.append(",".join(f"{k}={v}" for k, v in sorted(labels.items())) or "<none>")
            rows.append([name, *made, age(metadata.get("creationTimestamp"), now), *also])
        return aligned(rows)


def shown(how: Shown, found: Sequence[tuple[Kind, Sequence[Document]]], *, single: bool) -> str:
    """Objects of one kind or several."""
    documents = [document for _, each in found for document in each]
    form = how.output.form
    if how.output.whole:
        if not how.managed:
            documents = [unmanaged(document) for document in documents]
        kinds = {kind.kind for kind, _ in found}
        name = f"{found[0][0].kind}List" if len(kinds) == 1 else "List"
        whole: Any = documents[0] if single and documents else listing(name, documents)
        return _written(form, how.output.template, whole)
    if form == "name":
        return "\n".join(
            said(kind, document["metadata"]["name"]) for kind, each in found for document in each
        )
    some = [(kind, each) for kind, each in found if each]
    tables = (how.table(kind, each, qualified=len(some) > 1) for kind, each in some)
    return "\n\n".join(tables)


def _written(form: str, template: str, whole: Any) -> str:
    if form == "yaml":
        return str(yaml.safe_dump(whole, sort_keys=False)).rstrip()
    if form == "jsonpath":
        return jsonpath.rendered(template, whole)
    if form == "jsonpath-as-json":
        return json.dumps(jsonpath.found(jsonpath.path(template), whole), indent=4)
    return json.dumps(whole, indent=4)


def unmanaged(document: Document) -> Document:
    """Without who has set which field."""
    metadata = {k: v for k, v in document["metadata"].items() if k != "managedFields"}
    return {**document, "metadata": metadata}


def said(kind: Kind, name: str) -> str:
    """``ippool.routed.dev/main``"""
    return f"{kind.singular}.{API_GROUP}/{name}"


def listing(kind: str, documents: Sequence[Document]) -> Document:
    return {"apiVersion": f"{API_GROUP}/v1", "kind": kind, "items": list(documents)}


def ordered(documents: Sequence[Document], by: str) -> list[Document]:
    """Sorted by what a path leads to: what is not there first, numbers before texts."""
    where = jsonpath.path(by)

    def key(document: Document) -> tuple[int, float, str]:
        value = next(iter(jsonpath.found(where, document)), None)
        if value is None:
            return 0, 0.0, ""
        if isinstance(value, int | float):
            return 1, float(value), ""
        return 2, 0.0, jsonpath.said(value)

    return sorted(documents, key=key)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
