"""Patches of every media type, and what is none."""

from __future__ import annotations

from typing import Any

import pytest

from api.resources.errors import BadRequest, Invalid
from api.service.patches import JSON_PATCH, MERGE, STRATEGIC, patched, yaml_document

HELD: dict[str, Any] = {
    "metadata": {"name": "a", "labels": {"x": "1", "y": "2"}},
    "spec": {"n": [1, 2]},
}


@pytest.mark.parametrize("media_type", [MERGE, STRATEGIC])
def test_a_merge_patch(media_type: str) -> None:
    change = {"metadata": {"labels": {"x": None, "z": "3"}}, "spec": {"n": [3]}}
    made = patched(media_type, HELD, change)
    assert made["metadata"] == {"name": "a", "labels": {"y": "2", "z": "3"}}
    assert made["spec"] == {"n": [3]}
    assert HELD["spec"] == {"n": [1, 2]}, "what it is of stays as it is"


def test_a_json_patch() -> None:
    change = [
        {"op": "test", "path": "/metadata/labels/x", "value": "1"},
        {"op": "replace", "path": "/metadata/labels/x", "value": "9"},
        {"op": "remove", "path": "/spec/n/0"},
        {"op": "add", "path": "/metadata/labels/a~1b", "value": "c"},
    ]
    made = patched(JSON_PATCH, HELD, change)
    assert made["metadata"]["labels"] == {"x": "9", "y": "2", "a/b": "c"}
    assert made["spec"] == {"n": [2]}
    assert HELD["metadata"]["labels"]["x"] == "1"


@pytest.mark.parametrize(
    ("media_type", "change", "error", "says"),
    [
        (MERGE, [], BadRequest, "an object"),
        (JSON_PATCH, {}, BadRequest, "a list of operations"),
        (JSON_PATCH, ["x"], BadRequest, "a list of operations"),
        (JSON_PATCH, [{"op": "fly", "path": "/a"}], BadRequest, "no JSON patch"),
        (JSON_PATCH, [{"op": "add", "path": "/a"}], BadRequest, "no JSON patch"),
        (JSON_PATCH, [{"op": "remove", "path": "/none"}], Invalid, "does not apply"),
        (JSON_PATCH, [{"op": "test", "path": "/spec", "value": 1}], Invalid, "does not apply"),
        (JSON_PATCH, [{"op": "replace", "path": "", "value": 1}], BadRequest, "no object"),
    ],
)
def test_what_is_no_patch(media_type: str, change: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        patched(media_type, HELD, change)


def test_a_patch_is_bounded() -> None:
    doubling = [{"op": "copy", "from": "", "path": f"/x{n}"} for n in range(9)]
    with pytest.raises(BadRequest, match="of which 8 copy"):
        patched(JSON_PATCH, HELD, doubling)
    with pytest.raises(BadRequest, match="at most 1000"):
        patched(JSON_PATCH, HELD, [{"op": "test", "path": "/spec", "value": 1}] * 1001)
    with pytest.raises(BadRequest, match="YAML of more than"):
        yaml_document(b"- a\n" * (1 << 16))
    assert yaml_document(b"spec: {cidr: 10.0.0.0/8}") == {"spec": {"cidr": "10.0.0.0/8"}}
    with pytest.raises(BadRequest, match="anchors"):
        yaml_document(b"a: &x 1\nb: *x")
