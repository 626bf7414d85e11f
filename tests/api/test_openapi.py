"""What the models say of themselves: schemas that kubectl can use, a page, an example each."""

from __future__ import annotations

import json
import re
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
from routed.agent.agent import Agent
from routed.agent.control import Control
from routed.agent.speech import Speech
from routed.agent.views import conditions
from routed.kernel.fake import FakeKernel
from routed.lab.hollow.host import HollowFilter
from routed.settings import AgentSettings

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
            if plural == "selections":
                continue  # is of no kind
            assert operation["x-kubernetes-group-version-kind"] == schemas.gvk(KINDS[plural].kind)
            assert operation["operationId"] not in names
            names.add(operation["operationId"])


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.plural)
def test_every_kind_has_an_example_that_is_right(kind: Kind) -> None:
    text = (EXAMPLES / f"{kind.singular}.yaml").read_text(encoding="utf-8")
    for document in yaml.safe_load_all(text):
        decode(KINDS[by_kind(document["kind"]).plural], document)  # type: ignore[union-attr]
    assert document["kind"] == kind.kind


ALIKE = {  # of several that are of one shape, one is enough
    r"\b(import|export)V[46]\b": "rules",
    r"\b(ingress|egress)\b": "rules",
    r"\b(source|destination)\b": "end",
}
NOT_OF_USERS = {"spec.cidr", "spec.epoch"}  # of a block: the service says them


def alike(path: str) -> str:
    for pattern, name in ALIKE.items():
        path = re.sub(pattern, name, path)
    return path


def fields(held: dict[str, Any], path: str) -> Iterator[str]:
    known = schemas.components()

    def resolved(held: dict[str, Any]) -> dict[str, Any]:
        reference = held.get("$ref") or next((o["$ref"] for o in held.get("allOf", ())), None)
        return known[reference.removeprefix(schemas.REF)] if reference else held

    for name, field in resolved(held).get("properties", {}).items():
        yield alike(f"{path}.{name}")
        inner = resolved(field)
        inner = resolved(inner["items"]) if inner.get("type") == "array" else inner
        if inner.get("type") == "object":
            yield from fields(inner, f"{path}.{name}")


def used(document: Any, path: str) -> Iterator[str]:
    for one in document if isinstance(document, list) else [document]:
        for name, value in one.items() if isinstance(one, dict) else ():
            yield alike(f"{path}.{name}")
            yield from used(value, f"{path}.{name}")


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.plural)
def test_the_examples_of_a_kind_use_every_field_of_it(kind: Kind) -> None:
    text = (EXAMPLES / f"{kind.singular}.yaml").read_text(encoding="utf-8")
    found = {
        path
        for document in yaml.safe_load_all(text)
        if document["kind"] == kind.kind
        for path in used(document["spec"], "spec")
    }
    wanted = set(fields(schemas.components()[schemas.of(kind)]["properties"]["spec"], "spec"))
    assert wanted - found - (NOT_OF_USERS if kind.kind == "IPBlock" else set()) == set()


def test_the_pages_of_the_kinds_are_as_the_models_are(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference", tmp_path],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    anew = "make it anew: scripts/reference > docs/reference.md"
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == made.stdout, anew
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "kinds").iterdir()}
    assert set(pages) == {f"{plural}.md" for plural in KINDS}
    for name, page in pages.items():
        assert (ROOT / "docs" / "kinds" / name).read_text(encoding="utf-8") == page, (name, anew)
    assert {path.name for path in (ROOT / "docs" / "kinds").glob("*.md")} == set(pages)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.plural)
def test_a_page_has_everything(kind: Kind) -> None:
    page = (ROOT / "docs" / "kinds" / f"{kind.plural}.md").read_text(encoding="utf-8")
    for title in ("Fields", "What is refused", "Example"):
        assert f"\n## {title}\n" in page
    for path in (*kind.immutable, *kind.selectable, *(one.path for one in kind.columns)):
        assert f"`{path}`" in page
    assert page.count(" Invalid: ") + page.count(" Conflict: ") + page.count(" BadRequest: ") > 1


def test_the_conditions_of_a_node_are_those_of_its_page(tmp_path: Path) -> None:
    settings = AgentSettings(node="h1", run_dir=tmp_path, state_dir=tmp_path)
    speech = Speech(tmp_path / "speaker.sock")
    agent = Agent(settings, FakeKernel(), HollowFilter(), Control(settings, None), speech)
    notes = yaml.safe_load((ROOT / "docs" / "kinds" / "notes.yaml").read_text(encoding="utf-8"))
    assert list(notes["nodes"]["conditions"]) == [one.type for one in conditions(agent)]
