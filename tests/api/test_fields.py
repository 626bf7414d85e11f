"""Server-side apply: whose fields are whose, what is in conflict, what is taken away."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.resources.errors import Conflict
from api.service import fields
from api.service.fields import APPLY, UPDATE, Managed, Manager, applied, leaves, updated

Document = dict[str, Any]
ANN, BOB = Manager("ann", APPLY), Manager("bob", APPLY)
EDIT = Manager("edit", UPDATE)


def obj(labels: Document | None = None, **spec: Any) -> Document:
    made: Document = {"apiVersion": "routed.dev/v1", "kind": "IPPool",
                      "metadata": {"name": "main"}, "spec": spec}  # fmt: skip
    if labels is not None:
        made["metadata"]["labels"] = labels
    return made


def paths(*texts: str) -> frozenset[fields.Path]:
    return frozenset(tuple(f"f:{part}" for part in text.split(".")) for text in texts)


def test_leaves_are_what_users_set() -> None:
    held = obj({"a": "1", "b": "2"}, cidr="10.0.0.0/8", filters=["x", "y"], empty={})
    held["metadata"] |= {"uid": "u", "resourceVersion": "7", "annotations": {"n": "v"}}
    assert leaves(held) == paths(
        "metadata.labels.a", "metadata.labels.b", "metadata.annotations.n",
        "spec.cidr", "spec.filters", "spec.empty",
    )  # fmt: skip


def test_conditions_are_a_map_by_type() -> None:
    held = {"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Up"}]}}
    ready, up = ('k:{"type":"Ready"}', 'k:{"type":"Up"}')
    at = ("f:status", "f:conditions")
    assert leaves(held) == {
        (*at, ready, "f:type"), (*at, ready, "f:status"), (*at, up, "f:type"),
    }  # fmt: skip
    live = {"status": {"conditions": [{"type": "Up", "status": "False"}]}}
    made, _ = applied(live, held, ANN, {}, force=False)
    assert made["status"]["conditions"] == [
        {"type": "Up", "status": "False"}, {"type": "Ready", "status": "True"},
    ]  # fmt: skip


def test_what_one_applies_and_then_leaves_out_is_gone() -> None:
    live, managed = applied(obj(), obj({"a": "1", "b": "2"}, disabled=True), ANN, {}, force=False)
    assert live["metadata"]["labels"] == {"a": "1", "b": "2"}
    live, managed = applied(live, obj({"a": "1"}), ANN, managed, force=False)
    assert live["metadata"]["labels"] == {"a": "1"}
    assert "disabled" not in live["spec"]
    live, _ = applied(live, obj(), ANN, managed, force=False)
    assert "labels" not in live["metadata"], "an empty map is none"


def test_what_others_have_too_stays() -> None:
    live, managed = applied(obj(), obj({"a": "1"}), ANN, {}, force=False)
    live, managed = applied(live, obj({"a": "1", "b": "2"}), BOB, managed, force=False)
    live, managed = applied(live, obj(), ANN, managed, force=False)
    assert live["metadata"]["labels"] == {"a": "1", "b": "2"}
    assert set(managed) == {BOB}


def test_a_conflict_names_who_and_what_and_force_takes_over() -> None:
    live, managed = applied(obj(), obj({"a": "1"}, disabled=True), ANN, {}, force=False)
    before = copy.deepcopy(live)
    with pytest.raises(Conflict) as refused:
        applied(live, obj({"a": "2"}, disabled=False), BOB, managed, force=False)
    assert live == before
    assert [(c.field, c.message, c.reason) for c in refused.value.causes] == [
        (".metadata.labels.a", 'conflict with "ann"', "FieldManagerConflict"),
        (".spec.disabled", 'conflict with "ann"', "FieldManagerConflict"),
    ]
    live, managed = applied(live, obj({"a": "2"}), BOB, managed, force=True)
    assert live["metadata"]["labels"] == {"a": "2"}
    assert managed == {ANN: paths("spec.disabled"), BOB: paths("metadata.labels.a")}


def test_a_list_is_one_field() -> None:
    live, managed = applied(obj(), obj(filters=["x"]), ANN, {}, force=False)
    with pytest.raises(Conflict, match=r"\.spec\.filters"):
        applied(live, obj(filters=["x", "y"]), BOB, managed, force=False)


def test_an_update_takes_what_it_changes() -> None:
    live, managed = applied(obj(), obj({"a": "1"}, disabled=True, cidr="c"), ANN, {}, force=False)
    edited = obj({"a": "1"}, disabled=False, cidr="c", note="n")
    managed = updated(live, edited, EDIT, managed)
    assert managed == {
        ANN: paths("metadata.labels.a", "spec.cidr"),
        EDIT: paths("spec.disabled", "spec.note"),
    }
    managed = updated(edited, obj(disabled=False, cidr="c"), EDIT, managed)
    assert managed == {ANN: paths("spec.cidr"), EDIT: paths("spec.disabled")}
    with pytest.raises(Conflict, match=r'conflict\(s\) with "edit"'):
        applied(edited, obj(disabled=True), ANN, managed, force=False)


def test_what_is_written_can_be_read_and_keeps_its_time() -> None:
    managed: Managed = {
        ANN: leaves(obj({"a.b/c": "1"}, cidr="c")),
        Manager("agent", UPDATE, "status"): leaves({"status": {"conditions": [{"type": "Ready"}]}}),
    }
    first = fields.written(managed, [], "2026-01-01T00:00:00Z")
    assert fields.read(first) == managed
    assert first[1]["fieldsV1"] == {
        "f:metadata": {"f:labels": {"f:a.b/c": {}}}, "f:spec": {"f:cidr": {}},
    }  # fmt: skip
    managed[ANN] = leaves(obj(cidr="c"))
    second = fields.written(managed, first, "2026-01-02T00:00:00Z")
    assert [entry["time"][:10] for entry in second] == ["2026-01-01", "2026-01-02"]


VALUES = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 2), max_size=2),
    lambda inside: st.dictionaries(st.sampled_from("abc"), inside, max_size=3),
    max_leaves=6,
)


SPECS = st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3)


@given(st.lists(st.tuples(st.sampled_from([ANN, BOB]), SPECS)))
def test_what_was_applied_last_is_there(history: list[tuple[Manager, Document]]) -> None:
    live: Document = {"spec": {}}
    managed: Managed = {}
    for manager, spec in history:
        live, managed = applied(live, {"spec": spec}, manager, managed, force=True)
        for path in leaves({"spec": spec}):
            wanted, there = fields._at({"spec": spec}, path), fields._at(live, path)
            assert there == wanted or (wanted == {} and isinstance(there, dict))
        for who, paths in managed.items():
            for path in paths:
                assert fields._at(live, path) is not None or who == manager, (who, path)
