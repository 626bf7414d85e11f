"""Both selector languages."""

from __future__ import annotations

import pytest

from api.resources.errors import BadRequest
from api.resources.registry import KINDS
from api.resources.selectors import SelectorError, parse
from api.service.selection import selection

LABELS = {"rack": "r1", "gpu": "a100", "app.example.com/tier": "web"}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("all()", True),
        ("rack == 'r1'", True),
        ('rack == "r2"', False),
        ("rack != 'r2' && has(gpu)", True),
        ("!has(gpu)", False),
        ("none != 'x'", True),
        ("none == ''", False),
        ("rack in {'r1', 'r2'}", True),
        ("rack not in {'r1'}", False),
        ("none not in {'r1'}", True),
        ("rack in {}", False),
        ("gpu contains '10'", True),
        ("gpu starts with 'a' && gpu ends with '00'", True),
        ("app.example.com/tier == 'web'", True),
        ("rack == 'r2' || (has(gpu) && !(rack == 'r3'))", True),
        ("rack == 'r2' && rack == 'r1' || has(gpu)", True),
    ],
)
def test_calicos_language(text: str, selected: bool) -> None:
    assert parse(text).matches(LABELS) is selected


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("rack = 'r1'", 6),
        ("rack == r1", 9),
        ("rack == 'r1' &&", 16),
        ("(rack == 'r1'", 14),
        ("rack == 'r1' rack", 14),
        ("has(", 5),
        ("rack in 'r1'", 9),
        ("'r1'", 1),
        ("rack ==  #", 10),
    ],
)
def test_a_mistake_is_told_with_its_column(text: str, column: int) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    assert caught.value.column == column


DOCUMENT = {"metadata": {"name": "w", "labels": LABELS}, "spec": {"node": "h1"}}


@pytest.mark.parametrize(
    ("labels", "fields", "selected"),
    [
        ("", "", True),
        ("rack=r1,gpu", "", True),
        ("rack==r2", "", False),
        ("rack!=r2,!none", "", True),
        ("rack in (r1, r2),gpu notin (x)", "spec.node=h1", True),
        ("", "metadata.name=w,spec.node!=h1", False),
    ],
)
def test_kubernetes_language(labels: str, fields: str, selected: bool) -> None:
    assert selection(KINDS["workloads"], labels, fields)(DOCUMENT) is selected


@pytest.mark.parametrize(("labels", "fields"), [("a b", ""), ("", "spec.mode=veth"), ("", "x")])
def test_what_is_not_supported_is_refused(labels: str, fields: str) -> None:
    with pytest.raises(BadRequest):
        selection(KINDS["workloads"], labels, fields)
