"""The shorter way to a handler, and the bytes that are never decoded on it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st

from api.resources.decode import _is_plain, parse_body
from api.resources.errors import BadRequest
from api.service.app import application
from api.service.codec import document_of, encoded, wire
from api.service.index import IndexedAPI
from api.store import Item
from api.store.sqlite.store import SqliteStore


@pytest.fixture
def app(tmp_path: Path) -> Any:
    async def make() -> IndexedAPI:
        store = SqliteStore(tmp_path / "s.db")
        made = application(store)
        await store.close()
        return made

    return asyncio.run(make())


def test_every_declared_path_is_found(app: IndexedAPI) -> None:
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert len(routes) > 50
    for route in routes:
        for method in route.methods:
            path = route.path.replace("{name}", "a.b")
            scope: dict[str, Any] = {"method": method, "path": path}
            assert app._found(scope) is route.endpoint, (method, path)
            assert scope.get("path_params", {}) == ({"name": "a.b"} if path != route.path else {})


@pytest.mark.parametrize(
    "path",
    [
        "/apis/routed.dev/v1/nodes/",
        "/apis/routed.dev/v1/nodes//status",
        "/apis/routed.dev/v1/nodes/a/b",
        "/apis/routed.dev/v1/nodes/a/status/",
        "/apis/routed.dev/v1/none",
        "/apis/routed.dev/v1/status",
        "/healthz",
        "/",
        "",
    ],
)
def test_anything_else_goes_the_long_way(app: IndexedAPI, path: str) -> None:
    assert app._found({"method": "GET", "path": path}) is None


TEXT = st.one_of(st.sampled_from(['"metadata":{', '{"metadata":{', "\\", "metadata"]), st.text())


@given(st.dictionaries(TEXT, TEXT, max_size=3), st.dictionaries(TEXT, TEXT, max_size=3))
def test_the_wire_form_is_the_document_with_its_revision(
    labels: dict[str, str], annotations: dict[str, str]
) -> None:
    document = {
        "status": {},
        "spec": {"metadata": {}},
        "metadata": {"name": "n", "labels": labels, "annotations": annotations, "uid": "u"},
        "kind": "Node",
        "apiVersion": "routed.dev/v1",
    }
    value = encoded(document)
    assert json.loads(wire(Item("/nodes/n", value, 7, 3))) == document_of(value, 7)


BODIES = st.recursive(st.one_of(st.text(), st.integers(), st.none()), lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
))  # fmt: skip


@given(st.dictionaries(st.text(), BODIES, max_size=3), st.sampled_from(["utf-8", "utf-16-le"]))
def test_a_body_that_is_not_looked_at_twice_needs_it_not(
    document: dict[str, Any], encoding: str
) -> None:
    body = json.dumps(document, ensure_ascii=False).encode(encoding)
    if _is_plain(body):
        parsed = parse_body(body)
        json.dumps(parsed, ensure_ascii=False).encode()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-32-le"])
@pytest.mark.parametrize("half", ["\\ud800", "\ud800"])
def test_half_a_surrogate_pair_is_found_in_every_encoding(half: str, encoding: str) -> None:
    body = f'{{"a": "{half}"}}'.encode(encoding, "surrogatepass")
    with pytest.raises(BadRequest, match="no Unicode text"):
        parse_body(body)
