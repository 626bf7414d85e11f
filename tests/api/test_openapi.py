"""What the models say of themselves: schemas that kubectl can use, a page, an example each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.resources.decode import decode
from api.resources.registry import KINDS, Kind, by_kind
from api.service import openapi, schemas

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "kinds"


def inside(held: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every map in a document, with its path."""
    if isinstance(held, dict):
        yield path, held
        for name, child in held.items():
            yield from inside(child, f"{path}/{name}")
    elif isinstance(held, list):
        for place, child in enumerate(held):
            yield from inside(child, f"{path}/{place}")


def test_every_field_is_described() -> None:
    for name, held in schemas.components().items():
        if name in (schemas.STATUS, schemas.DELETE_OPTIONS) or name.endswith("List"):
            continue
        for field, schema in held.get("properties", {}).items():
            assert schema.get("description"), f"{name}.{field}"


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.plural)
def test_every_kind_is_described(kind: Kind) -> None:
    assert schemas.components()[schemas.of(kind)]["description"]


def test_the_documents_have_nothing_that_kubectl_cannot_read() -> None:
    for document in (openapi.v3("1"), openapi.core("1"), openapi.v2("1")):
        for path, held in inside(document):
            if path.endswith("/properties"):
                continue  # names of fields
            assert not {"anyOf", "const", "$defs", "prefixItems"} & held.keys(), path
            assert held.get("additionalProperties", {}) not in (True, False), path
            if "$ref" in held:
                assert set(held) <= {"$ref", "description", "default"}, path
                assert len(held) == 1 or document.get("swagger"), path
                at: Any = document
                for part in held["$ref"].removeprefix("#/").split("/"):
                    at = at[part]
        json.dumps(document)


def test_each_operation_is_tied_to_its_kind() -> None:
    names = set()
    for path, item in openapi.v3("1")["paths"].items():
        for word, operation in item.items():
            if word == "parameters":
                continue
            plural = path.removeprefix(openapi.BASE).split("/")[1]
            assert operation["x-kubernetes-group-version-kind"] == schemas.gvk(KINDS[plural].kind)
            assert operation["operationId"] not in names
            names.add(operation["operationId"])


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.plural)
def test_every_kind_has_an_example_that_is_right(kind: Kind) -> None:
    text = (EXAMPLES / f"{kind.singular}.yaml").read_text(encoding="utf-8")
    for document in yaml.safe_load_all(text):
        decode(KINDS[by_kind(document["kind"]).plural], document)  # type: ignore[union-attr]
    assert document["kind"] == kind.kind


def test_the_page_of_the_kinds_is_as_the_models_are() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert page == made.stdout, "make it anew: scripts/reference > docs/reference.md"
